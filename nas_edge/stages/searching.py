"""The search itself, on a run folder: target, loop, and what is kept and shown of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from device_agents.api import Verdict
from device_agents.noise import noise_line
from device_agents.verdicts import FLAGS
from nas_edge.errors import ConfigError, InfeasibleError, UnreliableLatencyError
from nas_edge.formatting import command, ms_text
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.cache import CachedSource, MeasuringKey, repair
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.pooled import PooledLatency
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.several import Part, SeveralSources
from nas_edge.latency.source import CANDIDATE_FAULTS, Candidate, LatencySource
from nas_edge.resources import RESOURCES, Used
from nas_edge.rewards import Objective
from nas_edge.search.loop import SearchLoop, StepReport
from nas_edge.search.methods import SearchContext, make_search
from nas_edge.search.selection import smallest
from nas_edge.search.trials import Trial
from nas_edge.spaces.design import Design
from nas_edge.stages.context import RunContext, published_network
from nas_edge.stages.fitting import evaluation_batch_size
from nas_edge.stages.policy_log import PolicyLog, set_damaged_aside
from nas_edge.stages.progress_line import SearchLine
from nas_edge.stages.recorded import RecordedSearch
from nas_edge.text import answer_text


@contextmanager
def open_latencies(context: RunContext) -> Iterator[tuple[LatencySource, LatencySource]]:
    """Yields the latency source as the search asks it, from the run's cache first, and as finalists are measured."""
    bench, stored = context.bench, context.measurements
    with ExitStack() as stack:

        def opened(source: LatencySource, key: MeasuringKey, device: DeviceSource | None) -> tuple[LatencySource, ...]:
            retrying = RetryingSource(source)
            cached = stack.enter_context(CachedSource(retrying, stored, key))
            if device is not None:
                device.on_drift(cached.forget_since)
            return cached, retrying

        repair(stored, bench.key, lambda: _journalled(context), context.reporter.say)
        if not bench.parts:
            cached, anew = opened(bench.latency_source, bench.key, bench.device)
            if bench.finalists_source is not bench.latency_source:
                anew = RetryingSource(bench.finalists_source)
            config = context.config
            yield config.latency.around(cached, context.space, config.export.precision, bench.device), anew
            return
        pairs = [(opened(part.source, part.source.key, part.source), part.target_ms) for part in bench.parts]
        yield (
            SeveralSources([Part(cached, target_ms) for (cached, _), target_ms in pairs]),
            SeveralSources([Part(anew, target_ms) for (_, anew), target_ms in pairs]),
        )


def _journalled(context: RunContext) -> Iterator[tuple[str, LatencyAnswer]]:
    """Latencies that can be relied on, by fingerprint of the design, as the search's journal has them.

    Of those on devices of several models, the first one's.
    """
    measures_some = context.config.latency.measures_some
    for trial in map(Trial.from_json, context.run.journal()):
        if trial.latency is not None:
            answer = trial.latency.parts[0] if trial.latency.parts else trial.latency
            if answer.verdict == Verdict.OK and not (measures_some and answer.kind is LatencyKind.PREDICTED):
                yield context.space.build(trial.architecture).fingerprint, answer


def find_targets(context: RunContext) -> dict[str, Any]:
    """The latency to meet, and where there are several models of devices, that on each, as the run keeps them.

    Raises:
        InfeasibleError, ConfigError: when one cannot be found, or the device does not report another resource.
    """
    check_resources(context)
    devices = [{"device": part.source.name, "target_ms": part.target_ms} for part in context.bench.parts]
    return {"target_ms": find_target_ms(context), **({"devices": devices} if devices else {})}


