"""The command line: thin commands over `nas_edge.api`.

Nothing heavy is imported here: each command imports what it needs once its arguments are known to be right, so that
`--help` and `devices` answer at once. Exit codes: 0 done, 1 failed, 2 misused, 3 hard limit missed, 4 not known whether
it is met, 130 stopped by the user.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from device_agents.errors import DeviceAddressError, DeviceError, SpecError
from device_agents.wording import words_of
from nas_edge import __version__
from nas_edge.cli.base import Group
from nas_edge.cli.benchmark import benchmark
from nas_edge.cli.bundle import bundle
from nas_edge.cli.devices import devices
from nas_edge.cli.follow import follow
from nas_edge.cli.latency import latency
from nas_edge.cli.machine import doctor, print_completion, spaces
from nas_edge.cli.runs import compare, deliver, export, report, runs, select
from nas_edge.cli.scale import scale
from nas_edge.cli.search import search
from nas_edge.errors import NasEdgeError, StoppedError
from nas_edge.terminal import printable

# TensorFlow's start-up notes are of no use to someone waiting for a progress line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def nas_edge() -> None:
    """Finds, trains and ships the most accurate network that meets your latency on your device."""


for command in (
    search,
    follow,
    benchmark,
    latency,
    deliver,
    scale,
    export,
    bundle,
    runs,
    select,
    report,
    compare,
    devices,
    doctor,
    spaces,
    print_completion,
):
    nas_edge.add_command(command)


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
        _fail(f"unexpected error: {words_of(error)}; run again with --debug for the traceback", 1)
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
