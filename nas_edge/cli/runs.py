"""Commands that look at runs, or deliver what they found: runs, select, report, compare, deliver, export."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas_edge.cli import completion
from nas_edge.cli.base import (
    PATH,
    Command,
    check_limit,
    check_limits,
    check_new_file,
    print_table,
    read_latencies_ms,
    settings_option,
)
from nas_edge.cli.options import DATA_HELP, DEVICE_HELP, EXPORT_PRECISION_HELP, HARDWARE_HELP
from nas_edge.errors import NasEdgeError
from nas_edge.formatting import command, ms_text
from nas_edge.networks.precisions import PRECISIONS
from nas_edge.terminal import printable

if TYPE_CHECKING:
    from nas_edge.runs.columns import TrialColumns
    from nas_edge.runs.reselect import Candidate
    from nas_edge.runs.run import Run
    from nas_edge.tasks.base import Metric


@click.command(cls=Command)
@click.argument("folder", default="runs", type=PATH)
def runs(folder: Path) -> None:
    """Lists the runs in FOLDER (default: runs), the latest last.

    NETWORK says whose figures follow: of a delivered network, QUALITY is its accuracy on test images with its 95%
    interval; of a winner that was not trained, and of the best trial so far, what the search found. MS says so where it
    was not measured.
    """
    from nas_edge.runs.listing import list_runs

    rows: list[tuple[str, ...]] = [("RUN", "STATE", "SPACE", "TARGET MS", "NETWORK", "MS", "QUALITY", "STEPS", "AGE")]
    rows += [summary.row() for summary in list_runs(folder)]
    if len(rows) == 1:
        click.echo(
            f"no runs in {folder}; to make one: {command('search', '--preset', 'smoke', '--out', folder / 'first')}"
        )
        return
    print_table(rows)


@click.command(cls=Command)
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option("--target-ms", "targets", metavar="MS,MS...", help="Latencies to meet; default: list the Pareto front.")
@click.option(
    "--device",
    metavar="ADDRESS",
    shell_complete=completion.devices,
    help="Answer for another device, on which some of RUN's architectures are measured.",
)
@click.option(
    "--latency",
    metavar="model:FILE",
    shell_complete=completion.latency_sources,
    help="Answer by what a latency model predicts.",
)
def select(run: Path, targets: str | None, device: str | None, latency: str | None) -> None:
    """Answers other targets from the trials of RUN, or lists its Pareto front.

    Nothing is trained, and no device is needed; with --device another one is asked, and with --latency a model.

    Qualities are those of the search, of networks that were not trained on their own. Those from after a search with
    shared weights go before those from during it. To have a network trained and delivered: nas-edge deliver.
    """
    from nas_edge.runs.reselect import candidates_of
    from nas_edge.runs.result import read_result
    from nas_edge.runs.run import Run
    from nas_edge.tasks import metric_of

    limits = {} if targets is None else dict(read_latencies_ms(targets, "4,8,16"))
    if device is not None or latency is not None:
        _select_elsewhere(run, limits, device, latency)
        return
    opened = Run.open(run)
    trials, known = opened.trials(), candidates_of(opened)
    if known.fastest_ms is None:
        raise NasEdgeError(_nothing_to_select(opened, trials))
    metric = metric_of(opened.config.task)
    if not limits:
        print_table([_FACTS, *(_facts(found, metric) for found in known.front)])
        click.echo(f"\n{_origins(opened, trials)}")
        return
    answers = {text: known.best_within(limit_ms) for text, limit_ms in limits.items()}
    rows: list[tuple[str, ...]] = [("TARGET MS", *_FACTS)]
    for text, found in answers.items():
        if found is None:
            early = limits[text] >= known.fastest_ms
            why = "only early trials, whose qualities say little, were" if early else "no trial was"
            none = f"{why} that fast; the fastest of all took {ms_text(known.fastest_ms)} ms"
            rows.append((text, *"-" * (len(_FACTS) - 1), none))
        else:
            rows.append((text, *_facts(found, metric)))
    print_table(rows)
    click.echo(f"\n{_origins(opened, trials)}")
    result = read_result(opened)
    winner = None if result is None else result.winner.architecture
    others = [text for text, found in answers.items() if found is not None and str(found.architecture) != winner]
    if winner is not None and others:
        click.echo(f"For {', '.join(others)} ms, this is not the winner of {run} for its own target, {winner}.")
    unanswered = [text for text, found in answers.items() if found is None]
    if unanswered:
        advice = f"to search for it: {_search_again(run)} --target-ms {unanswered[0]} --out FOLDER"
        if len(unanswered) == len(limits):
            raise NasEdgeError(f"{run} answers no target asked for; {advice}")
        click.echo(f"Where there is no answer, {advice}")


def _select_elsewhere(run: Path, limits: dict[str, float], device: str | None, latency: str | None) -> None:
    """Answers targets on another device, or by a model."""
    from nas_edge import api
    from nas_edge.runs.run import Run
    from nas_edge.tasks import TASKS, metric_of

    if device is not None and latency is not None:
        raise click.UsageError("--device and --latency exclude each other: one measures, the other predicts")
    if not limits:
        raise click.UsageError("--target-ms is missing: name the latencies to meet there, for example 4,8,16")
    found = api.reselect(run, list(limits.values()), latency=latency, device=device)
    task = Run.open(run).config.task
    metric = metric_of(task)
    rows: list[tuple[str, ...]] = [("TARGET MS", "MS", "95% INTERVAL", "LATENCY IS", *_FACTS[2:])]
    for text, target_ms in limits.items():
        choice = found.choices[target_ms]
        if choice is None:
            rows.append((text, *"-" * 6, "none of the run is that fast there"))
            continue
        low_high = choice.answer.interval_ms
        interval = "-" if low_high is None else f"{ms_text(low_high[0])} to {ms_text(low_high[1])}"
        known = (ms_text(choice.answer.best_ms), interval, str(choice.answer.kind))
        rows.append((text, *known, *_facts(choice.candidate, metric)[2:]))
    print_table(rows)
    fastest = "" if found.fastest is None else f"; the fastest takes {ms_text(found.fastest.answer.best_ms)} ms"
    click.echo(f"\nLatencies are those of {found.where}{fastest}.")
    if not any(found.choices.values()):
        raise NasEdgeError(f"{run} answers no target asked for there")
    where = ("--device", device) if device is not None else ()
    if not TASKS.make(task).delivers:
        return
    click.echo(f"To deliver one: {command('deliver', run, *where, '--target-ms')} MS --architecture ARCHITECTURE")


_FACTS = ("MS", "LATENCY IS", "QUALITY", "EVALUATED", "TRIALS", "ARCHITECTURE")


def _facts(found: Candidate, metric: Metric) -> tuple[str, ...]:
    """What is known of an architecture, by `_FACTS`."""
    when = "after the search" if found.final else "in the search"
    upper = "" if found.upper_ms is None else f", up to {ms_text(found.upper_ms)}"
    known = (ms_text(found.latency_ms), f"{found.kind}{upper}", metric.text(found.quality), when, str(found.trials))
    return (*known, str(found.architecture))


def _search_again(run: Path) -> str:
    """The command that begins another search with the settings of a run."""
    return command("search", "--config", run / "config.json")


def _origins(run: Run, trials: TrialColumns) -> str:
    """How latencies and qualities of a run's trials are known."""
    from nas_edge.latency.answer import LatencyKind
    from nas_edge.tasks import metric_of

    known = {kind for kind, ms in zip(trials.kind, trials.latency_ms, strict=True) if ms is not None}
    kinds = " or ".join(str(kind) for kind in LatencyKind if kind in known)
    metric = f"{metric_of(run.config.task).name} {getattr(run.config.search, 'quality_origin', '')}".rstrip()
    return f"Latencies: {kinds}. Qualities: {metric}."


