"""Whether two delivered files differ in latency."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_agents.api import Measurement, QuietLatency, Verdict, Visit
from nas_edge.runs.latency_difference import latency_differs
from tests.support.finished_runs import timed

SLOW = timed(1.0)
assert SLOW.statistics is not None
assert SLOW.statistics.interval_ms is not None
# Relative to the median.
WIDTH = SLOW.statistics.interval_ms[1] - SLOW.statistics.interval_ms[0]


@pytest.mark.parametrize(("median_ms", "differs"), [(1.0, False), (1 + WIDTH / 3, False), (1.2, True), (0.8, True)])
def test_latencies_differ_where_the_interval_of_their_ratio_excludes_one(median_ms: float, differs: bool) -> None:
    assert latency_differs(SLOW, timed(median_ms)) is differs
    assert latency_differs(timed(median_ms), SLOW) is differs


@pytest.mark.parametrize(
    "other",
    [
        None,
        Measurement(Verdict.TIMEOUT, "slow"),
        timed(2.0, Verdict.UNSTEADY, "other programs"),
        replace(SLOW, samples_ms=(2.0, 2.1, 2.2)),
    ],
    ids=["missing", "failed", "flagged", "without interval"],
)
def test_what_is_not_known_is_not_said(other: Measurement | None) -> None:
    assert latency_differs(SLOW, other) is None
    assert latency_differs(other, SLOW) is None


def test_what_shared_rounds_is_compared_within_them() -> None:
    """Each round is disturbed otherwise, and both networks alike: the intervals overlap, and yet one is slower."""
    disturbances = [1.0 + 0.004 * number for number in range(12)]

    def of_rounds(factor: float) -> Measurement:
        times_ms = tuple(factor * disturbance for disturbance in disturbances)
        visits = tuple(Visit(1, number, float(number)) for number in range(len(times_ms)))
        quiet = QuietLatency(factor * 1.02, (factor * 1.0, factor * 1.04), 12)
        return replace(SLOW, samples_ms=times_ms, visits=visits, quiet=quiet)

    assert latency_differs(of_rounds(1.0), of_rounds(1.015)) is True
    assert latency_differs(of_rounds(1.0), of_rounds(1.0)) is False
