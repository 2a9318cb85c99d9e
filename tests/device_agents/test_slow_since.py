"""A device that became slow a moment ago: most of what is known of it is from before."""

from __future__ import annotations

import pytest

from device_agents.api import BenchmarkSpec, Verdict
from device_agents.probe_watch import Probe, ProbeWatch
from device_agents.quiet import VisitSettings
from device_agents.visiting import VisitingAgent
from tests.support.visits import PROBES, DistantAgent, visit

SPEC = BenchmarkSpec(min_runs=9, min_duration_s=0.06, max_duration_s=0.1, patience_s=0.0)


def test_what_is_measured_on_it_is_throttled_and_not_believed() -> None:
    slow: set[bytes] = set()
    distant = DistantAgent(1, lambda model, number: visit(latency_ms=3.0 if model in slow else 2.0))
    with VisitingAgent(distant, probes=PROBES) as agent:
        for _ in range(10):
            assert agent.measure(b"a", SPEC).verdict is Verdict.OK
        slow |= {b"a", b"P", b"Q"}
        measurement = agent.measure(b"a", SPEC)
        assert (measurement.verdict, measurement.best_ms) == (Verdict.THROTTLED, 3.0)
        assert "at least 1.50 times as long" in measurement.detail
        slow.clear()
        assert agent.measure(b"a", SPEC).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("times_ms", "said"),
    [
        ([3.0, 2.5, 3.0], "at least 1.25 times"),
        ([3.0, 2.0, 3.0], ""),  # one was undisturbed
        ([3.0, 2.5], ""),  # too few to tell
    ],
)
def test_it_takes_several_visits_all_of_them_slow(times_ms: list[float], said: str) -> None:
    watch = ProbeWatch([Probe("compute", b"P"), Probe("memory", b"Q")], VisitSettings())
    for number in range(1, 5):
        for name in ("compute", "memory"):
            watch.take(name, 2.0, number)
    for number, time_ms in enumerate(times_ms, 5):
        watch.take("compute", time_ms, number)
    assert said in watch.slow_since(5)
    assert bool(watch.slow_since(5)) is bool(said)
    assert watch.slow_since(1) == ""
