"""What all commands are made of."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from device_agents.checks import Check, healthy
from nas_edge.cli import completion
from nas_edge.errors import TargetMissedError, TargetUnknownError
from nas_edge.terminal import printable

if TYPE_CHECKING:
    from nas_edge.runs.result import RunResult
    from nas_edge.runs.targets import TargetResult

PATH: click.Path = click.Path(path_type=Path)

_Function = TypeVar("_Function", bound=Callable[..., object])


class Command(click.Command):
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


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type  # this very class


watch_option = click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(min=0.0),
    metavar="SECONDS",
    help="Watch for at most so long how quiet it is; 0: not at all. By default 30, and less where it is clearly quiet.",
)


def settings_option(about: str) -> Callable[[_Function], _Function]:
    """The option --set PATH=VALUE, which may be repeated; `about` is its help."""
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="PATH=VALUE",
        shell_complete=completion.settings,
        help=about,
    )


def tell_watching(watch_s: float) -> None:
    """Says to who sits in front of it why nothing is printed for a while."""
    if watch_s > 0 and sys.stderr.isatty():
        click.echo(f"watching how quiet it is, for {watch_s:.0f} s at most ...", err=True)


def read_latencies_ms(text: str, example: str) -> list[tuple[str, float]]:
    """The latencies of a --target-ms: how each was written, and what it is in ms.

    Args:
        text: latencies, with commas between them.
        example: what is expected.

    Raises:
        click.UsageError: when one is none.
    """
    from nas_edge.runs.untrusted import milliseconds

    try:
        return [(part.strip(), milliseconds(float(part))) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--target-ms expects latencies, for example {example}; received {text!r}") from None


def check_new_file(out: Path) -> None:
    """Refuses now what would otherwise fail after the work."""
    if out.exists():
        raise click.UsageError(f"--out {out} exists already; name a new file, or remove it")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise click.UsageError(f"--out {out} cannot be written: {out.parent} is not a folder that may be written to")


def check_limit(result: RunResult) -> None:
    """Ends the command with a code of its own unless the result is known to meet its hard limit.

    Raises:
        TargetMissedError, TargetUnknownError: with one line, since standard output may go elsewhere.
    """
    from nas_edge.report import result_text
    from nas_edge.runs.result import Outcome

    if not result.meets_limit:
        missed = result.limit_outcome is Outcome.MISSED
        raise (TargetMissedError if missed else TargetUnknownError)(result_text.limit_line(result))


def check_limits(results: Sequence[RunResult]) -> None:
    """As `check_limit`, of several: the worst of them decides."""
    from nas_edge.runs.result import Outcome

    for result in sorted(results, key=lambda result: result.limit_outcome is not Outcome.MISSED):
        check_limit(result)


def print_result_table(result: RunResult, run: Path) -> None:
    """Prints the result of a run."""
    from nas_edge.report import result_text
    from nas_edge.runs.run import Run
    from nas_edge.tasks import metric_of

    click.echo(result_text.table(result, run, metric_of(Run.open(run).config.task)))


def print_results(results: Sequence[TargetResult]) -> None:
    """Prints the result for each of several targets; the worst one decides the exit code."""
    from nas_edge.formatting import ms_text

    for number, each in enumerate(results):
        click.echo(f"{'' if number == 0 else chr(10)}target {ms_text(each.target_ms)} ms: {each.folder}")
        if each.result is None:
            click.echo(f"{each.problem}")
        else:
            print_result_table(each.result, each.folder)
    for each in results:
        if each.problem is not None:
            raise each.problem
    check_limits([each.result for each in results if each.result is not None])


def print_checks(checks: Sequence[Check], as_json: bool) -> int:
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


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Prints rows with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
