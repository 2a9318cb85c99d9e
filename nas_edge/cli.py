"""The command line: thin commands over `pipeline.py`.

Nothing heavy is imported here: each command imports what it needs once its arguments are known to be right, so that
`--help` and `devices` answer at once. Exit codes: 0 done, 1 failed, 2 misused, 130 stopped by the user.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from device_agents.api import PRESETS
from device_agents.checks import Check, healthy
from device_agents.errors import DeviceAddressError, DeviceError, SpecError
from nas_edge import __version__, completion
from nas_edge.errors import NasEdgeError, StoppedError
from nas_edge.terminal import printable

# TensorFlow's start-up notes are of no use to someone waiting for a progress line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


PATH: click.Path = click.Path(path_type=Path)

DATA_HELP = "digits, a folder of class folders, a .npz file, tfrecord:FOLDER or tfds:NAME."
DEVICE_HELP = "Where to measure; may be repeated for devices of one kind. See `nas-edge devices`."
LATENCY_HELP = "What judges candidates: device (default), table:FILE, NAME:REST."
RESUME_HELP = "Continue a stopped run."
DELEGATE_HELP = (
    "cpu, none; on phones also gpu, nnapi (legacy), external:LIBRARY[,KEY=VALUE...]. These must take every operator; "
    "with gpu+cpu, ... the CPU takes the rest."
)
_DURATIONS = ", ".join(f"{name} {p.min_duration_s:g} to {p.max_duration_s:g} s" for name, p in PRESETS.items())
CORES_HELP = (
    "CPUs to run on; also ids, 4-7 or 4,5. A mask begins with 0x. Default: a phone's big ones, this machine's last if "
    "one is spare."
)
COOL_HELP = "Refuse a phone that does not say that it is cool."
CHARGED_HELP = "Refuse a phone that is not plugged in and well charged."


class _Command(click.Command):
    """A command that takes --debug, wherever on the line it stands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        debug = click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")
        self.params.append(debug)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Suggests for a misspelt option the nearest one alone: click would list several by the alphabet."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            nearest = list(error.possibilities or ())[:1]
            raise click.NoSuchOption(error.option_name, possibilities=nearest, ctx=error.ctx) from None


class _Group(_Command, click.Group):
    """A group of such commands."""

    command_class = _Command
    group_class = type  # this very class


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def nas_edge() -> None:
    """Finds, trains and ships the most accurate network that meets your latency on your device."""


