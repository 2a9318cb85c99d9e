"""The command line: thin commands over `pipeline.py`.

Nothing heavy is imported here: each command imports what it needs once its arguments are known to be right, so that
`--help` and `devices` answer at once. Exit codes: 0 done, 1 failed, 2 misused, 130 stopped by the user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from device_agents.errors import DeviceAddressError, DeviceError, SpecError
from nas_edge import __version__
from nas_edge.errors import NasEdgeError

# TensorFlow's start-up notes are of no use to someone waiting for a progress line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SPACE_NAMES = ("proxylessnas", "proxylessnas-enlarged", "mobilenet-v3-like")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def nas_edge(context: click.Context, debug: bool) -> None:
    """Finds, trains and ships the most accurate network that meets your latency on your device."""
    context.obj = {"debug": debug}


@nas_edge.command()
@click.option("--preset", type=click.Choice(["smoke", "demo", "laptop", "full"]), help="Settings that belong together.")
@click.option("--space", metavar="NAME", help="Search space; see `nas-edge spaces`.")
@click.option("--data", metavar="SOURCE", help="digits, a folder of class folders, a .npz file, or tfds:NAME.")
@click.option("--device", "devices", multiple=True, metavar="ADDRESS", help="Where to measure; see `nas-edge devices`.")
@click.option("--target-ms", type=float, help="Latency to meet. Default: that of the space's reference network.")
@click.option("--limit", type=click.Choice(["hard", "none"]), help="Whether the winner may not exceed the target.")
@click.option("--precision", type=click.Choice(["int8", "float32"]), help="What is measured and delivered.")
@click.option("--weights", type=click.Choice(["scratch", "shared"]), help="Where the winner's training starts.")
@click.option("--threads", type=int, help="Threads of the TFLite runtime.")
@click.option("--steps", type=int, help="Search steps.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="YAML or JSON file of settings.")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Any setting; may be repeated.")
@click.option("--list-settings", is_flag=True, help="Print every setting with its value and meaning, and stop.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder for the run.")
@click.option("--resume", "resumed", type=click.Path(path_type=Path), metavar="RUN", help="Continue a stopped run.")
@click.option("--dry-run", is_flag=True, help="Take one architecture the whole way, and estimate what a run takes.")
def search(
    preset: str | None,
    space: str | None,
    data: str | None,
    devices: tuple[str, ...],
    target_ms: float | None,
    limit: str | None,
    precision: str | None,
    weights: str | None,
    threads: int | None,
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
        if out is not None or dry_run or list_settings:
            raise click.UsageError(
                "--resume continues a run in its folder; leave out --out, --dry-run, --list-settings"
            )
    else:
        config = configure(None)
        if list_settings:
            click.echo(describe_settings(config))
            return
        if out is None and not dry_run:
            raise click.UsageError("--out is missing: name a new folder for the run, for example --out runs/first")

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
    click.echo(result.table())
    if not result.meets_limit:
        raise NasEdgeError(result.verdict)


@nas_edge.command()
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
def runs(folder: Path) -> None:
    """Lists the runs in FOLDER (default: runs), the latest last."""
    from nas_edge.runs.listing import list_runs

    rows: list[tuple[str, ...]] = [
        ("RUN", "STATE", "SPACE", "TARGET MS", "BEST REWARD", "QUALITY", "MS", "STEPS", "AGE")
    ]
    rows += [summary.row() for summary in list_runs(folder)]
    _print_table(rows)


@nas_edge.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--target-ms", "targets", required=True, metavar="MS,MS...", help="Latencies to meet.")
def select(run: Path, targets: str) -> None:
    """Answers other targets from what RUN has measured, without training or a device.

    Qualities are those of the search's shared weights; to have one of the networks trained and delivered, search with
    its target.
    """
    from nas_edge.runs.run import Run
    from nas_edge.search.reselect import read_candidates

    try:
        limits = [float(part) for part in targets.split(",")]
    except ValueError:
        raise click.UsageError(f"--target-ms expects latencies, for example 4,8,16; received {targets!r}") from None
    known = read_candidates(Run.open(run).journal())
    if known.fastest_ms is None:
        raise NasEdgeError(f"{run} has no timed trial yet; wait for its first, after the delay")
    none = f"none of the search's latter half was that fast; the fastest of all took {known.fastest_ms:.3g} ms"
    rows: list[tuple[str, ...]] = [("TARGET MS", "MS", "QUALITY", "TRIALS", "ARCHITECTURE")]
    for limit_ms in limits:
        found = known.best_within(limit_ms)
        if found is None:
            rows.append((f"{limit_ms:g}", "-", "-", "-", none))
        else:
            facts = (f"{found.latency_ms:.3f}", f"{found.quality:.3f}", str(found.trials), str(found.architecture))
            rows.append((f"{limit_ms:g}", *facts))
    _print_table(rows)


@nas_edge.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the bundle.")
@click.option("--device", metavar="ADDRESS", help="Where to measure it; default: the run's device.")
def export(run: Path, out: Path, device: str | None) -> None:
    """Writes the bundle of a finished RUN again, measured anew, to another folder."""
    from nas_edge import pipeline
    from nas_edge.progress import Reporter

    click.echo(pipeline.export(run, out, device, Reporter()))


@nas_edge.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--device", "devices", multiple=True, default=("host:",), show_default=True, metavar="ADDRESS")
@click.option("--threads", default="1", show_default=True, metavar="N,N...", help="Each is measured on its own.")
@click.option("--preset", type=click.Choice(["search", "rapid", "quick", "full"]), default="quick", show_default=True)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="New file for that format; the table is printed as well.")
@click.option("--compare", "baseline", type=click.Path(path_type=Path), help="A file written with --format json.")
@click.option("--profile-ops", is_flag=True, help="Also times operators; csv: into OUT.ops.csv.")
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME=N,N...", help="Replaces an input's shape.")
@click.option("--delegate", type=click.Choice(["cpu", "none"]), default="cpu", show_default=True)
@click.option("--require-delegate", is_flag=True, help="Fail models of which the delegate takes over no operator.")
@click.option(
    "--cores", metavar="ID,ID...", help="CPUs to run on. Default on this machine: the last ones, if one is spare."
)
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
) -> None:
    """Measures any TFLite files side by side and compares them.

    \b
    Examples:
      nas-edge benchmark a.tflite b.tflite --threads 1,2
      nas-edge benchmark models/*.tflite --format json --out before.json
      nas-edge benchmark models/*.tflite --compare before.json
    """  # noqa: D301 - click wants the control character, not its name
    from device_agents.api import PRESETS
    from nas_edge import benchmarking
    from nas_edge.progress import Reporter

    spec = PRESETS[preset].replace(
        delegate=delegate,
        require_delegate=require_delegate,
        profile_ops=profile_ops,
        cores=None if cores is None else _whole_numbers("--cores", cores),
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
        benchmarking.read_models(models), benchmarking.unique_addresses(devices), counts, preset, spec
    )
    with Reporter().stage("measuring", request.measurements) as show:
        report = benchmarking.run_benchmark(request, show)
    among = benchmarking.compare_models(report)
    with_baseline = None if earlier is None else benchmarking.compare_with_baseline(report, earlier)
    texts = {
        "table": lambda: benchmarking.to_table(report, among, with_baseline) + "\n",
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
    """Refuses now what would otherwise fail after the measuring."""
    if out.exists():
        raise click.UsageError(f"--out {out} exists already; name a new file, or remove it")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise click.UsageError(f"--out {out} cannot be written: {out.parent} is not a folder that may be written to")


@nas_edge.command()
def devices() -> None:
    """Lists the devices that can be reached, and how to name others."""
    from device_agents.devices import SCHEMES, list_devices

    rows = [("ADDRESS", "KIND", "MODEL", "STATE", "DETAIL")]
    rows += [(row.address, row.kind, row.model, row.state, row.detail) for row in list_devices()]
    _print_table(rows)
    click.echo("\nAddresses:")
    _print_table([(f"  {scheme.form}", scheme.what) for scheme in SCHEMES.values()])


@nas_edge.command()
@click.argument("name", required=False)
def spaces(name: str | None) -> None:
    """Lists the search spaces, or the decisions of one."""
    from nas_edge.errors import SpaceError
    from nas_edge.spaces import SPACES
    from nas_edge.spaces.reference import REFERENCE_NETWORKS

    if name is not None:
        if name not in SPACES:
            raise SpaceError(f"unknown space {name!r}; expected one of {', '.join(SPACES)}")
        rows = [("#", "DECISION", "KIND", "CHOICES")]
        for i, decision in enumerate(SPACES[name](224, 1.0, 1001, 3).decisions):
            rows.append((str(i), decision.path, decision.kind, " ".join(map(str, decision.choices))))
        _print_table(rows)
        return
    rows = [("SPACE", "DECISIONS", "ARCHITECTURES", "DISTINCT")]
    for space in (make(224, 1.0, 1001, 3) for make in SPACES.values()):
        sizes = (f"{float(space.size):.3e}", f"{float(space.distinct_size):.3e}")
        rows.append((space.name, str(len(space.decisions)), *sizes))
    _print_table(rows)
    click.echo(f"\nReference networks: {', '.join(REFERENCE_NETWORKS)}")


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> None:
    """Runs the command line; every expected error ends in one line on standard error."""
    debug = "--debug" in sys.argv
    try:
        code = nas_edge.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except (NasEdgeError, DeviceError) as error:
        if debug:
            raise
        _fail(error, _exit_code(error))
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error} (unexpected; run again with --debug for the traceback)", 1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _exit_code(error: Exception) -> int:
    if isinstance(error, NasEdgeError):
        return error.exit_code
    return 2 if isinstance(error, (DeviceAddressError, SpecError)) else 1


def _fail(error: Any, code: int) -> None:
    click.echo(f"nas-edge: {' '.join(str(error).split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
