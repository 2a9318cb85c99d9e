"""Commands that look at runs: runs, select, report, compare, export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas_edge.cli import completion
from nas_edge.cli.base import PATH, Command, check_limit, check_new_file, print_table
from nas_edge.errors import NasEdgeError
from nas_edge.formatting import ms_text
from nas_edge.terminal import printable

if TYPE_CHECKING:
    from nas_edge.runs.run import Run


@click.command(cls=Command)
@click.argument("folder", default="runs", type=PATH)
def runs(folder: Path) -> None:
    """Lists the runs in FOLDER (default: runs), the latest last.

    Of a finished run, MS and ACCURACY are those of the delivered network on test images; of another, those of the best
    trial so far, scored with shared weights on validation images.
    """
    from nas_edge.runs.listing import list_runs

    rows: list[tuple[str, ...]] = [("RUN", "STATE", "SPACE", "TARGET MS", "NETWORK", "MS", "ACCURACY", "STEPS", "AGE")]
    rows += [summary.row() for summary in list_runs(folder)]
    if len(rows) == 1:
        click.echo(f"no runs in {folder}; to make one: nas-edge search --preset smoke --out {folder / 'first'}")
        return
    print_table(rows)


@click.command(cls=Command)
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option("--target-ms", "targets", required=True, metavar="MS,MS...", help="Latencies to meet.")
def select(run: Path, targets: str) -> None:
    """Answers other targets from what RUN has measured.

    Nothing is trained, and no device is needed.

    Qualities are accuracies with the search's shared weights. Networks that were evaluated after the search, with the
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
        raise NasEdgeError(f"{run} {_nothing_timed(opened)}")
    rows: list[tuple[str, ...]] = [("TARGET MS", "MS", "QUALITY", "SCORED ON", "TRIALS", "ARCHITECTURE")]
    unanswered, others = [], []
    for limit_ms in limits:
        found = known.best_within(limit_ms)
        if found is None:
            early = limit_ms >= known.fastest_ms
            why = "only early trials, whose qualities say little, were that fast" if early else "no trial was that fast"
            none = f"{why}; the fastest of all took {ms_text(known.fastest_ms)} ms"
            rows.append((f"{limit_ms:g}", "-", "-", "-", "-", none))
            unanswered.append(limit_ms)
        else:
            scored_on = "all images" if found.final else "one batch each"
            facts = (ms_text(found.latency_ms), f"{found.quality:.3f}", scored_on, str(found.trials))
            rows.append((f"{limit_ms:g}", *facts, str(found.architecture)))
            if delivered is not None and str(found.architecture) != delivered.architecture:
                others.append(f"{limit_ms:g}")
    print_table(rows)
    click.echo("\nQualities: accuracy on validation images with shared weights, before any training of its own.")
    if delivered is not None and others:
        click.echo(
            f"For {', '.join(others)} ms this is not the network that {run} delivered for its own target, which is "
            f"{delivered.architecture}."
        )
    if unanswered:
        advice = f"to have it searched for: {_search_again(run, unanswered[0])}"
        if len(unanswered) == len(limits):
            raise NasEdgeError(f"{run} answers no target asked for; {advice}")
        click.echo(f"Where there is no answer, {advice}")


def _search_again(run: Path, target_ms: float) -> str:
    """The command that searches as a run did, for another target."""
    return f"nas-edge search --config {run / 'config.json'} --target-ms {target_ms:g} --out FOLDER"


def _nothing_timed(run: Run) -> str:
    """Why a run has no latency to select by, and what to do."""
    verdicts = [verdict for verdict in run.trials().verdict if verdict is not None]
    ended = " If it is stopped:" if run.in_use else " To continue it:"
    resume = f"{ended} nas-edge search --resume {run.folder}"
    if not verdicts:
        return f"has no timed trial yet; the first come after the delay.{'' if run.finished else resume}"
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    return f"has {len(verdicts)} trials, none with a reliable latency ({counts}).{'' if run.finished else resume}"


@click.command(cls=Command)
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
        check_new_file(out)
    if served:
        serve(run, port, click.echo)
        return
    found = run_report(read_run(run))
    if as_text:
        click.echo(to_text(found, shutil.get_terminal_size().columns), nl=False)
        return
    page = write_report(found, run / "report") if out is None else write_file(out, to_page(found))
    click.echo(f"{printable(found.headline)}\n{page}")


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True, type=PATH, shell_complete=completion.runs)
@click.option("--out", type=PATH, help="Write a page to this new file instead of printing.")
@click.option("--text", "as_text", is_flag=True, help="Print it, also with --out.")
def compare(runs: tuple[Path, ...], out: Path | None, as_text: bool) -> None:
    """Compares several RUNS side by side.

    What each was asked and found, and in which settings they differ.
    """
    from nas_edge.report import compare_report, read_run, to_page, to_text, write_file

    if out is not None:
        check_new_file(out)
    found = compare_report([read_run(run) for run in runs])
    if out is not None:
        page = write_file(out, to_page(found))
    if as_text or out is None:
        click.echo(to_text(found, shutil.get_terminal_size().columns), nl=False)
    if out is not None:
        click.echo(page)


@click.command(cls=Command)
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

    Exit codes are those of `nas-edge search`: 3 when the run's hard limit is missed, 4 when that is not known.
    """
    from nas_edge import pipeline
    from nas_edge.progress import Reporter
    from nas_edge.report import result_text

    result = pipeline.export(run, out, device, Reporter())
    click.echo(result_text.answer(result, run, out))
    check_limit(result)
