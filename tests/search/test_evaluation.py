"""What one architecture is worth, of what is known of it."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate
from nas_edge.networks.analysis import analyze
from nas_edge.quality.source import FunctionQuality, Quality
from nas_edge.rewards import REWARDS, Objective
from nas_edge.search.evaluation import Evaluator, known
from nas_edge.spaces.decisions import Architecture
from tests.support.sources import FunctionSource, failed, timed
from tests.support.spaces import tiny_space
from tests.support.tables import open_space, write_table

SPACE = tiny_space()
FIRST = SPACE.canonical(Architecture((0,) * len(SPACE.decisions)))
LATENCY = Objective("latency_ms", 2.0)
RESOURCES = tuple(Objective(name, 1e6) for name in ("macs", "parameters", "peak_memory_bytes"))


def evaluator(
    objectives: tuple[Objective, ...] = (LATENCY,), source: FunctionSource | None = None, **settings: Any
) -> Evaluator:
    quality = FunctionQuality("a function", lambda candidate: Quality(0.5))
    source = source or FunctionSource(lambda candidate: timed(3.0))
    return Evaluator(SPACE, quality, source, objectives, REWARDS["absolute"], **settings)


def test_quality_and_latency_are_joined_in_the_reward() -> None:
    trial = evaluator().evaluate(FIRST, 7)
    assert (trial.step, trial.rewarded_step, trial.architecture) == (7, 7, FIRST)
    assert (trial.quality, trial.latency_ms, trial.usage) == (0.5, 3.0, {"latency_ms": 3.0})
    assert trial.reward == REWARDS["absolute"](0.5, {"latency_ms": 3.0}, [LATENCY])


@pytest.mark.parametrize(("precision", "bytes_per_value"), [("int8", 1), ("float32", 4)])
def test_resources_are_those_of_the_network_at_the_precision_it_is_delivered_with(
    precision: str, bytes_per_value: int
) -> None:
    made = evaluator((LATENCY, *RESOURCES), precision=precision)
    usage = made.evaluate(FIRST, 0).usage
    analysis = analyze(made.candidate(FIRST).network, bytes_per_value)
    assert usage == {
        "latency_ms": 3.0,
        "macs": analysis.macs,
        "parameters": analysis.parameters,
        "peak_memory_bytes": analysis.peak_memory_bytes,
    }


def test_a_network_has_float32_values_unless_it_is_said_otherwise() -> None:
    memory = RESOURCES[2:]
    usual, float32 = evaluator(memory), evaluator(memory, precision="float32")
    assert usual.evaluate(FIRST, 0).usage == float32.evaluate(FIRST, 0).usage


@pytest.mark.parametrize(
    ("verdict", "with_latency", "without"),
    [(Verdict.UNSTEADY, False, True), (Verdict.LOAD_FAILED, False, False), (Verdict.OK, True, True)],
)
def test_a_latency_that_the_bench_could_not_find_out_matters_only_where_the_reward_goes_by_it(
    verdict: Verdict, with_latency: bool, without: bool
) -> None:
    source = FunctionSource(lambda candidate: timed(3.0) if verdict is Verdict.OK else failed(verdict))
    assert (evaluator((LATENCY,), source).evaluate(FIRST, 0).reward is not None) is with_latency
    assert (evaluator(RESOURCES[:1], source).evaluate(FIRST, 0).reward is not None) is without


def test_what_was_not_asked_for_or_could_not_be_scored_has_no_reward() -> None:
    made = evaluator(RESOURCES[:1])
    candidate, answer = made.candidate(FIRST), LatencyAnswer.measured(timed(3.0))
    assert made.assess(candidate, Quality(0.5), None, 1, 2).reward is None
    unscored = made.assess(candidate, Quality(None, "diverged"), answer, 1, 2)
    assert (unscored.reward, unscored.step, unscored.rewarded_step) == (None, 1, 2)
    assert unscored.usage is not None


def test_of_many_each_has_its_own_quality_and_latency() -> None:
    other = SPACE.canonical(Architecture(tuple(len(decision.choices) - 1 for decision in SPACE.decisions)))
    quality = FunctionQuality("a function", lambda candidate: Quality(0.2 if candidate.architecture == FIRST else 0.8))
    source = FunctionSource(lambda candidate: timed(3.0 if candidate.architecture == FIRST else 5.0))
    made = Evaluator(SPACE, quality, source, [LATENCY], REWARDS["absolute"])
    both = made.evaluate_all([other, FIRST], 4)
    assert [(one.architecture, one.quality, one.latency_ms, one.step) for one in both] == [
        (other, 0.8, 5.0, 4),
        (FIRST, 0.2, 3.0, 4),
    ]
    scored = made.score_all([other, FIRST], 4)
    assert [(one.quality, one.latency, one.reward) for one in scored] == [(0.8, None, None), (0.2, None, None)]
    assert made.measure_all(scored, 4) == both


def test_a_resource_that_a_space_does_not_have_is_named(tmp_path: Path) -> None:
    space = open_space(write_table(tmp_path))
    quality = FunctionQuality("a function", lambda candidate: Quality(0.5))
    source = FunctionSource(lambda candidate: timed(3.0))
    made = Evaluator(space, quality, source, RESOURCES[:1], REWARDS["absolute"])
    candidate = made.candidate(Architecture((0,) * len(space.decisions)))
    with pytest.raises(ConfigError, match="describes no networks, so there is no macs to aim at"):
        made.assess(candidate, Quality(0.5), LatencyAnswer.measured(timed(3.0)), 0, 0)


class Slow(FunctionSource):
    """Takes a moment to measure, and keeps a log."""

    def __init__(self, on_host: bool, log: list[str]) -> None:
        super().__init__(lambda candidate: timed(3.0), on_host)
        self._log, self._pool = log, ThreadPoolExecutor(1)

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        def measure() -> LatencyAnswer:
            time.sleep(0.05)
            self._log.append("measured")
            return LatencyAnswer.measured(Measurement(Verdict.OK, samples_ms=(3.0,)))

        return self._pool.submit(measure)


def test_nothing_is_scored_while_this_machine_measures() -> None:
    log: list[str] = []
    quality = FunctionQuality("a function", lambda candidate: log.append("scored") or Quality(0.5))
    made = Evaluator(SPACE, quality, Slow(True, log), [LATENCY], REWARDS["absolute"])
    assert [trial.latency_ms for trial in made.evaluate_all([FIRST, FIRST], 0)] == [3.0, 3.0]
    assert log == ["measured"] * 2 + ["scored"] * 2


def test_what_is_known_is_there_at_once() -> None:
    answer = LatencyAnswer.measured(timed(3.0))
    assert known(answer).result(timeout=0) is answer
