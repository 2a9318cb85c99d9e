"""The Pareto front against its definition, and which architectures are near it."""

from __future__ import annotations

import numpy as np

from device_agents.api import Verdict
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.search.front import near_front, pareto_front
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from tests.support.sources import failed, timed


def test_the_pareto_front_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        latency_ms, quality = rng.integers(0, 6, 12).tolist(), rng.integers(0, 6, 12).tolist()
        front = pareto_front(latency_ms, quality)
        points = list(zip(latency_ms, quality, strict=True))
        for i, (ms, q) in enumerate(points):
            beaten = any(
                (a <= ms and b >= q and (a, b) != (ms, q)) or ((a, b) == (ms, q) and j < i)
                for j, (a, b) in enumerate(points)
            )
            assert front[i] is not beaten


def trial(number: int, quality: float | None, latency_ms: float | None) -> Trial:
    measurement = failed(Verdict.TIMEOUT) if latency_ms is None else timed(latency_ms)
    return Trial(0, 0, Architecture((number,)), quality, LatencyAnswer.measured(measurement), None, None)


def test_fronts_are_taken_one_after_another_and_trials_of_an_architecture_together() -> None:
    trials = [
        trial(0, 0.5, 1.0),
        trial(1, 0.7, 2.0),
        trial(2, 0.4, 2.0),  # beaten by both
        trial(3, 0.9, 3.0),
        trial(3, 0.7, 3.0),  # on the mean, it still beats them
        trial(4, 0.6, 2.5),  # beaten by 1 alone
        trial(5, None, 0.5),
        trial(6, 1.0, None),
    ]
    assert [a.choices[0] for a in near_front(trials, 3)] == [0, 1, 3]
    assert [a.choices[0] for a in near_front(trials, 4)] == [0, 1, 3, 2]
    assert [a.choices[0] for a in near_front(trials, 99)] == [0, 1, 3, 2, 4]
    assert near_front([], 4) == []
