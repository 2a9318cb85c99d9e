from __future__ import annotations

from dataclasses import replace

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.retry import BENCH_FAULTS, RetryingSource
from nas_edge.latency.source import CANDIDATE_FAULTS
from tests.support.candidates import ManualSource, candidate
from tests.support.sources import FunctionSource, failed, timed


def test_every_failure_is_either_the_candidates_or_the_benchs_but_for_what_nobody_knows() -> None:
    lost, noise = {Verdict.DEVICE_LOST, Verdict.BENCH_FAILED}, {Verdict.UNSTEADY, Verdict.DRIFTED, Verdict.THROTTLED}
    assert lost | noise | {Verdict.CONTENDED} == BENCH_FAULTS
    assert BENCH_FAULTS | CANDIDATE_FAULTS | {Verdict.OK, Verdict.CORRECTED, Verdict.NOT_KNOWN} == set(Verdict)
    assert not BENCH_FAULTS & CANDIDATE_FAULTS


@pytest.mark.parametrize("verdict", sorted(BENCH_FAULTS - {Verdict.CONTENDED}))
def test_what_the_bench_failed_is_measured_again(verdict: Verdict) -> None:
    answers = iter([failed(verdict), timed(1.0)])
    inner = FunctionSource(lambda _: next(answers))
    answer = RetryingSource(inner).submit(candidate(0)).result(timeout=60)
    assert answer.latency_ms == 1.0
    assert answer.measurement is not None
    assert answer.measurement.attempts == 2
    assert [one.network for one in inner.asked] == [candidate(0).network] * 2


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.CONTENDED, *sorted(CANDIDATE_FAULTS)])
def test_what_is_the_candidates_own_doing_or_was_given_all_its_time_is_not(verdict: Verdict) -> None:
    inner = FunctionSource(lambda _: failed(verdict))
    assert RetryingSource(inner).submit(candidate(0)).result(timeout=60).verdict is verdict
    assert len(inner.asked) == 1


def test_it_gives_up_after_so_many_attempts_and_says_what_they_cost() -> None:
    unsteady = Measurement(Verdict.UNSTEADY, samples_ms=(1.0,), attempts=3, busy_s=0.5)
    inner = FunctionSource(lambda _: unsteady)
    answer = RetryingSource(inner, attempts=4).submit(candidate(0)).result(timeout=60)
    assert len(inner.asked) == 4
    assert answer == LatencyAnswer.measured(replace(unsteady, attempts=12, busy_s=2.0))


def test_a_broken_bench_is_not_asked_again() -> None:
    def measure(_: object) -> Measurement:
        raise ConnectionError("unplugged")

    inner = FunctionSource(measure)
    with pytest.raises(ConnectionError):
        RetryingSource(inner).submit(candidate(0)).result(timeout=60)
    assert len(inner.asked) == 1


def test_a_source_that_was_closed_meanwhile_is_the_answer() -> None:
    inner = ManualSource()
    source = RetryingSource(inner)
    future = source.submit(candidate(0))

    def refuse(_: object) -> None:
        raise ConnectionError("closed")

    inner.submit = refuse  # type: ignore[assignment, method-assign]
    inner.futures[0].set_result(LatencyAnswer.measured(failed(Verdict.DEVICE_LOST)))
    assert isinstance(future.exception(timeout=60), ConnectionError)


def test_at_least_one_attempt() -> None:
    with pytest.raises(ValueError, match="received 0"):
        RetryingSource(ManualSource(), attempts=0)