def _nothing_to_select(run: Run, trials: TrialColumns) -> str:
    """Why a run has no trial to choose from, and what to do about it."""
    from nas_edge.latency.retry import BENCH_FAULTS

    config, folder = run.config, run.folder
    resume = command("search", "--resume", folder)
    ended = (run.checkpoints.newest_step() or 0) >= config.search.steps
    if not len(trials):
        delay = getattr(config.search, "delay_steps", 0)
        first = f"; the first one comes after {delay} steps" if delay else ""
        return f"{folder} has no trial yet{first}; if it is stopped, to continue it: {resume}"
    counts = Counter(verdict for verdict in trials.verdict if verdict is not None)
    outcomes = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    says = f"none of the {len(trials)} trials of {folder} has both a reliable latency and a quality ({outcomes})"
    advice = [f"for the reasons: {command('report', folder, '--text')}"]
    if not ended:
        advice.append(f"to continue the search, on a quiet device: {resume}")
    if counts.keys() & {fault.value for fault in BENCH_FAULTS}:
        longer = "--set measure.max_duration_s=2 --out FOLDER"
        advice.append(f"to search again with longer measurements: {_search_again(folder)} {longer}")
    return "; ".join([says, *advice])


@click.command(cls=Command)
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option("--out", type=PATH, help="Write the page alone, to this new file.")
@click.option("--text", "as_text", is_flag=True, help="Print the report instead.")
@click.option("--serve", "served", is_flag=True, help="Serve it to browsers on this machine, kept up to date.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="For --serve; default: any free port.")
def report(run: Path, out: Path | None, as_text: bool, served: bool, port: int) -> None:
    """Writes a report of RUN as one page.

    The page is RUN/report/index.html, with its tables beside it; it needs no network. The run may be finished, stopped,
    or still running. --serve runs until Ctrl-C.
    """
    from nas_edge.report import group_report, read_run, run_report, serve, to_page, to_text, write_file, write_report
    from nas_edge.runs.targets import TargetGroup, is_group

    if sum((out is not None, as_text, served)) > 1:
        raise click.UsageError("--out, --text and --serve exclude each other; name one")
    if port and not served:
        raise click.UsageError("--port goes with --serve")
    if out is not None:
        check_new_file(out)
    if served:
        serve(run, port, click.echo)
        return
    found = group_report(TargetGroup.open(run)) if is_group(run) else run_report(read_run(run))
    if as_text:
        click.echo(to_text(found, shutil.get_terminal_size().columns), nl=False)
        return
    page = write_report(found, run / "report") if out is None else write_file(out, to_page(found))
    click.echo(f"{printable(found.headline)}\n{page}")


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True, type=PATH, shell_complete=completion.runs)
@click.option("--out", type=PATH, help="Write a page to this new file instead of printing.")
@click.option("--text", "as_text", is_flag=True, help="Print the comparison, also with --out.")
def compare(runs: tuple[Path, ...], out: Path | None, as_text: bool) -> None:
    """Compares several RUNS side by side.

    Shows what each was asked and found, and the settings in which they differ.
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
@click.option("--architecture", required=True, metavar="TEXT", help="Which one, for example 0:2:1; see the report.")
@click.option("--out", type=PATH, help="New folder for it; default: RUN/delivered/NAME.")
@click.option("--target-ms", type=click.FloatRange(min=0, min_open=True), help="Hard limit for it; default: none.")
@click.option(
    "--device", "devices", multiple=True, metavar="ADDRESS", shell_complete=completion.devices, help=DEVICE_HELP
)
@click.option("--hardware", metavar="NAME", shell_complete=completion.hardware, help=HARDWARE_HELP)
@click.option("--weights", type=click.Choice(["scratch", "shared"]), help="Where its training starts.")
@settings_option("A setting of training, export, device or measuring; may be repeated.")
def deliver(
    run: Path, architecture: str, out: Path | None, target_ms: float | None, assignments: tuple[str, ...], **flags: Any
) -> None:
    """Delivers another network of RUN than its winner.

    Trains it, quantises it, checks it, measures it, and writes OUT/bundle. Usually it is one of the Pareto front, which
    the report lists; any architecture of the space will do. The same command again continues what was stopped.

    With --weights shared --set training.epochs=0 it is not trained on its own.

    Exit codes are those of `nas-edge search`: with --target-ms, 3 when that is missed, and 4 when that is not known.

    \b
    Example:
      nas-edge deliver runs/photos --architecture 0:2:1 --out runs/photos-small
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge import api
    from nas_edge.report import result_text
    from nas_edge.runs.run import Run
    from nas_edge.tasks import metric_of

    named = {
        "device.addresses": flags["devices"] or None,
        "export.hardware": flags["hardware"],
        "export.weights": flags["weights"],
    }
    folder, result = api.deliver(run, architecture, out, target_ms=target_ms, settings=named, assignments=assignments)
    click.echo(result_text.table(result, folder, metric_of(Run.open(folder).config.task)))
    check_limit(result)