@nas_edge.command()
@click.option("--preset", type=click.Choice(["smoke", "demo", "laptop", "full"]), help="Settings that belong together.")
@click.option("--space", metavar="NAME", shell_complete=completion.spaces, help="Search space; see `nas-edge spaces`.")
@click.option("--data", metavar="SOURCE", shell_complete=completion.data, help=DATA_HELP)
@click.option(
    "--device", "devices", multiple=True, metavar="ADDRESS", shell_complete=completion.devices, help=DEVICE_HELP
)
@click.option("--latency", metavar="SOURCE", shell_complete=completion.latency_sources, help=LATENCY_HELP)
@click.option("--target-ms", type=float, help="Latency to meet. Default: that of the space's reference network.")
@click.option("--limit", type=click.Choice(["hard", "none"]), help="Whether the winner may not exceed the target.")
@click.option("--precision", type=click.Choice(["int8", "float32"]), help="What is measured and delivered.")
@click.option("--weights", type=click.Choice(["scratch", "shared"]), help="Where the winner's training starts.")
@click.option("--threads", type=int, help="Threads of the TFLite runtime.")
@click.option("--delegate", metavar="NAME", help=DELEGATE_HELP)
@click.option("--cores", metavar="big|little|MASK", help=CORES_HELP)
@click.option("--require-cool", is_flag=True, default=None, help=COOL_HELP)
@click.option("--require-charged", is_flag=True, default=None, help=CHARGED_HELP)
@click.option("--steps", type=int, help="Search steps.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--config", "file", type=PATH, help="YAML or JSON file of settings.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    shell_complete=completion.settings,
    help="Any setting; may be repeated.",
)
@click.option("--list-settings", is_flag=True, help="Print every setting with its value and meaning, and stop.")
@click.option("--out", type=PATH, help="New folder for the run.")
@click.option("--resume", "resumed", type=PATH, metavar="RUN", shell_complete=completion.runs, help=RESUME_HELP)
@click.option("--dry-run", is_flag=True, help="Take one architecture the whole way, and estimate what a run takes.")
def search(
    preset: str | None,
    space: str | None,
    data: str | None,
    devices: tuple[str, ...],
    latency: str | None,
    target_ms: float | None,
    limit: str | None,
    precision: str | None,
    weights: str | None,
    threads: int | None,
    delegate: str | None,
    cores: str | None,
    require_cool: bool | None,
    require_charged: bool | None,
    steps: int | None,
    seed: int | None,
    file: Path | None,
    settings: tuple[str, ...],
    list_settings: bool,
    out: Path | None,
    resumed: Path | None,
    dry_run: bool,
) -> None:
    """Searches on a device and delivers the winner.

    Searches the space for the most accurate network that meets the target on the device, trains it, quantises it,
    checks it, and writes OUT/bundle.

    \b
    Examples:
      nas-edge search --preset smoke --out runs/smoke
      nas-edge search --preset laptop --data photos/ --target-ms 4 --out runs/photos
      nas-edge search --resume runs/photos
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge.config import RunConfig, describe_settings, load_config

    flags = {
        "space.name": space,
        "data.source": data,
        "device.addresses": devices or None,
        "device.threads": threads,
        "device.delegate": delegate,
        "device.cores": cores,
        "device.require_cool": require_cool,
        "device.require_charged": require_charged,
        "latency.source": latency,
        "target.latency_ms": target_ms,
        "target.limit": limit,
        "export.precision": precision,
        "export.weights": weights,
        "search.steps": steps,
        "seed": seed,
    }

    def configure(base: RunConfig | None) -> RunConfig:
        return load_config(preset, file, flags, settings, base)

    if resumed is not None:
        others = {"--out": out is not None, "--dry-run": dry_run, "--list-settings": list_settings}
        if given := ", ".join(name for name in others if others[name]):
            raise click.UsageError(f"--resume continues a run in its folder; leave out {given}")
    else:
        config = configure(None)
        if list_settings:
            click.echo(describe_settings(config))
            return
        # The digits are for the presets that name them: an hour-long search on them is hardly what was meant.
        if "source" not in config.data.model_fields_set:
            raise click.UsageError(
                "--data is missing: presets laptop and full, and no preset, are for your own pictures; name them, for "
                "example --data photos/, or try --data digits"
            )
        if out is None and not dry_run:
            raise click.UsageError("--out is missing: name a new folder for the run, for example --out runs/first")

    try:
        from nas_edge import pipeline
        from nas_edge.progress import Reporter

        if dry_run:
            from nas_edge.dry_run import rehearse

            click.echo(rehearse(config, Reporter()).text())
            return
        if resumed is not None:
            result = pipeline.resume(resumed, configure, Reporter())
        else:
            assert out is not None
            result = pipeline.search(config, out, Reporter())
    except KeyboardInterrupt:
        if out is None or not out.exists():
            raise StoppedError("stopped; nothing was written") from None
        raise
    from nas_edge.report import result_text

    folder = resumed if resumed is not None else out
    assert folder is not None
    click.echo(result_text.table(result, folder))
    if not result.meets_limit:
        raise NasEdgeError(result_text.verdict(result, folder))


@nas_edge.command()
@click.argument("folder", default="runs", type=PATH)
def runs(folder: Path) -> None:
    """Lists the runs in FOLDER (default: runs), the latest last.

    Of a finished run, MS and ACCURACY are those of the delivered network on test images; of another, those of the best
    trial so far, judged with shared weights on validation images.
    """
    from nas_edge.runs.listing import list_runs

    rows: list[tuple[str, ...]] = [("RUN", "STATE", "SPACE", "TARGET MS", "NETWORK", "MS", "ACCURACY", "STEPS", "AGE")]
    rows += [summary.row() for summary in list_runs(folder)]
    if len(rows) == 1:
        click.echo(f"no runs in {folder}; to make one: nas-edge search --out {folder / 'first'}")
        return
    _print_table(rows)


@nas_edge.command()
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option("--target-ms", "targets", required=True, metavar="MS,MS...", help="Latencies to meet.")
def select(run: Path, targets: str) -> None:
    """Answers other targets from what RUN has measured.

    Nothing is trained, and no device is needed.

    Qualities are accuracies with the search's shared weights. Networks that were judged after the search, with the
    final weights on all validation images, go before those of which only the search's own trials tell. To have one of
    them trained and delivered, search with its target.
    """
    from nas_edge.runs.reselect import read_candidates
    from nas_edge.runs.result import read_result
    from nas_edge.runs.run import Run
    from nas_edge.runs.untrusted import milliseconds

    try:
        limits = [milliseconds(float(part)) for part in targets.split(",")]
    except ValueError:
        raise click.UsageError(f"--target-ms expects latencies, for example 4,8,16; received {targets!r}") from None
    opened = Run.open(run)
    stages = (opened.trials(f"stages/{stage}.jsonl") for stage in ("selection", "random"))
    known = read_candidates(opened.trials(), *stages)
    result = read_result(opened)
    delivered = None if result is None else result.winner
    if known.fastest_ms is None:
        raise NasEdgeError(
            f"{run} has no timed trial yet; the first come after the delay. If it is stopped: "
            f"nas-edge search --resume {run}"
        )
    rows: list[tuple[str, ...]] = [("TARGET MS", "MS", "QUALITY", "JUDGED ON", "TRIALS", "ARCHITECTURE")]
    unanswered, others = [], []
    for limit_ms in limits:
        found = known.best_within(limit_ms)
        if found is None:
            early = limit_ms >= known.fastest_ms
            why = "only early trials, whose qualities say little, were that fast" if early else "no trial was that fast"
            none = f"{why}; the fastest of all took {known.fastest_ms:.3g} ms"
            rows.append((f"{limit_ms:g}", "-", "-", "-", "-", none))
            unanswered.append(limit_ms)
        else:
            judged = "all images" if found.final else "one batch each"
            facts = (f"{found.latency_ms:.4g}", f"{found.quality:.3f}", judged, str(found.trials))
            rows.append((f"{limit_ms:g}", *facts, str(found.architecture)))
            if delivered is not None and str(found.architecture) != delivered.architecture:
                others.append(f"{limit_ms:g}")
    _print_table(rows)
    click.echo("\nQualities: accuracy on validation images with shared weights, before any training of its own.")
    if delivered is not None and others:
        click.echo(
            f"For {', '.join(others)} ms this is not the network that {run} delivered for its own target, which is "
            f"{delivered.architecture}."
        )
    if unanswered:
        advice = f"to have it searched for: nas-edge search --target-ms {unanswered[0]:g} --out FOLDER"
        if len(unanswered) == len(limits):
            raise NasEdgeError(f"{run} answers no target asked for; {advice}")
        click.echo(f"Where there is no answer, {advice}")


@nas_edge.command()
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option("--out", type=PATH, help="Write the page alone, to this new file.")
@click.option("--text", "as_text", is_flag=True, help="Print it instead.")
@click.option("--serve", "served", is_flag=True, help="Offer it to browsers on this machine, kept up to date.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="For --serve; default: a free one.")
def report(run: Path, out: Path | None, as_text: bool, served: bool, port: int) -> None:
    """Writes what RUN was asked and found as one page.

    It is RUN/report/index.html, with its tables beside it. The run may be finished, stopped, or still going on. The
    page needs no network. --serve goes on until Ctrl-C, which is its regular end.
    """
    from nas_edge.report import read_run, run_report, serve, to_page, to_text, write_file, write_report

    if sum((out is not None, as_text, served)) > 1:
        raise click.UsageError("--out, --text and --serve are three ways to see a report; name one")
    if port and not served:
        raise click.UsageError("--port goes with --serve")
    if out is not None:
        _check_new_file(out)
    if served:
        serve(run, port, click.echo)
        return
    found = run_report(read_run(run))
    if as_text:
        click.echo(to_text(found, shutil.get_terminal_size().columns), nl=False)
        return
    page = write_report(found, run / "report") if out is None else write_file(out, to_page(found))
    click.echo(f"{printable(found.headline)}\n{page}")


@nas_edge.command()
@click.argument("runs", nargs=-1, required=True, type=PATH, shell_complete=completion.runs)
@click.option("--out", type=PATH, help="Write a page to this new file instead of printing.")
@click.option("--text", "as_text", is_flag=True, help="Print it, also with --out.")
def compare(runs: tuple[Path, ...], out: Path | None, as_text: bool) -> None:
    """Compares several RUNS side by side.

    What each was asked and found, and in which settings they differ.
    """
    from nas_edge.report import compare_report, read_run, to_page, to_text, write_file

    if out is not None:
        _check_new_file(out)
    found = compare_report([read_run(run) for run in runs])
    if out is not None:
        page = write_file(out, to_page(found))
    if as_text or out is None:
        click.echo(to_text(found, shutil.get_terminal_size().columns), nl=False)
    if out is not None:
        click.echo(page)


@nas_edge.command()
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option("--out", type=PATH, required=True, help="New folder for the bundle.")
@click.option(
    "--device",
    metavar="ADDRESS",
    shell_complete=completion.devices,
    help="Where to measure it; default: the run's device.",
)
def export(run: Path, out: Path, device: str | None) -> None:
    """Writes and measures a finished RUN's bundle again.

    The files are converted anew, into another folder.
    """
    from nas_edge import pipeline
    from nas_edge.progress import Reporter
    from nas_edge.report import result_text

    click.echo(result_text.answer(pipeline.export(run, out, device, Reporter()), run))


@nas_edge.command()
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
    from device_agents.api import parse_cores
    from nas_edge import benchmarking
    from nas_edge.progress import Reporter

    spec = PRESETS[preset].replace(
        delegate=delegate,
        require_delegate=require_delegate,
        profile_ops=profile_ops,
        require_cool=require_cool,
        require_charged=require_charged,
        input_shapes=dict(_input_shape(text) for text in shapes),
    )
    counts = _whole_numbers("--threads", threads)
    for count in counts:
        spec.replace(threads=count)
    earlier = None if baseline is None else benchmarking.read_report(baseline)
    ops_out = None if out is None or form != "csv" or not profile_ops else out.with_suffix(".ops.csv")
    for new_file in filter(None, (out, ops_out)):
        _check_new_file(new_file)
    request = benchmarking.Request(
        benchmarking.read_models(models),
        benchmarking.unique_addresses(devices),
        counts,
        preset,
        spec,
        cores=None if cores is None else parse_cores(cores),
    )
    with Reporter().stage("measuring", request.measurements) as show:
        report = benchmarking.run_benchmark(request, show)
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
    failed = [row.model.name for row in report.rows if row.failed]
    if failed:
        raise NasEdgeError(
            f"{len(failed)} of {len(report.rows)} measurements failed: {', '.join(dict.fromkeys(failed))}"
        )


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


def _check_new_file(out: Path) -> None:
    """Refuses now what would otherwise fail after the work."""
    if out.exists():
        raise click.UsageError(f"--out {out} exists already; name a new file, or remove it")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise click.UsageError(f"--out {out} cannot be written: {out.parent} is not a folder that may be written to")


class _Devices(_Group):
    """The group `devices`, after which many expect an address."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if ":" in args[0]:
            raise click.UsageError(f"to look at a device, run: nas-edge devices doctor {args[0]}", ctx)
        return super().resolve_command(ctx, args)


