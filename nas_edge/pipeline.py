"""THE file to read: what a run does, in order.

    search = task -> data -> space -> devices -> target -> search -> selection -> delivery
    delivery = train -> convert -> quantise -> check -> measure -> bundle

Each step is a function of `stages/` over a `RunContext`. TensorFlow is imported where it is needed, so that importing
this module stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from device_agents.errors import DeviceError
from nas_edge.config import RunConfig, check_data_named, load_config
from nas_edge.errors import (
    BadImagesError,
    ConfigError,
    InfeasibleError,
    NasEdgeError,
    SpaceError,
    StoppedError,
    TrainingError,
    UnreliableLatencyError,
)
from nas_edge.formatting import command
from nas_edge.progress import Reporter
from nas_edge.quiet import start_tensorflow
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.reselect import CHOSEN, candidates_of
from nas_edge.runs.result import RunResult, read_result
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.runs.targets import TargetGroup
from nas_edge.runs.warm_start import check_init
from nas_edge.search.loop import SearchLoop
from nas_edge.search.trials import Trial
from nas_edge.stages.contender import Contender, contender_of
from nas_edge.stages.context import (
    RunContext,
    load_data,
    make_space,
    open_bench,
    open_task,
    published_network,
)
from nas_edge.stages.delivering import (
    conclude,
    deliver,
    write_report,
)
from nas_edge.stages.deployed import as_deployed
from nas_edge.stages.exporting import export_winner
from nas_edge.stages.halving import best_trained
from nas_edge.stages.scoring_front import score_front
from nas_edge.stages.searching import find_targets, make_loop, open_latencies, run_search
from nas_edge.stages.selecting import best_of_random, select_finalists
from nas_edge.stages.sessions import add_session
from nas_edge.stages.warm_start import start_loop
from nas_edge.tasks.base import NetworkTask, Task, TaskData


def search(
    config: RunConfig, out: Path, reporter: Reporter, group: TargetGroup | None = None, again: str | None = None
) -> RunResult:
    """Finds an architecture for the device at the target, and delivers it.

    Args:
        config: the settings.
        out: new folder for the run.
        reporter: what the user sees.
        group: the searches for several targets of which this is one.
        again: the command that continues it, if not that for `out`.

    Returns:
        The result, also written to `out/result.json`; the bundle is in `out/bundle`.

    Raises:
        ConfigError, DataError, RunError, InfeasibleError, DeviceError: see there.
    """
    Run.check_new(out)  # before anything takes time
    check_data_named(config)
    check_init(config.init)
    config.search.connect_processes()
    again = again or command("search", "--resume", out)
    with StopSignals(stopped(again)) as stop, ExitStack() as stack:
        task = open_task(config)
        data = load_data(config, task, reporter)
        space = make_space(config, task, data, reporter.say)
        bench = stack.enter_context(open_bench(config, task, data, space))
        run = stack.enter_context(Run.create(out, config))
        return carry_out(RunContext(run, config, task, data, space, bench, reporter, stop, again, group), _stages)


def resume(
    folder: Path,
    change: Callable[[RunConfig], RunConfig],
    reporter: Reporter,
    group: TargetGroup | None = None,
    again: str | None = None,
) -> RunResult:
    """Continues a run that was stopped, in whatever way, as if it never had been.

    What was finished is not repeated. The search goes on from its last checkpoint; selection, random baseline and the
    final measuring after what they have measured; a training that was interrupted begins again. Files are converted
    and tested again, which gives the same, and the bundle is written when all else is there.

    **Another number of steps.** The schedules (learning rates, delay, warm-up) follow the new number from the resumed
    step on, as if it had been planned from the start; the steps that were made stay as they are. So the result is not
    that of a new run with that many steps.

    Args:
        folder: the run.
        change: returns the settings to continue with, given those of the run; see `runs.run.CHANGEABLE`.
        reporter: what the user sees.
        group: see `search`.
        again: see `search`.

    Raises:
        ConfigError: when a setting may not change.
        RunError: when the run is finished, in use, damaged, or was measured on something else.
    """
    run = Run.open(folder)
    if run.finished:
        bundle = run.path("bundle")
        what = f"its bundle is {bundle}" if bundle.exists() else f"its result is {run.path('result.json')}"
        raise RunFolderError(f"{folder} is finished: {what}", fix="for more, start a new run")
    if run.path(f"stages/{CHOSEN}.json").exists():
        raise RunFolderError(
            f"{folder} delivers a network of another run", fix="continue it with nas-edge deliver or scale"
        )
    config, again = change(run.config), again or command("search", "--resume", folder)
    config.search.connect_processes()
    with StopSignals(stopped(again)) as stop, run.lock():
        if "search.steps" in run.changed_settings(config):
            _check_steps(config.search.steps, run)
        task = open_task(config)
        data = same_data(config, task, reporter)
        space = make_space(config, task, data)
        with open_bench(config, task, data, space) as bench:
            return carry_out(RunContext(run, config, task, data, space, bench, reporter, stop, again, group), _stages)


def stopped(again: str) -> str:
    """What to say of a run that the user stops."""
    return f"stopped; continue with: {again}"


def same_data(config: RunConfig, task: Task, reporter: Reporter) -> TaskData | None:
    """The data that a run began with: what cannot be read now could be read then, and is not to be left out."""
    try:
        return load_data(config, task, reporter)
    except BadImagesError as error:
        fix = "restore it from a copy, or start a new run, with --skip-bad if it is to be left out"
        raise BadImagesError(error.what, fix=fix) from None


def _check_steps(steps: int, run: Run) -> None:
    done = run.checkpoints.newest_step() or 0
    if done == run.config.search.steps:
        raise ConfigError(
            f"the search of {run.folder} has ended with its {done} steps, to which its schedules ran down",
            fix="leave --steps out to deliver what it found, or start a new run",
        )
    if steps <= done:
        raise ConfigError(f"{run.folder} has made {done} steps already; --steps must be more", received=f"{steps}")


def carry_out(context: RunContext, stages: Callable[[RunContext], RunResult]) -> RunResult:
    """Does whatever of the run was not done yet, and says how to continue what fails."""
    run, reporter = context.run, context.reporter
    add_session(context)
    if changed := run.changed_settings(context.config):
        run.write_config(context.config)
        reporter.say(f"continuing with other {', '.join(changed)}")
    with continuing(context):
        result = stages(context)
        run.write_json("result.json", result.to_json())
        write_report(run, reporter)
    return result


@contextmanager
def continuing(context: RunContext) -> Iterator[None]:
    """Says how to continue what fails, or is stopped, within."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(stopped(context.again)) from None
    except StoppedError as error:
        raise StoppedError(str(error), fix=f"continue with: {context.again}") from None
    except (InfeasibleError, TrainingError):  # continued as it is, the run would come to the same
        raise
    except UnreliableLatencyError:  # says itself how to continue
        raise
    except (NasEdgeError, DeviceError):
        context.reporter.say(f"the run is kept; to continue it: {context.again}")
        raise


