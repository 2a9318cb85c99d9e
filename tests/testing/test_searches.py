"""The suite for search loops notices every promise that is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from nas_edge.controllers.base import Proposal
from nas_edge.errors import NasEdgeError
from nas_edge.latency.source import LatencySource
from nas_edge.quality import QUALITY_SOURCES, QualityContext
from nas_edge.registry import Entry
from nas_edge.rewards import REWARDS
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.faults import FaultWatch
from nas_edge.search.loop import SearchLoop, StepReport
from nas_edge.search.methods import SearchContext, make_controller
from nas_edge.search.multi_trial import MultiTrialSearch, MultiTrialSettings
from nas_edge.search.trials import Trial
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import Architecture
from nas_edge.testing import check_search_loop
from nas_edge.testing.problems import table_context

COUNT = itertools.count()
FROM_COLUMN = {"quality": {"source": "column", "column": "quality"}}


def entry(loop: type[MultiTrialSearch], settings: Any = MultiTrialSettings) -> Entry[SearchLoop]:
    """A search method whose loop is that of `multi-trial`, but for what a subclass breaks."""

    def make(chosen: MultiTrialSettings, context: SearchContext) -> SearchLoop:
        quality = QUALITY_SOURCES.make(
            chosen.quality, QualityContext(context.space, context.task, context.data, context.seed)
        )
        evaluator = Evaluator(context.space, quality, context.latency, context.objectives, REWARDS[chosen.reward])
        return loop(make_controller(chosen, context), evaluator, generator(context.seed, "controller"), chosen)

    return Entry(settings, make)


class Started(MultiTrialSearch):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.step = 1


class OtherStep(MultiTrialSearch):
    def take_step(self) -> StepReport:
        report = super().take_step()
        return StepReport(report.step + 1, report.loss, report.trials, report.entropy)


class NoEntropy(MultiTrialSearch):
    def take_step(self) -> StepReport:
        report = super().take_step()
        return StepReport(report.step, report.loss, report.trials, -1.0)


class Losing(MultiTrialSearch):
    """Does not report what the bench could not time."""

    def take_step(self) -> StepReport:
        report = super().take_step()
        kept = tuple(trial for trial in report.trials if trial.latency_ms is not None)
        return StepReport(report.step, report.loss, kept, report.entropy)


class Changing(MultiTrialSearch):
    """Changes what is in its trials."""

    def __init__(self, change: Callable[[Trial], Trial], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._change = change

    def take_step(self) -> StepReport:
        report = super().take_step()
        return StepReport(report.step, report.loss, tuple(map(self._change, report.trials)), report.entropy)


def changing(**fields: Any) -> Any:
    def change(trial: Trial) -> Trial:
        values = {name: value(trial) if callable(value) else value for name, value in fields.items()}
        return Trial(**{**vars(trial), **values})

    return lambda *arguments: Changing(change, *arguments)


class OwnRandomness(MultiTrialSearch):
    def take_step(self) -> StepReport:
        self.rng = np.random.default_rng(next(COUNT))
        return super().take_step()


class GlobalRandomness(MultiTrialSearch):
    def take_step(self) -> StepReport:
        np.random.random()
        return super().take_step()


class TellingAll(MultiTrialSearch):
    """Blames candidates for what the bench could not time."""

    def learn(self, proposals: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        from nas_edge.controllers.base import Outcome

        super().learn(proposals, trials)
        outcomes = [Outcome(p, t.reward) for p, t in zip(proposals, trials, strict=True)]
        self.controller.update(outcomes, self.step)


class Impatient(MultiTrialSearch):
    """Takes only latencies that are there at once."""

    def take_step(self) -> StepReport:
        latency = self.evaluator.latency
        self.evaluator.latency = _AtOnce(latency)
        try:
            return super().take_step()
        finally:
            self.evaluator.latency = latency


class _AtOnce(LatencySource):
    def __init__(self, source: LatencySource) -> None:
        self._source = source

    @property
    def name(self) -> str:
        return self._source.name

    def submit(self, candidate: Any) -> Any:
        future = self._source.submit(candidate)
        return future if future.done() else self._source.submit(candidate)._state  # type: ignore[attr-defined]


class OldSource(MultiTrialSearch):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._first = self.evaluator.latency

    def evaluate(self, architecture: Architecture) -> Trial:
        self.evaluator.latency = self._first
        return super().evaluate(architecture)


class Disturbed(MultiTrialSearch):
    """An evaluation outside of the loop draws from the loop's generator."""

    def evaluate(self, architecture: Architecture) -> Trial:
        self.rng.random()
        return super().evaluate(architecture)