@nas_edge.group(cls=_Devices, invoke_without_command=True)
@click.pass_context
def devices(context: click.Context) -> None:
    """Lists the devices that can be reached, and how to name others."""
    if context.invoked_subcommand is not None:
        return
    from device_agents.devices import list_devices, schemes

    found = list_devices()
    rows = [("ADDRESS", "KIND", "MODEL", "STATE", "DETAIL")]
    rows += [(row.address, row.kind, row.model, row.state, row.detail) for row in found]
    _print_table(rows)
    for row in found:
        if row.fix:
            click.echo("\n" + click.wrap_text(f"{row.address}  fix: {row.fix}", 80, subsequent_indent="  "))
    click.echo("\nAddresses:")
    _print_table([(f"  {scheme.form}", scheme.what) for scheme in schemes()])


@devices.command("setup")
@click.argument("address", shell_complete=completion.devices)
@click.option("--benchmark-model", "source", metavar="FILE|URL", help="TFLite's benchmark_model for the phone; https.")
@click.option("--sha256", metavar="HEX", help="What the SHA-256 of the tool must be.")
def set_up_device(address: str, source: str | None, sha256: str | None) -> None:
    """Installs what measuring needs on the phone at ADDRESS, and keeps it for other phones of its kind.

    \b
    Example:
      nas-edge devices setup adb: --benchmark-model android_aarch64_benchmark_model
    """  # noqa: D301 - click wants the control character, not its name
    from device_agents.android.address import SCHEMES, open_transport
    from device_agents.devices import parse_address

    scheme, _ = parse_address(address)
    if scheme not in SCHEMES:
        raise click.UsageError(f"only phones need setting up, adb:... addresses; received {address!r}")
    from device_agents.android.setup import set_up

    with open_transport(address) as transport:
        done = set_up(transport, source, sha256)
    identity = done.identity
    facts = (identity.soc, f"Android {identity.android}" if identity.android else "", identity.abi)
    rows = [
        ("phone", f"{identity.model or 'unknown'} ({', '.join(filter(None, facts))})"),
        ("tool", f"{done.source}, SHA-256 {done.tool.sha256}"),
        ("on the phone", done.tool.path),
        ("tried", f"runs the anchor model in {done.latency_ms:.3f} ms (one run, no measurement)"),
    ]
    if done.kept is not None:
        rows.append(("kept", f"{done.kept}, for every phone of ABI {identity.abi}"))
    _print_table(rows)
    click.echo(f"\nNext: nas-edge devices doctor {address}")


