"""The command line: thin commands over `pipeline.py`.

Nothing heavy is imported here: each command imports what it needs once its arguments are known to be right, so that
`--help` and `devices` answer at once. Exit codes: 0 done, 1 failed, 2 misused.
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
@click.option("--preset", type=click.Choice(["smoke", "demo", "full"]), help="Settings that belong together.")
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
) -> None:
    """Searches on a device and delivers the winner.

    Searches the space for the most accurate network that meets the target on the device, trains it, quantises it,
    checks it, and writes OUT/bundle.

    \b
    Examples:
      nas-edge search --preset smoke --out runs/smoke
      nas-edge search --space mobilenet-v3-like --data photos/ --target-ms 12 --out runs/photos
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge.config import describe_settings, load_config

    config = load_config(
        preset,
        file,
        {
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
        },
        settings,
    )
    if list_settings:
        click.echo(describe_settings(config))
        return
    if out is None:
        raise click.UsageError("--out is missing: name a new folder for the run, for example --out runs/first")

    from nas_edge import pipeline
    from nas_edge.progress import Reporter

    result = pipeline.search(config, out, Reporter())
    click.echo(result.table())
    if not result.meets_limit:
        raise NasEdgeError(result.verdict)


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