@click.command(cls=Command)
@click.argument("run", type=PATH, shell_complete=completion.runs)
@click.option("--out", type=PATH, required=True, help="New folder for the bundle.")
@click.option(
    "--device",
    metavar="ADDRESS",
    shell_complete=completion.devices,
    help="Where to measure it; default: the run's device.",
)
@click.option("--hardware", metavar="NAME", shell_complete=completion.hardware, help=HARDWARE_HELP)
@click.option("--precision", type=click.Choice([*PRECISIONS, "auto"]), help=EXPORT_PRECISION_HELP)
@click.option("--npu", multiple=True, metavar="VENDOR:SOC", help="An NPU to compile it for, too; may be repeated.")
@click.option("--data", metavar="SOURCE", shell_complete=completion.data, help=f"Of a .keras file: {DATA_HELP}")
@click.option(
    "--input-range",
    type=click.Choice(["0,255", "0,1", "-1,1"]),
    default="0,255",
    help="Of a .keras file: what it takes pixels as; default: 0,255.",
)
@settings_option("Of a .keras file: a setting of data, export, device or measuring; may be repeated.")
def export(
    run: Path,
    out: Path,
    device: str | None,
    hardware: str | None,
    precision: str | None,
    npu: tuple[str, ...],
    data: str | None,
    input_range: str,
    assignments: tuple[str, ...],
) -> None:
    """Writes and measures a finished RUN's bundle again, or that of a Keras model.

    The files are converted anew, into another folder. With --hardware, they are refused if that cannot run them. With
    --npu, for example qualcomm:SM8750, OUT also gets the file compiled by the vendor's package, if that is installed.

    In place of a run, RUN may be a .keras file with an image classifier, of layers of Keras alone, and --data the
    images that it is calibrated and tested with. It is read in a process of its own.

    Of a search for several targets, OUT gets a bundle for each, small, medium and large of three, and an index of them.

    Exit codes are those of `nas-edge search`: 3 when the run's hard limit is missed, 4 when that is not known.
    """
    if run.suffix == ".keras":
        from nas_edge.keras_export import KerasExport, export_keras

        if data is None:
            raise click.UsageError("--data is missing: images like those that the model was trained with")
        request = KerasExport(
            file=str(run),
            out=str(out),
            data=data,
            precision=precision or "int8",
            input_range=input_range,
            device=device or "host:",
            hardware=hardware,
            npu=npu,
            settings=assignments,
        )
        click.echo(export_keras(request))
        return
    if data is not None or assignments:
        raise click.UsageError("--data and --set go with a .keras file; a run has its own")
    from nas_edge import api
    from nas_edge.report import result_text
    from nas_edge.runs.targets import is_group

    if is_group(run):
        family = api.export_family(run, out, device=device, hardware=hardware, precision=precision, npu=npu)
        for name, result in family.items():
            click.echo(result_text.answer(result, run, out / name))
        check_limits(list(family.values()))
        return
    result = api.export(run, out, device=device, hardware=hardware, precision=precision, npu=npu)
    click.echo(result_text.answer(result, run, out))
    check_limit(result)
