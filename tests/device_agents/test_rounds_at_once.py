"""Several rounds of visits in one question, for devices to which the way is long."""

from __future__ import annotations

import pytest

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.quiet import VisitSettings
from device_agents.visiting import VisitedFile, VisitingAgent
from tests.support.visits import PROBES, DistantAgent, visit

SPEC = BenchmarkSpec(min_runs=9, min_duration_s=0.06)


@pytest.mark.parametrize("rounds_at_once", [1, 3])
def test_so_many_rounds_are_asked_for_at_once_and_each_has_all_of_them(rounds_at_once: int) -> None:
    distant = DistantAgent(rounds_at_once, lambda model, number: visit())
    models = [b"a", b"b", b"c", b"d"]
    with VisitingAgent(distant, probes=PROBES) as agent:
        answers = agent.measure_all([(model, SPEC) for model in models])
    assert [answer.verdict for answer in answers] == [Verdict.OK] * 4
    visited = [asked for asked in distant.asked if b"a" in asked]
    rounds = [
        asked[start : start + 6]
        for asked in visited
        for start in range(0, len(asked), 6)  # four models, two probes
    ]
    assert {len(asked) for asked in visited} == {6 * rounds_at_once}
    assert all(sorted(one) == sorted([*models, b"P", b"Q"]) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1  # shuffled anew in each
    assert len(visited) == len(rounds) // rounds_at_once
    numbers = [one.round for one in answers[0].visits]
    assert numbers == list(range(numbers[0], numbers[0] + len(rounds)))
    times_s = [one.at_s for one in answers[0].visits]
    assert times_s == sorted(times_s)


def test_the_probes_alone_are_asked_for_so_many_rounds_at_once_and_no_more() -> None:
    distant = DistantAgent(3, lambda model, number: visit())
    with VisitingAgent(distant, probes=PROBES, settings=VisitSettings(calibration_rounds=3)) as agent:
        agent.watch_probes(SPEC, 7)
    assert [len(asked) // 2 for asked in distant.asked] == [3, 3, 3, 1]


def test_time_and_runs_are_those_of_all_runs_that_a_sample_stands_for() -> None:
    file = VisitedFile(b"a", SPEC, [visit(latency_ms=2.0, runs=15), visit(latency_ms=3.0, runs=10)])
    assert (file.timed_s, file.runs) == (pytest.approx(0.06), 25)


def test_a_failure_in_any_of_the_rounds_is_the_answer() -> None:
    def answer(model: bytes, number: int) -> Measurement:
        if (model, number) == (b"a", 2):
            return Measurement(Verdict.RUN_FAILED, "its operator")
        return visit()

    with VisitingAgent(DistantAgent(3, answer), probes=PROBES) as agent:
        failed, fine = agent.measure_all([(b"a", SPEC), (b"b", SPEC)])
    assert (failed.verdict, failed.detail, fine.verdict) == (Verdict.RUN_FAILED, "its operator", Verdict.OK)


def test_visits_in_which_the_device_throttled_do_not_count() -> None:
    def answer(model: bytes, number: int) -> Measurement:
        if model == b"a" and number <= 4:
            return visit(Verdict.THROTTLED, 3.0, detail="the clocks fell")
        return visit()

    with VisitingAgent(DistantAgent(3, answer), probes=PROBES) as agent:
        (measurement,) = agent.measure_all([(b"a", SPEC)])
    assert (measurement.verdict, measurement.latency_ms) == (Verdict.OK, 2.0)
    assert measurement.samples_ms.count(3.0) == 4  # they were observed
    assert measurement.quiet is not None
    assert measurement.quiet.visits == len(measurement.visits) - 4


def test_a_device_that_throttles_in_every_visit_says_why() -> None:
    def answer(model: bytes, number: int) -> Measurement:
        return visit(Verdict.THROTTLED, detail="the clocks fell") if model == b"a" else visit()

    with VisitingAgent(DistantAgent(3, answer), probes=PROBES) as agent:
        (measurement,) = agent.measure_all([(b"a", SPEC.replace(max_duration_s=0.1, patience_s=0.0))])
    assert (measurement.verdict, measurement.detail) == (Verdict.THROTTLED, "the clocks fell")
    assert measurement.latency_ms is None
