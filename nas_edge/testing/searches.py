"""What a search loop promises: every step on its own, and the whole of it when it is stopped and continued."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Timer
from typing import Any, TypeAlias

import numpy as np

from device_agents.api import Verdict
from device_agents.errors import DeviceError, DeviceUnavailableError
from nas_edge.controllers.base import Outcome
from nas_edge.errors import ConfigError, RunError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import Candidate, LatencySource, resolve
from nas_edge.quality.source import Quality, QualitySource
from nas_edge.registry import Entry
from nas_edge.search.faults import ALIKE_IN_A_ROW, UNUSABLE_IN_A_ROW
from nas_edge.search.loop import SearchLoop, StepReport
from nas_edge.search.methods import SearchContext
from nas_edge.search.settings import SearchSettings
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.testing.expect import expect, expect_no_error, expect_no_global_draws
from nas_edge.testing.problems import table_context, through_json
from nas_edge.testing.settings import check_settings

MakeContext: TypeAlias = Callable[[LatencySource], SearchContext]
_Arrays: TypeAlias = Mapping[str, "np.ndarray[Any, Any]"]
_Answer: TypeAlias = Callable[[Architecture], LatencyAnswer]

_STEPS = 30


def check_search_loop(entry: Entry[SearchLoop], make_context: MakeContext = table_context, **settings: Any) -> None:
    """Checks a search method; takes seconds, but for what it trains.

    Args:
        entry: the line of the table of search methods; of another package, the object that its entry point names.
        make_context: what the loop is made of, given where latencies come from: new data and the same seed at every
            call. By default a small table of results with the columns `quality` and `latency_ms`, for a method that
            takes `quality={"source": "column", "column": "quality"}`, or needs no quality source.
        **settings: other than the defaults; `steps` is 30 unless given, and should be at least that.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    with expect_no_error("the settings"):
        chosen = check_settings(entry, "method", {"steps": _STEPS, **settings}, SearchSettings)
    bench = _Bench(entry, make_context, chosen)
    with expect_no_error("searching"):
        whole = _check_steps(bench)
        _check_told(bench)
    with expect_no_error("searching with latencies that come late, out of order"):
        late = bench.run(bench.new(_Late(_mixed)))
        _same(late, whole, "latencies that come late change the search: results must not depend on timing")
    with expect_no_error("evaluating an architecture outside the loop"):
        _check_evaluate(bench, whole)
    with expect_no_error("restoring a state"):
        _check_restoring(bench, whole)
        _check_remembering(bench, whole)
    with expect_no_error("refusing what cannot be used"):
        _check_bench_faults(bench)
        _check_foreign(bench)


@dataclass(frozen=True)
class _Bench:
    """Makes the same loop again and again."""

    entry: Entry[SearchLoop]
    make_context: MakeContext
    settings: SearchSettings

    def new(self, latency: LatencySource) -> SearchLoop:
        """The loop as it is before its first step."""
        context = self.make_context(latency)
        loop = self.entry.make(self.settings, context)
        expect(isinstance(loop, SearchLoop), f"`make` must return a SearchLoop, returned {type(loop).__name__}")
        expect(
            (loop.step, loop.steps) == (0, self.settings.steps),
            f"a new loop must have made 0 of {self.settings.steps} steps, has made {loop.step} of {loop.steps}",
        )
        expect(loop.space is context.space, "`space` must be that of the context")
        return loop

    def run(self, loop: SearchLoop) -> list[StepReport]:
        """Makes the remaining steps."""
        reports: list[StepReport] = []
        loop.run(reports.append)
        return reports


# What the bench answers: of an architecture always the same.


def _good(architecture: Architecture) -> LatencyAnswer:
    return LatencyAnswer.estimated(LatencyKind.PREDICTED, 1.0 + sum(architecture.choices) / 4)


def _other(_: Architecture) -> LatencyAnswer:
    return LatencyAnswer.estimated(LatencyKind.PREDICTED, 0.5)


