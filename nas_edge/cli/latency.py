"""`nas-edge latency`: models of the latencies of a device, fitted, looked at, and brought to another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from nas_edge.cli import completion
from nas_edge.cli.base import PATH, Command, Group, check_new_file, print_table, settings_option
from nas_edge.cli.options import CORES_HELP, DATA_HELP, DELEGATE_HELP, DEVICE_HELP

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas_edge.latency.model_file import ModelFile
    from nas_edge.latency_fitting.fitting import FitRequest
    from nas_edge.spaces.decisions import SearchSpace

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_OPTIONS = (
    click.option(
        "--device", "devices", multiple=True, metavar="ADDRESS", shell_complete=completion.devices, help=DEVICE_HELP
    ),
    click.option("--space", metavar="NAME", shell_complete=completion.spaces, help="Whose networks are measured."),
    click.option("--input-size", type=int, metavar="PIXELS", help="Side of the input. Default: 224."),
    click.option("--classes", type=int, default=1001, show_default=True, help="Outputs, where no --data tell."),
    click.option("--data", metavar="SOURCE", shell_complete=completion.data, help=DATA_HELP),
    click.option(
        "--precision", type=click.Choice(["int8", "float32"]), help="Of the networks that are measured. Default: int8."
    ),
    click.option("--threads", type=int, help="Threads of the TFLite runtime."),
    click.option("--delegate", metavar="NAME", help=DELEGATE_HELP),
    click.option("--cores", metavar="big|little|MASK", help=CORES_HELP),
    click.option("--seed", type=int, help="Of the choice of networks."),
    settings_option("Any setting of a search; may be repeated."),
)


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _out_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--out", type=PATH, required=True, metavar="FILE", help="New file, NAME.latency.json.")(command)


def _space_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--classes", type=int, help="Outputs. Default: as the model's."),
        click.option("--input-size", type=int, metavar="PIXELS", help="Default: as the model's."),
        click.option("--space", metavar="NAME", shell_complete=completion.spaces, help="Default: the model's."),
    ):
        command = option(command)
    return command


@click.group(cls=Group)
def latency() -> None:
    """Models of a device's latencies: fit one, look at it, bring it to another device."""


@latency.command(cls=Command)
@_with_options
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=PATH,
    shell_complete=completion.runs,
    help="Fit to what a search has measured, in place of a device; may be repeated.",
)
@click.option("--budget", default="10m", show_default=True, metavar="TIME", help="Of measuring: 90s, 10m, 1h.")
@click.option("--networks", type=click.IntRange(min=1), help="Networks to measure, in place of a time.")
@_out_option
def fit(runs: tuple[Path, ...], budget: str, networks: int | None, out: Path, **options: Any) -> None:
    """Fits a model of a device's latencies, and says how good it is on networks that were held out.

    \b
    Examples:
      nas-edge latency fit --device ssh://pi --space mobilenet-v3-like --budget 10m --out pi.latency.json
      nas-edge latency fit --run runs/photos --out pixel8.latency.json
      nas-edge search --preset laptop --data photos/ --latency model:pixel8.latency.json --target-ms 4 --out runs/next

    Ctrl-C stops it; the same command continues, from OUT.journal.
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge import api

    check_new_file(out)
    if runs:
        given = [f"--{name.replace('_', '-')}" for name in ("devices", "space", "data") if options[name]]
        if given:
            raise click.UsageError(f"--run says itself what was measured; leave out {', '.join(given)}")
        file = api.fit_latency_to_runs(list(runs), out)
    else:
        if options["space"] is None and options["data"] is None:
            raise click.UsageError(
                "--space is missing: name the space whose networks are measured, see nas-edge spaces"
            )
        file = api.fit_latency(_request(_seconds(budget), networks, **options), out)
    _print_summary(file, out)


@latency.command(cls=Command)
@click.argument("model", type=PATH)
@_with_options
@click.option("--networks", type=click.IntRange(min=3), default=10, show_default=True, help="Networks to measure.")
@_out_option
def adapt(model: Path, networks: int, out: Path, **options: Any) -> None:
    """Brings MODEL to another device, or to the same one in another session, by measuring a few networks there.

    \b
    Example:
      nas-edge latency adapt pi.latency.json --device ssh://another-pi --out another-pi.latency.json
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge import api
    from nas_edge.latency.model_file import read_model

    check_new_file(out)
    told = read_model(model).provenance
    if told.space is not None and options["data"] is None:
        options["space"] = options["space"] or told.space.name
        options["classes"] = told.space.outputs or options["classes"]
        if told.space.input_shape is not None:
            options["input_size"] = options["input_size"] or told.space.input_shape[0]
    options["precision"] = options["precision"] or told.precision
    if options["space"] is None and options["data"] is None:
        raise click.UsageError("--space is missing: the model does not tell whose networks to measure")
    file = api.adapt_latency(model, _request(None, networks, **options), out)
    _print_summary(file, out)


