"""Benchmark-only mode."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from device_agents.api import PRESETS
from nas_edge.cli import completion
from nas_edge.cli.base import PATH, Command, check_new_file
from nas_edge.cli.options import CHARGED_HELP, COOL_HELP, CORES_HELP, DELEGATE_HELP
from nas_edge.errors import NasEdgeError

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
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge import api, benchmarking

    spec = {
        "delegate": delegate,
        "require_delegate": require_delegate,
        "profile_ops": profile_ops,
        "require_cool": require_cool,
        "require_charged": require_charged,
        "input_shapes": dict(_input_shape(text) for text in shapes),
    }
    counts = _whole_numbers("--threads", threads)
    earlier = None if baseline is None else benchmarking.read_report(baseline)
    ops_out = None if out is None or form != "csv" or not profile_ops else out.with_suffix(".ops.csv")
    for new_file in filter(None, (out, ops_out)):
        check_new_file(new_file)
    report = api.benchmark(models, devices=devices, threads=counts, preset=preset, cores=cores, spec=spec)
    _write(report, earlier, form, out, ops_out)
    failed = [row.model.name for row in report.rows if row.failed]
    if failed:
        raise NasEdgeError(
            f"{len(failed)} of {len(report.rows)} measurements failed: {', '.join(dict.fromkeys(failed))}"
        )


def _write(report: Report, earlier: Any, form: str, out: Path | None, ops_out: Path | None) -> None:
    """Prints the table and writes the files that were asked for."""
    from nas_edge import benchmarking

    among = benchmarking.compare_models(report)
    with_baseline = None if earlier is None else benchmarking.compare_with_baseline(report, earlier)
    width = shutil.get_terminal_size().columns if out is None and sys.stdout.isatty() else None
    texts = {
        "table": lambda: benchmarking.to_table(report, among, with_baseline, width) + "\n",
        "csv": lambda: benchmarking.to_csv(report, with_baseline),
        "json": lambda: benchmarking.to_json(report, among, with_baseline) + "\n",
    }
    if out is not None:
        out.write_text(texts[form](), encoding="utf-8")
    if ops_out is not None:
        ops_out.write_text(benchmarking.to_ops_csv(report), encoding="utf-8")
    click.echo(texts["table" if out is not None else form](), nl=False)


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