def _stages(context: RunContext) -> RunResult:
    """Everything a run does, in order. What a stage came to is kept, and not done again when the run is resumed."""
    if context.task.delivers:
        start_tensorflow(context.config.runs.deterministic)
    with open_latencies(context) as (cached, anew):
        target_ms: float = context.run.once("target", lambda: find_targets(context))["target_ms"]
        loop = make_loop(context, cached, target_ms)
        start_loop(context, loop)
        trials = run_search(context, loop, target_ms)
        score_front(context, loop, trials)
        loop.evaluator.latency = anew  # or the finalist with the luckiest measurement would win
        winner = best_trained(context, loop, "winner", select_finalists(context, loop, target_ms, trials))
        randoms = best_of_random(context, loop, target_ms, len(trials))
        rival = best_trained(context, loop, "best of random", randoms) if randoms else None
        context = as_deployed(context, winner.architecture)
        if context.task.delivers:
            result = deliver(context, target_ms, winner, _contenders(context, loop, winner, rival))
        else:
            result = conclude(context, target_ms, winner, rival)
    return replace(result, front=candidates_of(context.run).front)


def _contenders(context: RunContext, loop: SearchLoop, winner: Trial, rival: Trial | None) -> list[Contender]:
    """The winner's network first, then what it is compared with."""
    config, chosen = context.config, [("winner", winner), ("best of random", rival)]
    contenders = [contender_of(context, loop, name, trial) for name, trial in chosen if trial is not None]
    published = published_network(config, context.task, context.data) if config.export.compare else None
    if published is not None and config.training.epochs == 0:
        context.reporter.say(f"{config.reference_name} is left out: it has no shared weights, and nothing is trained")
    elif published is not None:
        label = str(config.reference_name)
        if config.export.hardware is not None:
            label += f" for {config.export.hardware}"
        contenders.append(Contender(label, label, None, published))
    return contenders


def export(
    folder: Path,
    out: Path,
    device: str | None,
    reporter: Reporter,
    hardware: str | None = None,
    precision: str | None = None,
    npu: Sequence[str] = (),
) -> RunResult:
    """Writes the bundle of a finished run again, converted and measured anew.

    Args:
        folder: a run folder whose winner was trained.
        out: new folder for the bundle.
        device: where to measure; None for the run's own device.
        reporter: what the user sees.
        hardware: what has to run it; None for the run's own, if it has any.
        precision: what to deliver, `auto` for the fastest that keeps `export.accuracy_budget`; None for the run's own.
        npu: what it is also compiled for, see `hardware.npu`; none for the run's own.

    Raises:
        RunError: when the run did not get as far as a trained winner.
        ExportError: when the hardware cannot run it.
    """
    from nas_edge.export.bundle import check_new_bundle

    run = Run.open(folder)
    found = read_result(run)
    if found is None:
        raise RunFolderError(f"{folder} is not finished", fix=f"to finish it: {command('search', '--resume', folder)}")
    if found.device is None:
        raise RunFolderError(f"{folder} searched a table of results: there is no network to export")
    check_new_bundle(out)  # before anything takes time
    config = run.config
    if device is not None:
        alone = config.device.model_copy(update={"addresses": (device,), "targets": ()})
        config = config.model_copy(update={"device": alone})
    if hardware is not None:
        config = load_config(flags={"export.hardware": hardware}, base=config)
    if npu:
        config = load_config(flags={"export.npu": tuple(npu)}, base=config)
    weights = run.read_weights("winner/weights.npz")
    task = open_task(config)
    data = same_data(config, task, reporter)
    assert data is not None
    assert isinstance(task, NetworkTask)
    space = make_space(run.config, task, data)  # of which the architecture is a point
    try:
        architecture = space.parse(found.winner.architecture)
    except SpaceError as error:
        raise RunFolderError(f"{run.path('result.json')} is damaged: {error}") from None
    start_tensorflow(config.runs.deterministic)
    return export_winner(run, config, task, data, space, architecture, weights, found, out, reporter, precision)