@latency.command(cls=Command)
@click.argument("model", type=PATH)
@_space_options
@click.option("--out", type=PATH, metavar="FILE", help="Write a page with plots to this new file, too.")
def show(model: Path, out: Path | None, **options: Any) -> None:
    """Shows MODEL: what it is of, how good it is, and where time goes."""
    from nas_edge.latency.model_file import read_model
    from nas_edge.latency_fitting import text

    if out is not None:
        check_new_file(out)
    file = read_model(model)
    space = _space_of(file, **options)
    tables = [text.summary_rows(file), text.accuracy_rows(file), text.isolated_rows(file)]
    if space is not None:
        parts = (text.parts_rows, text.layers_rows, text.choices_rows, text.measured_rows)
        tables += [rows(file, space) for rows in parts]
    _print_tables(tables)
    if note := text.limits_line(file):
        click.echo(f"\n{note}")
    if out is not None:
        from nas_edge.latency_fitting.page import write_model_page

        click.echo(f"\n{write_model_page(model.name, file, space, out)}")


@latency.command(cls=Command)
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@_space_options
def compare(first: Path, second: Path, **options: Any) -> None:
    """Compares two models over the same networks: how much slower, and whether they order them alike."""
    from nas_edge.latency.model_file import read_model
    from nas_edge.latency_fitting import text

    files = [(str(path), read_model(path)) for path in (first, second)]
    space = _space_of(files[0][1], **options) or _space_of(files[1][1], **options)
    if space is None:
        raise click.UsageError("--space is missing: neither model tells whose networks it is of")
    print_table(text.comparison_rows(files, space))


@latency.command("import", cls=Command)
@click.argument("table", type=PATH)
@click.option("--format", "form", required=True, metavar="NAME", shell_complete=completion.table_formats)
@_out_option
def import_table(table: Path, form: str, out: Path) -> None:
    """Brings a published TABLE into the form of a model: tunas, proxylessnas, single-path, fbnet, linear."""
    from nas_edge import api

    check_new_file(out)
    _print_summary(api.import_latency(table, form, out), out)


@latency.command("export", cls=Command)
@click.argument("model", type=PATH)
@click.option("--format", "form", required=True, metavar="NAME", shell_complete=completion.table_formats)
@_space_options
@click.option("--out", type=PATH, required=True, metavar="FILE", help="New file.")
def export_table(model: Path, form: str, out: Path, **options: Any) -> None:
    """Writes MODEL in the format of a published table: tunas, proxylessnas, single-path, linear."""
    from nas_edge import api
    from nas_edge.latency.model_file import read_model

    check_new_file(out)
    file = read_model(model)
    for path in api.export_latency(file, form, out, _space_of(file, **options)):
        click.echo(f"{path}")


def _print_summary(file: ModelFile, out: Path) -> None:
    from nas_edge.latency_fitting import text

    _print_tables([text.summary_rows(file), text.accuracy_rows(file)])
    if note := text.limits_line(file):
        click.echo(f"\n{note}")
    click.echo(f"\n{out}; to search with it: nas-edge search --latency model:{out} --target-ms MS ...")


def _print_tables(tables: list[list[tuple[str, ...]]]) -> None:
    for number, rows in enumerate(filter(None, tables)):
        if number:
            click.echo()
        print_table(rows)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    if match is None or float(match[1]) <= 0:
        raise click.UsageError(f"--budget expects a time, for example 90s, 10m or 1h; received {text!r}")
    return float(match[1]) * _UNITS_S[match[2]]


def _request(
    budget_s: float | None,
    networks: int | None,
    devices: tuple[str, ...],
    space: str | None,
    input_size: int | None,
    classes: int,
    data: str | None,
    precision: Literal["int8", "float32"] | None,
    threads: int | None,
    delegate: str | None,
    cores: str | None,
    seed: int | None,
    assignments: tuple[str, ...],
) -> FitRequest:
    from nas_edge.config import load_config
    from nas_edge.latency_fitting.fitting import FitRequest

    given = {
        "space.name": space,
        "space.input_size": input_size,
        "data.source": data,
        "export.precision": precision,
        "device.addresses": devices or None,
        "device.threads": threads,
        "device.delegate": delegate,
        "device.cores": cores,
        "seed": seed,
    }
    config = load_config(None, None, {name: value for name, value in given.items() if value is not None}, assignments)
    return FitRequest(config, classes, None if networks is not None else budget_s, networks)


def _space_of(file: ModelFile, space: str | None, input_size: int | None, classes: int | None) -> SearchSpace | None:
    """The space that is named, or that of the model; None where neither tells."""
    from nas_edge.spaces import SPACES, NetworkSpaceSettings, find_space

    told = file.provenance.space
    name = space or (None if told is None else told.name)
    if name is None:
        return None
    known = name in SPACES.names and issubclass(SPACES.find(name).settings, NetworkSpaceSettings)
    if space is None and not known:  # of another package, or of no networks
        return None
    shape = (told and told.input_shape) or (224, 224, 3)
    outputs = classes or (told and told.outputs) or 1001
    return find_space(name)(input_size or shape[0], 1.0, outputs, shape[-1])