class Hidden(MultiTrialSearch):
    """Keeps something that decides about the next step to itself."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tired = 0

    def take_step(self) -> StepReport:
        self._tired += 1
        if self._tired % 3 == 0:
            self.rng.random()
        return super().take_step()


class NotJson(MultiTrialSearch):
    def state(self) -> dict[str, Any]:
        return {**super().state(), "pair": (1, 2)}


class Alive(MultiTrialSearch):
    """Hands out a part of itself as its state."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._log: list[int] = []

    def take_step(self) -> StepReport:
        self._log.append(self.step)
        return super().take_step()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "log": self._log}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._log = list(state["log"])


class Forgetful(MultiTrialSearch):
    def remember(self, trials: Sequence[Trial]) -> None:
        pass


class Patient(MultiTrialSearch):
    """Goes on however many answers cannot be used."""

    def learn(self, proposals: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        super().learn(proposals, trials)
        self._faults = FaultWatch()


class Blaming(MultiTrialSearch):
    """Takes every failure for the candidate's own."""

    def learn(self, proposals: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        super().learn(proposals, trials)
        self._faults.restore({"unusable": self._faults.state()["unusable"]})


class Uncounted(MultiTrialSearch):
    """Forgets in a restart how many answers could not be used."""

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore({**state, "unusable": 0})


class Counting(MultiTrialSearch):
    """Counts all answers that cannot be used, not those in a row."""

    def learn(self, proposals: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        before = self._faults.state()["unusable"]
        super().learn(proposals, trials)
        state = self._faults.state()
        self._faults.restore({**state, "unusable": max(before, state["unusable"])})


class Tireless(MultiTrialSearch):
    """Takes a lost device for a candidate's failure."""

    def take_step(self) -> StepReport:
        from device_agents.errors import DeviceError

        try:
            return super().take_step()
        except DeviceError:
            self.step += 1
            return StepReport(self.step - 1, None, (), None)


class Careless(MultiTrialSearch):
    def restore(self, state: Mapping[str, Any]) -> None:
        try:
            super().restore(state)
        except NasEdgeError:
            self.step = state["step"]


class AnyArrays(MultiTrialSearch):
    def restore_arrays(self, arrays: Mapping[str, Any]) -> None:
        pass


def test_a_loop_that_keeps_its_promises_passes() -> None:
    check_search_loop(entry(MultiTrialSearch), table_context, **FROM_COLUMN)


@pytest.mark.parametrize(
    ("loop", "promise"),
    [
        (Started, "a new loop must have made 0 of 30 steps, has made 1 of 30"),
        (lambda *_: None, "`make` must return a SearchLoop, returned NoneType"),
        (OtherStep, "step 0 was reported as 1"),
        (NoEntropy, "`entropy` of a report must be the controller's"),
        (Losing, r"the settings say that 30 architectures are evaluated, \d+ were reported"),
        (changing(rewarded_step=40), "says that it was rewarded in 40"),
        (changing(reward=None), "a trial has a reward if it has a latency to rely on and a quality"),
        (changing(reward=1.0), "a trial without latency or quality has the reward 1.0"),
        (changing(latency=None), "a trial without latency or quality has the reward"),
        (changing(quality=lambda _: float(next(COUNT)), reward=lambda t: None), "a trial has a reward"),
        (OwnRandomness, "the same seed gives another search"),
        (GlobalRandomness, "the global generator was drawn from"),
        (TellingAll, r"the controller was told of \d+ outcomes, expected \d+"),
        (Impatient, "searching with latencies that come late, out of order: AttributeError"),
        (OldSource, "`evaluate` must ask `evaluator.latency`, which may be exchanged"),
        (Disturbed, "`evaluate` changes the state of the search"),
        (Hidden, "a search stopped before each step and restored differs from one that was not stopped, in step"),
        (NotJson, r"`state` does not survive JSON: pair \(1, 2\)"),
        (Alive, "a state that was handed out is changed by later steps"),
        (Forgetful, r"\d+ qualities were asked for again that `remember` had told"),
        (Patient, "30 answers in a row could not be used, and the search went on"),
        (Uncounted, "29 answers in a row could not be used before the search stopped, expected 20 at most"),
        (Blaming, "30 answers in a row failed alike, and the search went on"),
        (Counting, r"one answer in many can be used, so the bench is not broken: \w*Error"),
        (Tireless, "a device that is gone must end the search with its DeviceError"),
        (Careless, "a state of another controller was accepted; expected RunError"),
        (AnyArrays, "an array of another search was accepted; expected RunError"),
    ],
)
def test_a_broken_promise_is_named(loop: Any, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_search_loop(entry(loop), table_context, **FROM_COLUMN)


def test_settings_that_are_not_those_of_a_search_are_named() -> None:
    from nas_edge.controllers.random_search import RandomSettings

    with pytest.raises(AssertionError, match="must be a subclass of SearchSettings"):
        check_search_loop(Entry(RandomSettings, lambda settings, context: None))  # type: ignore[arg-type, return-value]