@devices.command("doctor")
@click.argument("address", shell_complete=completion.devices)
@click.option("--json", "as_json", is_flag=True, help="For other programs.")
def examine_device(address: str, as_json: bool) -> int:
    """Checks whether the device at ADDRESS is fit to be measured, and says what to do where it is not."""
    from device_agents.doctor import examine

    return _print_checks(examine(address), as_json)


@nas_edge.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def print_completion(shell: str) -> None:
    """Prints what makes a SHELL complete at TAB.

    Completed are commands, options, devices and runs.

    \b
    Put this into ~/.bashrc:                      eval "$(nas-edge completion bash)"
    or into ~/.zshrc:                             eval "$(nas-edge completion zsh)"
    or, for fish:  nas-edge completion fish > ~/.config/fish/completions/nas-edge.fish
    """  # noqa: D301 - click wants the control character, not its name
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(nas_edge, {}, "nas-edge", "_NAS_EDGE_COMPLETE").source(), nl=False)


@nas_edge.command()
@click.option("--json", "as_json", is_flag=True, help="For other programs.")
def doctor(as_json: bool) -> int:
    """Checks whether this machine is ready.

    Where it is not, says what to do.
    """
    from nas_edge.doctor import examine

    return _print_checks(examine(Path.cwd()), as_json)


