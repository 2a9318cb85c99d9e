"""Benchmark-only mode."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents.api import PRESETS
from nas_edge.cli import completion
from nas_edge.cli.base import PATH, Command, check_new_file
from nas_edge.cli.options import CHARGED_HELP, COOL_HELP, CORES_HELP, DELEGATE_HELP
from nas_edge.errors import NasEdgeError, RunError, StoppedError

if TYPE_CHECKING:
    from nas_edge.benchmarking import Report

_DURATIONS = ", ".join(f"{name} {p.min_duration_s:g} to {p.max_duration_s:g} s" for name, p in PRESETS.items())


@click.command(cls=Command)
@click.argument("models", nargs=-1, required=True, type=PATH)
@click.option(
    "--device",
    "devices",
    multiple=True,
    default=("host:",),
    show_default=True,
    metavar="ADDRESS",
    shell_complete=completion.devices,
    help="Where to measure; may be repeated. See `nas-edge devices`.",
)
@click.option("--threads", default="1", show_default=True, metavar="N,N...", help="Each is measured on its own.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="quick",
    show_default=True,
    help=f"How long a model is timed: {_DURATIONS}.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="json holds every sample and can be compared with later.",
)
@click.option("--out", type=PATH, help="New file for that format; the table is printed as well.")
@click.option("--compare", "baseline", type=PATH, help="A file written with --format json.")
@click.option("--profile-ops", is_flag=True, help="Also times operators; csv: into OUT.ops.csv.")
@click.option("--energy", is_flag=True, help="Also measure the energy per inference, where the device reports it.")
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME=N,N...", help="Replaces an input's shape.")
@click.option("--delegate", metavar="NAME", default="cpu", show_default=True, help=DELEGATE_HELP)
@click.option("--require-delegate", is_flag=True, help="Fail models of which the delegate takes over no operator.")
@click.option("--cores", metavar="big|little|MASK", help=CORES_HELP)
@click.option("--require-cool", is_flag=True, help=COOL_HELP)
@click.option("--require-charged", is_flag=True, help=CHARGED_HELP)
def benchmark(
    models: tuple[Path, ...],
    devices: tuple[str, ...],
    threads: str,
    preset: str,
    form: str,
    out: Path | None,
    baseline: Path | None,
    profile_ops: bool,
    energy: bool,
    shapes: tuple[str, ...],
    delegate: str,
    require_delegate: bool,
    cores: str | None,
    require_cool: bool,
    require_charged: bool,
) -> None:
    """Measures any TFLite files side by side and compares them.

    \b
    Examples:
      nas-edge benchmark a.tflite b.tflite --threads 1,2
      nas-edge benchmark models/*.tflite --format json --out before.json
      nas-edge benchmark models/*.tflite --compare before.json

    Ctrl-C stops it, and what was measured is printed and written. With --format json --out FILE, the same command
    again measures what is missing.
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge import api, benchmarking

    spec = {
        "delegate": delegate,
        "require_delegate": require_delegate,
        "profile_ops": profile_ops,
        "energy": energy,
        "require_cool": require_cool,
        "require_charged": require_charged,
        "input_shapes": dict(_input_shape(text) for text in shapes),
    }
    counts = _whole_numbers("--threads", threads)
    compared = None if baseline is None else benchmarking.read_report(baseline)
    ops_out = None if out is None or form != "csv" or not profile_ops else out.with_suffix(".ops.csv")
    begun = _begun(out, form)
    for new_file in filter(None, (None if begun else out, ops_out)):
        check_new_file(new_file)

    def measure(on_stop: Callable[[Report], object]) -> Report:
        return api.benchmark(
            models,
            devices=devices,
            threads=counts,
            preset=preset,
            cores=cores,
            spec=spec,
            earlier=begun,
            on_stop=on_stop,
        )

    _measure(measure, compared, form, out, ops_out)


def _measure(
    measure: Callable[[Callable[[Report], object]], Report],
    compared: Report | None,
    form: str,
    out: Path | None,
    ops_out: Path | None,
) -> None:
    """Measures, and gives out what was measured, also if it is stopped."""
    from nas_edge.benchmarking import BenchmarkStoppedError

    problem = ""

    def keep(report: Report) -> None:
        nonlocal problem
        problem = _write(report, compared, form, out, ops_out)

    try:
        report = measure(keep)
    except BenchmarkStoppedError as stopped:
        _print(stopped.report, compared, form, out)
        raise StoppedError(problem or _how_to_go_on(stopped.report, form, out)) from None
    keep(report)
    _print(report, compared, form, out)
    _check(report, problem)


def _check(report: Report, problem: str) -> None:
    """Raises NasEdgeError when something could not be written or measured."""
    if problem:
        raise NasEdgeError(problem)
    failed = [row.model.name for row in report.rows if row.failed]
    if failed:
        raise NasEdgeError(
            f"{len(failed)} of {len(report.rows)} measurements failed: {', '.join(dict.fromkeys(failed))}"
        )


def _begun(out: Path | None, form: str) -> Report | None:
    """The benchmark in a file that is named again, if it was stopped or lost a device."""
    from nas_edge import benchmarking

    if out is None or form != "json" or not out.is_file():
        return None
    try:
        report = benchmarking.read_report(out)
    except NasEdgeError:
        return None  # something else, which is not overwritten
    return None if report.complete else report


def _how_to_go_on(report: Report, form: str, out: Path | None) -> str:
    from nas_edge import benchmarking

    if not report.rows:
        return "stopped; nothing was measured, and nothing written"
    missing = str(benchmarking.BenchmarkStoppedError(report))
    if out is not None and form == "json":
        return f"{missing}; to make them, run the same command again"
    return f"{missing}; with --format json --out FILE, a command that was stopped can be run again to make them"


def _write(report: Report, baseline: Report | None, form: str, out: Path | None, ops_out: Path | None) -> str:
    """Writes the files that were asked for; one that a benchmark was begun in is replaced in one piece.

    Returns:
        What went wrong, since the table is to be printed all the same; else nothing.
    """
    from nas_edge import benchmarking
    from nas_edge.formatting import reason
    from nas_edge.runs.files import FILES

    try:
        if report.rows and out is not None:
            FILES.write_whole(out, _as_text(report, baseline, form).encode())
        if report.rows and ops_out is not None:
            FILES.write_whole(ops_out, benchmarking.to_ops_csv(report).encode())
    except RunError as error:
        return f"cannot write {out}: {reason(error.__cause__ or error)}; what was measured is above"
    return ""


def _print(report: Report, baseline: Report | None, form: str, out: Path | None) -> None:
    """Prints the table, or the format that was asked for where it is not written to a file."""
    if report.rows:
        width = shutil.get_terminal_size().columns if out is None and sys.stdout.isatty() else None
        click.echo(_as_text(report, baseline, "table" if out is not None else form, width), nl=False)


def _as_text(report: Report, baseline: Report | None, form: str, width: int | None = None) -> str:
    from nas_edge import benchmarking

    among = benchmarking.compare_models(report)
    with_baseline = None if baseline is None else benchmarking.compare_with_baseline(report, baseline)
    texts = {
        "table": lambda: benchmarking.to_table(report, among, with_baseline, width) + "\n",
        "csv": lambda: benchmarking.to_csv(report, with_baseline),
        "json": lambda: benchmarking.to_json(report, among, with_baseline) + "\n",
    }
    return texts[form]()


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise click.UsageError(f"{option} expects whole numbers, for example 1,2; received {text!r}") from None


def _input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, separator, dimensions = text.rpartition("=")
    if not separator or not name:
        raise click.UsageError(f"--input-shape expects NAME=N,N..., for example x=1,224,224,3; received {text!r}")
    try:
        return name, tuple(int(dimension) for dimension in dimensions.split(","))
    except ValueError:
        raise click.UsageError(
            f"--input-shape expects whole dimensions, as in x=1,224,224,3; received {text!r}"
        ) from None
