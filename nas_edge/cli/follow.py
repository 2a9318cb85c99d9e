"""`nas-edge follow`: a search's further processes."""

from __future__ import annotations

from pathlib import Path

import click

from nas_edge.cli.base import PATH, Command


@click.command(cls=Command)
@click.argument("settings", type=PATH)
def follow(settings: Path) -> None:
    """Takes part in a search in several processes.

    SETTINGS is the file that the first process was given with --config, or the config.json of its run. All processes
    need the data, and TF_CONFIG; see docs/gpus.md. Only the first one has the run and the device.
    """
    from nas_edge.api import configure
    from nas_edge.progress import Reporter
    from nas_edge.stages import following

    following.follow(configure(config_file=settings), Reporter())
