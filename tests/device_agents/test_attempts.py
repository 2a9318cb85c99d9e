"""When a model is measured again and who is blamed, with attempts made up; see `device_agents.attempts`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from device_agents import attempts
from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.attempts import MAX_BENCH_FAULTS, measure_fairly, measure_in_attempts, probe, refuse
from device_agents.errors import BenchFailedError, DeviceUnavailableError
from device_agents.probe_models import compute_model
from tests.support import models

SPEC = BenchmarkSpec(max_attempts=3)
MODEL = models.binary_model()
FAILED, FINE = Measurement(Verdict.RUN_FAILED, "crashed", busy_s=1.0), Measurement(Verdict.OK, busy_s=2.0)
WIDE = Measurement(Verdict.UNSTEADY, "wide", (1.0, 3.0) * 10, busy_s=0.5)
NARROW = Measurement(Verdict.UNSTEADY, "narrow", (1.0, 1.2) * 10, busy_s=0.25)


def one_by_one(answers: Iterable[Any]) -> Callable[..., Any]:
    left = iter(answers)
    return lambda *_: next(left)


def sound(_: Measurement) -> str:
    return ""


def test_a_file_that_needs_no_run_to_be_assessed_has_none() -> None:
    nothing = one_by_one([])
    broken = measure_fairly(b"no model", SPEC, nothing, sound)
    assert (broken.verdict, broken.attempts) == (Verdict.LOAD_FAILED, 1)
    assert broken.detail
    graph = models.GraphWriter()
    tensor = graph.tensor("x", (1, 4))
    assert measure_fairly(graph.pack([tensor], [tensor]), SPEC, nothing, sound).verdict is Verdict.RUN_FAILED
    assert refuse(MODEL) is None


def test_an_attempt_that_is_not_unsteady_is_the_last() -> None:
    asked = []

    def attempt(model: bytes, spec: BenchmarkSpec) -> Measurement:
        asked.append((model, spec))
        return FINE

    found = measure_in_attempts(MODEL, SPEC, attempt)
    assert (found.verdict, found.attempts, found.busy_s) == (Verdict.OK, 1, 2.0)
    assert asked == [(MODEL, SPEC)]


def test_an_attempt_that_fails_after_an_unsteady_one_is_the_answer() -> None:
    found = measure_in_attempts(MODEL, SPEC, one_by_one([WIDE, FAILED]))
    assert (found.verdict, found.attempts, found.busy_s) == (Verdict.RUN_FAILED, 2, 1.5)


@pytest.mark.parametrize("answers", [[WIDE, NARROW, WIDE], [NARROW, WIDE, WIDE], [WIDE, WIDE, NARROW]])
def test_of_attempts_that_are_all_unsteady_the_steadiest_is_the_answer(answers: list[Measurement]) -> None:
    found = measure_in_attempts(MODEL, SPEC, one_by_one(answers))
    assert (found.verdict, found.detail, found.attempts) == (Verdict.UNSTEADY, "narrow", 3)
    assert found.busy_s == 1.25


def test_every_further_attempt_is_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    slept_s: list[float] = []
    monkeypatch.setattr(time, "sleep", slept_s.append)
    measure_in_attempts(MODEL, SPEC, one_by_one([WIDE] * 3), pause_s=2.0)
    assert [seconds for seconds in slept_s if seconds] == [2.0, 4.0]
    slept_s.clear()
    measure_fairly(MODEL, SPEC, one_by_one([WIDE] * 3), sound, pause_s=2.0)
    assert [seconds for seconds in slept_s if seconds] == [2.0, 4.0]
    slept_s.clear()
    measure_in_attempts(MODEL, SPEC, one_by_one([WIDE] * 3))
    assert slept_s == []


def test_a_model_is_blamed_only_when_it_fails_twice_on_a_sound_bench() -> None:
    examined: list[Measurement] = []

    def examine(failure: Measurement) -> str:
        examined.append(failure)
        return ""

    found = measure_fairly(MODEL, SPEC, one_by_one([FAILED, FAILED]), examine)
    assert (found.verdict, found.attempts, found.busy_s) == (Verdict.RUN_FAILED, 2, 2.0)
    assert [one.detail for one in examined] == ["crashed"] * 2
    found = measure_fairly(MODEL, SPEC, one_by_one([FAILED, FINE]), examine)
    assert (found.verdict, found.attempts, found.busy_s) == (Verdict.OK, 2, 3.0)


def test_what_is_not_the_models_fault_is_not_examined() -> None:
    found = measure_fairly(MODEL, SPEC, one_by_one([Measurement(Verdict.DEVICE_LOST)]), one_by_one([]))
    assert found.verdict is Verdict.DEVICE_LOST


def test_a_bench_that_was_repaired_clears_the_model_of_suspicion() -> None:
    examine = one_by_one(["", "the worker was gone", "", ""])
    found = measure_fairly(MODEL, SPEC, one_by_one([FAILED] * 4), examine)
    assert (found.verdict, found.attempts) == (Verdict.RUN_FAILED, 4)


def test_a_bench_that_keeps_failing_is_given_up_in_the_words_of_who_examined_it() -> None:
    problems = [f"problem {number}" for number in range(1, MAX_BENCH_FAULTS + 1)]
    with pytest.raises(BenchFailedError, match=problems[-1]):
        measure_fairly(MODEL, SPEC, one_by_one([FAILED] * MAX_BENCH_FAULTS), one_by_one(problems))
    examine = one_by_one(["repaired"] * (MAX_BENCH_FAULTS - 1))
    found = measure_fairly(MODEL, SPEC, one_by_one([FAILED] * (MAX_BENCH_FAULTS - 1) + [FINE]), examine)
    assert (found.verdict, found.attempts) == (Verdict.OK, MAX_BENCH_FAULTS)


def test_a_bench_on_which_the_probe_runs_is_sound() -> None:
    asked = []

    def attempt(model: bytes, spec: BenchmarkSpec) -> Measurement:
        asked.append((model, spec))
        return Measurement(Verdict.UNSTEADY, "one run only", (1.0,))

    assert probe(attempt, threads=3) == ""
    ((model, spec),) = asked
    assert (model, spec.threads) == (compute_model(), 3)
    # One run after one of warm-up, whatever it takes.
    assert (spec.min_runs, spec.max_runs, spec.warmup_min_runs, spec.max_attempts) == (1, 1, 1, 1)
    assert (spec.min_duration_s, spec.warmup_min_duration_s) == (0.0, 0.0)
    assert max(spec.max_duration_s, spec.warmup_max_duration_s) <= 1.0
    assert spec.timeout_s == 30.0
    assert spec.max_relative_half_width >= 100.0


@pytest.mark.parametrize(
    "failure", [Measurement(Verdict.DEVICE_LOST, "unplugged"), Measurement(Verdict.FALLBACK, "on the CPU", (1.0,))]
)
def test_a_bench_on_which_the_probe_fails_is_told_why(failure: Measurement) -> None:
    assert probe(lambda model, spec: failure) == f"{failure.verdict}: {failure.detail}"


def test_a_probe_that_cannot_be_made_here_accuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> bytes:
        raise DeviceUnavailableError("no schema")

    monkeypatch.setattr(attempts, "compute_model", unavailable)
    assert probe(one_by_one([])) == ""