def find_target_ms(context: RunContext) -> float:
    """The latency to meet: what the user named, or a share of the reference network's on this device.

    Raises:
        InfeasibleError: when the reference network cannot be timed.
    """
    config, reporter, parts = context.config, context.reporter, context.bench.parts
    if parts:
        listed = ", ".join(f"{ms_text(part.target_ms)} ms on {part.source.name}" for part in parts)
        reporter.say(
            f"targets: {listed}; latencies are those of the device furthest beyond its target, as on the first"
        )
        return parts[0].target_ms
    if config.target.latency_ms is not None:
        return config.target.latency_ms
    network, device, name = (
        published_network(context.config, context.task, context.data),
        context.bench.required_device,
        config.reference_name,
    )
    assert network is not None
    with reporter.stage(f"timing {name}", 1) as show:
        answer = device.submit(Candidate(Design(network))).result()
        show(1)
    if answer.best_ms is None:
        raise InfeasibleError(
            f"no --target-ms was given and the reference network {name} could not be timed on {device.name}: "
            f"{answer.verdict}, {answer.detail}",
            fix="start a new run with --target-ms",
        )
    target_ms = answer.best_ms * config.target.reference_share
    share = "" if config.target.reference_share == 1 else f"{config.target.reference_share:g} of it, "
    reporter.say(f"{name} takes {answer_text(answer)} on {device.name}; target: {share}{ms_text(target_ms)} ms")
    return target_ms


def check_resources(context: RunContext) -> None:
    """Measures one network before the search, to find out whether the device reports all resources.

    Raises:
        ConfigError: when it does not.
    """
    asked = [one.resource for one in context.config.target.of_resources if RESOURCES[one.resource].measured]
    if not asked:
        return
    design = context.space.build(smallest(context.space))
    for device in context.bench.devices:
        with context.reporter.stage(f"measuring {', '.join(asked)}", 1) as show:
            used = Used(design.network, context.config.export.precision, device.submit(Candidate(design)).result())
            show(1)
        for name in asked:
            use = RESOURCES[name].use(used)
            if use.value is None:
                raise ConfigError(
                    f"{name} is {use} (on {device.name})",
                    fix="leave it out of the objectives and limits, or use a device that reports it",
                )
            context.reporter.say(f"{name} of the smallest network: {RESOURCES[name].text(use.value)}, {use.note}")


def make_loop(context: RunContext, latency: LatencySource, target_ms: float) -> SearchLoop:
    """The search loop as it is before its first step.

    Raises:
        ConfigError: when its parts do not fit each other.
    """
    config = context.config
    latency_objective = (Objective("latency_ms", target_ms, config.target.beta),) if config.target.in_reward else ()
    objectives = (*latency_objective, *config.target.of_resources)
    pooled = PooledLatency(context.space) if getattr(config.latency, "pooled", False) else None
    parts = SearchContext(
        context.space,
        context.task,
        context.data,
        latency,
        objectives,
        config.seed,
        pooled,
        evaluation_batch_size(context.space),
        config.export.precision,
    )
    return make_search(config.search, parts)


def run_search(context: RunContext, loop: SearchLoop, target_ms: float) -> list[Trial]:
    """Runs the loop from where the run is, keeping every step.

    Raises:
        StoppedError: when the user stopped it; it can be continued.
        UnreliableLatencyError: when the bench keeps giving answers that cannot be used.
        InfeasibleError: when no candidate could be timed.
        TrainingError, RunError, DeviceError: see `SearchLoop`.
    """
    run, config, reporter, space = context.run, context.config, context.reporter, context.space
    reporter.say(
        f"searching {space.name}: {float(space.size):.3g} architectures, target {ms_text(target_ms)} ms "
        f"({config.export.precision}), latencies from {loop.evaluator.latency.name}"
    )
    for device in context.bench.devices:
        if states := device.probe_states():
            reporter.say(noise_line(states, device.spec, device.name))
    with ExitStack() as stack:
        _take_warm_up(context)
        journal = stack.enter_context(closing(run.open_journal(reporter.say)))
        recorded = RecordedSearch(loop, journal, run.checkpoints, config.runs.checkpoint_steps, reporter.say)
        if loop.step:
            reporter.say(f"continuing after step {loop.step} with {len(recorded.trials)} trials")
        show = stack.enter_context(_shown(context, loop, recorded, target_ms))

        def on_step(report: StepReport) -> None:
            _keep_warm_up(context, loop, recorded)
            show(report)

        with advising(context):
            recorded.run(on_step, context.stop)
    _check_timed(context, recorded.trials)
    return recorded.trials