def _print_checks(checks: Sequence[Check], as_json: bool) -> int:
    """Prints what a doctor found; returns the exit code."""
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{click.style(check.state, _COLOURS[check.state])}  {check.name:<{width}}  {check.found}")
            if check.fix and check.state != "pass":
                click.echo(f"      {'':<{width}}  fix: {check.fix}")
        counts = [f"{sum(c.state == state for c in checks)} {state}" for state in _COLOURS]
        click.echo(f"\n{', '.join(counts)}")
    return 0 if healthy(checks) else 1


_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


@nas_edge.command()
@click.argument("name", required=False, shell_complete=completion.spaces)
def spaces(name: str | None) -> None:
    """Lists the search spaces, or the decisions of one."""
    from nas_edge.spaces import SPACES, find_space, network_space_names
    from nas_edge.spaces.reference import REFERENCE_NETWORKS

    if name is not None:
        rows = [("#", "DECISION", "KIND", "CHOICES")]
        for i, decision in enumerate(find_space(name)(224, 1.0, 1001, 3).decisions):
            rows.append((str(i), decision.path, decision.kind, " ".join(map(str, decision.choices))))
        _print_table(rows)
        return
    rows = [("SPACE", "DECISIONS", "ARCHITECTURES", "DISTINCT")]
    for space in (find_space(found)(224, 1.0, 1001, 3) for found in network_space_names()):
        sizes = (f"{float(space.size):.3e}", f"{float(space.distinct_size):.3e}")
        rows.append((space.name, str(len(space.decisions)), *sizes))
    _print_table(rows)
    if plugins := SPACES.plugins.plugins():
        click.echo("\nOf other packages (loaded when named):")
        _print_table([(f"  {plugin.name}", plugin.origin) for plugin in plugins])
    click.echo(f"\nReference networks: {', '.join(REFERENCE_NETWORKS)}")


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def main() -> None:
    """Runs the command line; every expected error ends in one line on standard error."""
    debug = "--debug" in sys.argv
    _show_log()
    try:
        # The name also decides which variable the shell's completion sets.
        code = nas_edge.main(prog_name="nas-edge", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except (NasEdgeError, DeviceError) as error:
        if debug:
            raise
        if isinstance(error, StoppedError):
            # All is closed; to wait for TensorFlow's end, which takes seconds, is not what a user who stops it wants.
            click.echo(f"nas-edge: {error}", err=True)
            os._exit(error.exit_code)
        _fail(error, _exit_code(error))
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error} (unexpected; run again with --debug for the traceback)", 1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _show_log() -> None:
    """What a device has to say while it measures, as a plain line."""
    log, handler = logging.getLogger("device_agents"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("nas-edge: %(message)s"))
    log.handlers, log.propagate = [handler], False


def _exit_code(error: Exception) -> int:
    if isinstance(error, NasEdgeError):
        return error.exit_code
    return 2 if isinstance(error, (DeviceAddressError, SpecError)) else 1


def _fail(error: Any, code: int) -> None:
    click.echo(f"nas-edge: {printable(' '.join(str(error).split()))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
