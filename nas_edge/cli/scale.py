"""`nas-edge scale`: a family of networks from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nas_edge.cli import completion
from nas_edge.cli.base import PATH, Command, print_results, read_latencies_ms, settings_option
from nas_edge.cli.options import DEVICE_HELP, HARDWARE_HELP
from nas_edge.scaling import TRAINED


@click.command(cls=Command)
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option(
    "--target-ms", "targets", required=True, metavar="MS[,MS...]", help="Latencies to meet, one network each."
)
@click.option("--out", type=PATH, help="New folder for the family; default: RUN/scaled.")
@click.option(
    "--device", "devices", multiple=True, metavar="ADDRESS", shell_complete=completion.devices, help=DEVICE_HELP
)
@click.option("--hardware", metavar="NAME", shell_complete=completion.hardware, help=HARDWARE_HELP)
@click.option("--limit", type=click.Choice(["hard", "none"]), help="Whether a network may not exceed its target.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=TRAINED,
    show_default=True,
    help="Networks to train briefly, over all targets.",
)
@settings_option("A setting of training, export, device or measurement; may be repeated.")
def scale(
    run: Path, targets: str, out: Path | None, candidates: int, assignments: tuple[str, ...], **flags: Any
) -> None:
    """Scales the network that RUN found to several latencies.

    Changes its depth, width and input size: measures some twenty untrained versions of it on the device, fits how
    latency depends on the three, trains the candidates for each target briefly, and delivers the best as a run of its
    own in OUT. Repeat the command to continue after a stop.

    Exit codes are those of `nas-edge search` for several targets.

    \b
    Example:
      nas-edge scale runs/photos --target-ms 4,8,16 --out runs/photos-family
      nas-edge export runs/photos-family --out family
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge import api

    targets_ms = [target_ms for _, target_ms in read_latencies_ms(targets, "4,8,16")]
    named = {
        "device.addresses": flags["devices"] or None,
        "export.hardware": flags["hardware"],
        "target.limit": flags["limit"],
    }
    _, results = api.scale(run, targets_ms, out, settings=named, assignments=assignments, trained=candidates)
    print_results(results)