def _mixed(architecture: Architecture) -> LatencyAnswer:
    """Some candidates fail, and some the bench cannot time."""
    if architecture.choices[0] == 1:
        return LatencyAnswer.failed(LatencyKind.MEASURED, Verdict.RUN_FAILED, "the candidate's doing")
    if sum(architecture.choices) % 4 == 1:
        return _unusable(architecture)
    return _good(architecture)


def _failing(_: Architecture) -> LatencyAnswer:
    return LatencyAnswer.failed(LatencyKind.MEASURED, Verdict.RUN_FAILED, "each in the same way")


def _unusable(_: Architecture) -> LatencyAnswer:
    return LatencyAnswer.failed(LatencyKind.MEASURED, Verdict.UNSTEADY, "the bench's doing")


class _Source(LatencySource):
    """Answers with a function of the architecture, at once."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    @property
    def name(self) -> str:
        return "the suite's bench"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        future: Future[LatencyAnswer] = Future()
        self._resolve(future, candidate)
        return future

    def _resolve(self, future: Future[LatencyAnswer], candidate: Candidate) -> None:
        assert candidate.architecture is not None
        try:
            resolve(future, self._answer(candidate.architecture))
        except DeviceError as error:
            resolve(future, error)


class _Late(_Source):
    """Answers from another thread after a while, a later candidate perhaps before an earlier one."""

    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer)
        self._waits_s = iter(np.random.default_rng(0).uniform(0.0, 0.005, 100_000))

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        future: Future[LatencyAnswer] = Future()
        Timer(next(self._waits_s), self._resolve, (future, candidate)).start()
        return future


class _NotedQuality(QualitySource):
    """Notes what is asked."""

    def __init__(self, quality: QualitySource) -> None:
        self._quality = quality
        self.asked: list[Architecture | None] = []

    @property
    def name(self) -> str:
        return self._quality.name

    def evaluate(self, candidate: Candidate) -> Quality:
        self.asked.append(candidate.architecture)
        return self._quality.evaluate(candidate)


def _check_steps(bench: _Bench) -> list[StepReport]:
    """One search, looked at step by step; returns it."""
    reports = []
    with expect_no_global_draws():
        loop = bench.new(_Source(_mixed))
        while loop.step < loop.steps:
            step = loop.step
            report = loop.take_step()
            expect(isinstance(report, StepReport), f"`take_step` must return a StepReport, returned {type(report)}")
            expect(
                (report.step, loop.step) == (step, step + 1),
                f"step {step} was reported as {report.step}, and `step` then was {loop.step}",
            )
            expect(report.entropy == loop.controller.entropy(), "`entropy` of a report must be the controller's")
            for trial in report.trials:
                _check_trial(trial, loop, step)
            reports.append(report)
    count, evaluated = len(_trials(reports)), bench.settings.evaluated
    expect(count == evaluated, f"the settings say that {evaluated} architectures are evaluated, {count} were reported")
    if not bench.settings.quality_drifts:
        qualities: dict[Architecture, float | None] = {}
        for trial in _trials(reports):
            known = qualities.setdefault(trial.architecture, trial.quality)
            expect(known == trial.quality, f"{trial.architecture} has the qualities {known} and {trial.quality}")
    again = bench.run(bench.new(_Source(_mixed)))
    _same(again, reports, "the same seed gives another search: a run could not be repeated")
    return reports


def _check_trial(trial: Trial, loop: SearchLoop, step: int) -> None:
    architecture = trial.architecture
    canonical = loop.space.canonical(architecture)
    expect(architecture == canonical, f"a trial's architecture must be canonical, {canonical}, is {architecture}")
    expect(
        trial.step <= trial.rewarded_step == step,
        f"a trial of step {trial.step}, reported in step {step}, says that it was rewarded in {trial.rewarded_step}",
    )
    if trial.latency is not None:
        expected = _mixed(architecture)
        expect(trial.latency == expected, f"{architecture}: the bench said {expected}, the trial says {trial.latency}")
    rewarded = trial.latency_ms is not None and trial.quality is not None
    expect(
        math.isfinite(trial.reward) if trial.reward is not None else not rewarded,
        f"a trial has a reward if it has a latency to rely on and a quality; received {trial}",
    )
    expect(trial.reward is None or rewarded, f"a trial without latency or quality has the reward {trial.reward}")
    expect(Trial.from_json(through_json(trial.to_json())) == trial, f"a trial does not survive the journal: {trial}")


def _check_told(bench: _Bench) -> None:
    """The controller learns of rewards and of candidates that failed, in order, and of nothing else."""
    loop = bench.new(_Source(_mixed))
    told: list[tuple[Architecture, float | None]] = []
    update = loop.controller.update

    def listening(outcomes: Sequence[Outcome], step: int) -> None:
        expect(step == loop.step, f"the controller was told of step {step} in step {loop.step}")
        told.extend((loop.space.canonical(one.proposal.architecture), one.reward) for one in outcomes)
        update(outcomes, step)

    loop.controller.update = listening  # type: ignore[method-assign]
    trials = _trials(bench.run(loop))
    expected = [
        (trial.architecture, trial.reward)
        for trial in trials
        if trial.reward is not None
        or (trial.latency is not None and trial.latency.verdict in (Verdict.RUN_FAILED, Verdict.OK))
    ]
    unusable = sum(trial.latency is not None and trial.latency.verdict == Verdict.UNSTEADY for trial in trials)
    expect(
        told == expected,
        f"the controller was told of {len(told)} outcomes, expected {len(expected)}: rewards, and candidates that "
        f"failed with None, but none of the {unusable} that the bench could not time",
    )


def _check_evaluate(bench: _Bench, whole: Sequence[StepReport]) -> None:
    loop = bench.new(_Source(_mixed))
    half = loop.steps // 2
    reports = [loop.take_step() for _ in range(half)]
    state = loop.state()
    before, arrays = through_json(state), _copied(loop.arrays())
    asked = loop.space.sample(np.random.default_rng(0))
    measured = loop.evaluator.latency
    loop.evaluator.latency = _Source(_other)
    trial = loop.evaluate(asked)
    canonical = loop.space.canonical(asked)
    expect(trial.architecture == canonical, f"asked for {asked}, evaluated {trial.architecture}")
    expect(trial.latency == _other(canonical), "`evaluate` must ask `evaluator.latency`, which may be exchanged")
    expect(through_json(loop.state()) == before, "`evaluate` changes the state of the search")
    expect(_equal(loop.arrays(), arrays), "`evaluate` changes the arrays of the search")
    loop.evaluator.latency = measured
    reports += bench.run(loop)
    expect(through_json(state) == before, "a state that was handed out is changed by later steps")
    _same(reports, whole, "a search in which an architecture was evaluated outside the loop goes on otherwise")
    design = loop.space.build(canonical)
    if design.network is not None:
        try:
            loop.weights_of(design.network)
        except ConfigError:
            return


def _check_restoring(bench: _Bench, whole: Sequence[StepReport]) -> None:
    """At every step the search goes on in another loop, which stands elsewhere: nothing may be left of that."""
    loops = [bench.new(_Late(_mixed)), bench.new(_Late(_mixed))]
    for step, expected in enumerate(whole):
        running, other = loops[step % 2], loops[(step + 1) % 2]
        _same(
            [running.take_step()],
            [expected],
            f"a search stopped before each step and restored differs from one that was not stopped, in step {step}",
        )
        state, arrays = running.state(), _copied(running.arrays())
        copy = through_json(state)
        expect(state == copy, f"`state` does not survive JSON: {_difference(state, copy)}")
        _restore(other, copy, arrays)
        if step == len(whole) // 2:
            new = bench.new(_Source(_mixed))
            _restore(new, copy, arrays)
            rest = bench.run(new)
            _same(rest, whole[step + 1 :], f"a search restored after step {step} goes on otherwise")


def _check_remembering(bench: _Bench, whole: Sequence[StepReport]) -> None:
    """A journal may be ahead of the last checkpoint: those steps are made again."""
    loop = bench.new(_Source(_mixed))
    noted = _NotedQuality(loop.evaluator.quality)
    loop.evaluator.quality = noted
    loop.remember(_trials(whole))
    _same(bench.run(loop), whole, "a search that remembers its trials goes on otherwise")
    # One that failed may be tried again: the cause may be gone.
    told = {trial.architecture for trial in _trials(whole) if trial.quality is not None}
    again = sum(architecture in told for architecture in noted.asked)
    expect(again == 0, f"{again} qualities were asked for again that `remember` had told")


def _check_stops(bench: _Bench, answer: _Answer, most: int, what: str) -> None:
    """A search on a broken bench ends soon, also when it is stopped and restored in between."""
    expect(bench.settings.evaluated >= most, f"{bench.settings.evaluated} evaluations are too few; give more steps")
    loop, count = bench.new(_Source(answer)), 0
    try:
        while loop.step < loop.steps:
            before, count = count, count + len(loop.take_step().trials)
            if before < most // 2 <= count:  # how many there were is part of the state
                new = bench.new(_Source(answer))
                _restore(new, through_json(loop.state()), _copied(loop.arrays()))
                loop = new
    except RunError:
        expect(count < most, f"{count} answers in a row {what} before the search stopped, expected {most} at most")
    else:
        raise AssertionError(f"{count} answers in a row {what}, and the search went on; expected RunError")


def _check_bench_faults(bench: _Bench) -> None:
    _check_stops(bench, _unusable, UNUSABLE_IN_A_ROW, "could not be used")
    _check_stops(bench, _failing, ALIKE_IN_A_ROW, "failed alike")
    turns = _turns()
    with expect_no_error("one answer in many can be used, so the bench is not broken"):
        bench.run(bench.new(_Source(lambda architecture: next(turns)(architecture))))

    def lost(_: Architecture) -> LatencyAnswer:
        raise DeviceUnavailableError("the device is gone")

    try:
        bench.run(bench.new(_Source(lost)))
    except DeviceError:
        return
    raise AssertionError("a device that is gone must end the search with its DeviceError")


def _turns() -> Iterator[_Answer]:
    while True:
        for _ in range(UNUSABLE_IN_A_ROW - 1):
            yield _unusable
        yield _good


def _check_foreign(bench: _Bench) -> None:
    loop = bench.new(_Source(_mixed))
    loop.take_step()
    state = through_json(loop.state())
    state["controller"] = {**state["controller"], "controller": "somebody else's"}
    arrays = {"no array of this search": np.zeros(1, np.float32)}
    refused: dict[str, Callable[[], None]] = {
        "a state of another controller": lambda: loop.restore(state),
        "an array of another search": lambda: loop.restore_arrays(arrays),
    }
    for what, restore in refused.items():
        try:
            restore()
        except RunError:
            continue
        raise AssertionError(f"{what} was accepted; expected RunError")


def _restore(loop: SearchLoop, state: Mapping[str, Any], arrays: _Arrays) -> None:
    loop.restore_arrays(arrays)
    loop.restore(state)


def _copied(arrays: _Arrays) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(array) for name, array in arrays.items()}


def _equal(first: _Arrays, second: _Arrays) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def _trials(reports: Sequence[StepReport]) -> list[Trial]:
    return [trial for report in reports for trial in report.trials]


def _same(reports: Sequence[StepReport], expected: Sequence[StepReport], broken: str) -> None:
    expect(len(reports) == len(expected), f"{broken}; {len(reports)} steps, expected {len(expected)}")
    for one, other in zip(reports, expected, strict=True):
        expect(one == other, f"{broken}; step {other.step}: expected {other}, received {one}")


def _difference(state: Mapping[str, Any], copy: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {state[name]!r:.200}" for name in state if state[name] != copy.get(name))
