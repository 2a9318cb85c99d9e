"""One latency of several: that of the device furthest beyond its target."""

from __future__ import annotations

import json
from concurrent.futures import Future

import pytest

from device_agents.api import Verdict
from device_agents.errors import DeviceError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.several import Part, SeveralSources, furthest
from nas_edge.latency.source import Candidate
from nas_edge.rewards import Objective, absolute
from tests.support.sources import FunctionSource, failed, timed, visited


def measured(latency_ms: float) -> LatencyAnswer:
    return LatencyAnswer.measured(visited(latency_ms))


def test_it_is_that_of_the_device_furthest_beyond_its_target() -> None:
    targets_ms = (5.0, 20.0)
    for first_ms, second_ms, expected_ms in ((5.0, 10.0, 5.0), (2.0, 30.0, 7.5), (2.0, 12.0, 3.0), (6.0, 24.0, 6.0)):
        answers = [measured(first_ms), measured(second_ms)]
        joined = furthest(answers, targets_ms)
        assert joined.latency_ms == pytest.approx(expected_ms)
        meets = first_ms <= targets_ms[0] and second_ms <= targets_ms[1]
        assert (joined.latency_ms <= targets_ms[0]) == meets, "a limit on it is one on each"
        assert (joined.kind, joined.verdict, joined.parts) == (LatencyKind.MEASURED, Verdict.OK, tuple(answers))
        assert joined.interval_ms is not None
        assert joined.interval_ms[0] <= joined.latency_ms <= joined.interval_ms[1]
        assert LatencyAnswer.from_json(json.loads(json.dumps(joined.to_json()))) == joined


def test_the_interval_is_that_of_the_largest_of_them() -> None:
    """A device that is a little within its target, but hardly known, may be the furthest beyond it after all."""
    joined = furthest(
        [
            LatencyAnswer.measured(visited(5.0, half_width=0.01)),
            LatencyAnswer.measured(visited(19.0, half_width=0.2)),
        ],
        (5.0, 20.0),
    )
    assert joined.latency_ms == 5.0
    assert joined.interval_ms == pytest.approx((4.95, 5.7))


def test_the_reward_peaks_where_the_device_that_binds_is_on_its_target() -> None:
    """The mean of the deviations hardly does: what the device that binds loses, the other gains."""
    objective = Objective("latency_ms", 5.0)

    def reward(size: float) -> float:
        joined = furthest([measured(size), measured(3.6 * size)], (5.0, 20.0))  # the first binds, the second at 0.9
        assert joined.latency_ms is not None
        return absolute(0.5, {"latency_ms": joined.latency_ms}, [objective])

    def mean(size: float) -> float:
        return 0.5 - 0.1 * (abs(size / 5 - 1) + abs(3.6 * size / 20 - 1)) / 2

    assert reward(5.0) == pytest.approx(0.5)
    assert reward(4.5) == pytest.approx(0.49)
    assert reward(5.5) == pytest.approx(0.49)
    assert mean(5.0) - mean(5.5) < 0.1 * (reward(5.0) - reward(5.5))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Verdict.CONTENDED, Verdict.LOAD_FAILED, Verdict.LOAD_FAILED),
        (Verdict.LOAD_FAILED, Verdict.CONTENDED, Verdict.LOAD_FAILED),
        (Verdict.OK, Verdict.CONTENDED, Verdict.CONTENDED),
    ],
)
def test_what_fails_on_one_has_failed_and_its_own_fault_comes_first(
    first: Verdict, second: Verdict, expected: Verdict
) -> None:
    answers = [measured(1.0) if v is Verdict.OK else LatencyAnswer.measured(failed(v)) for v in (first, second)]
    joined = furthest(answers, (5.0, 5.0))
    assert (joined.verdict, joined.latency_ms, joined.interval_ms) == (expected, None, None)


def test_all_are_asked_at_once_and_a_broken_bench_is_not_an_answer() -> None:
    asked: list[str] = []

    def says(name: str, latency_ms: float | None) -> FunctionSource:
        def measure(candidate: Candidate) -> object:
            asked.append(name)
            if latency_ms is None:
                raise DeviceError("unplugged")
            return timed(latency_ms)

        return FunctionSource(measure)

    candidate = Candidate(None)  # type: ignore[arg-type] # The sources do not look at it.
    with SeveralSources([Part(says("a", 4.0), 5.0), Part(says("b", 30.0), 20.0)]) as both:
        future: Future[LatencyAnswer] = both.submit(candidate)
        assert future.result().latency_ms == pytest.approx(7.5)
        assert sorted(asked) == ["a", "b"]
        assert not both.measures_on_host
    with SeveralSources([Part(says("a", 4.0), 5.0), Part(says("b", None), 20.0)]) as both, pytest.raises(DeviceError):
        both.submit(candidate).result()