def _take_warm_up(context: RunContext) -> None:
    """Begins a search where another of its group had its warm-up behind it: all of it is the same for any target."""
    if context.group is None or context.run.checkpoints.newest_step() is not None:
        return
    warm = context.group.warm_up.load(context.reporter.say)
    if warm is not None:
        context.reporter.say(f"the first {warm.step} steps are those of the searches for other targets")
        context.run.checkpoints.save(warm)


def _keep_warm_up(context: RunContext, loop: SearchLoop, recorded: RecordedSearch) -> None:
    """Keeps the state at the end of the warm-up for the other searches of the group."""
    group = context.group
    if group is None or loop.step != context.config.search.delay_steps or group.warm_up.newest_step() is not None:
        return
    if loop.controller.attends_delay:  # its rewards go by the target
        return
    group.warm_up.save(recorded.snapshot())


@contextmanager
def _shown(
    context: RunContext, loop: SearchLoop, recorded: RecordedSearch, target_ms: float
) -> Iterator[Callable[[StepReport], None]]:
    """Yields what keeps and shows a step beside the journal: policy, TensorBoard, progress line."""
    run, reporter = context.run, context.reporter
    with ExitStack() as stack:
        set_damaged_aside(run.path("policy.jsonl"), reporter.say)
        policy_journal = stack.enter_context(closing(run.open_journal(reporter.say, "policy.jsonl")))
        policy = PolicyLog(policy_journal, loop.step, loop.steps)
        log = None
        # It writes with TensorFlow, whose start takes longer than the search of a table.
        if context.task.delivers and context.config.runs.tensorboard and loop.step < loop.steps:
            from nas_edge.stages.tensorboard import TensorBoardLog

            log = TensorBoardLog(run.path("tensorboard"), loop.step, loop.steps, target_ms)
            stack.enter_context(closing(log))
        line = SearchLine(target_ms, context.task.metric, context.bench.devices, recorded.trials)
        show = stack.enter_context(reporter.stage("search", loop.steps, loop.step, line.facts))

        def on_step(report: StepReport) -> None:
            policy.write(report.step, loop.controller)
            if log is not None:
                log.write(report, loop.controller)
            line.show(report)
            show(report.step + 1)

        yield on_step


@contextmanager
def advising(context: RunContext) -> Iterator[None]:
    """Says what to do when latencies cannot be used; within, `UnreliableLatencyError` says only what is wrong."""
    try:
        yield
    except UnreliableLatencyError as error:
        if error.verdict in FLAGS:
            advice = f"Close other programs, or measure longer: {context.again} {_measure_longer(context)}"
        else:
            doctor = command("devices", "doctor", context.config.device.addresses[0])
            rehearsal = command("search", "--config", context.run.path("config.json"), "--dry-run")
            alike = f" and the space ({rehearsal})" if error.verdict in CANDIDATE_FAULTS else ""
            advice = f"Check the device ({doctor}){alike}, then continue: {context.again}"
        raise UnreliableLatencyError(f"{error}. {advice}", error.verdict) from None


def _measure_longer(context: RunContext) -> str:
    """The option that makes measurements of candidates worth more."""
    config = context.config
    now_s = config.measure.spec(config.device).max_duration_s
    return f"--set measure.max_duration_s={max(2.0, 4 * now_s):g}"


def _check_timed(context: RunContext, trials: list[Trial]) -> None:
    """Raises when a search has ended without a single latency: its steps are made, so only another run helps."""
    if not trials or any(trial.reward is not None for trial in trials):
        return
    last = next((trial.latency for trial in reversed(trials) if trial.latency is not None), None)
    why = "" if last is None else f"; the last one: {last.verdict}, {last.detail}"
    advice = f"Check the device ({command('devices', 'doctor', context.config.device.addresses[0])})"
    if last is not None and last.verdict in FLAGS:
        advice = f"Close other programs, or measure longer ({_measure_longer(context)})"
    if last is not None and last.verdict == Verdict.NOT_KNOWN:
        advice = "Name a table that has more of the space"
    raise InfeasibleError(
        f"none of the {len(trials)} candidates could be timed reliably on {context.bench.latency_source.name}{why}. "
        f"{advice}, and start a new run"
    )
