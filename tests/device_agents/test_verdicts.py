from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.errors import BenchFailedError, DeviceUnavailableError
from device_agents.probe_watch import REFERENCE, Probe, ProbeWatch
from device_agents.quiet import VisitSettings, VisitTime, visits_needed
from device_agents.verdicts import (
    FLAGS,
    NEAR_ZERO_MS,
    assess,
    assess_visits,
    blames_candidate,
    is_failure,
    needed_visits,
    relative_shift,
    steadier,
    verdict_of_error,
)
from tests.support.measurements import CONDITIONS

STEADY = (1.0, 1.01, 0.99) * 10


def judged(samples: tuple[float, ...] = STEADY, spec: BenchmarkSpec | None = None, **conditions: Any) -> Measurement:
    measurement = Measurement(Verdict.OK, samples_ms=samples, conditions=replace(CONDITIONS, **conditions))
    return assess(measurement, spec or BenchmarkSpec())


def test_steady_samples_are_ok() -> None:
    assert judged().verdict is Verdict.OK
    assert judged().detail == ""


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ((1.0, 3.0) * 10, "known to"),
        ((1.0,) * 15 + (1.2,) * 15, "moved by"),
        ((1.0,) * 5, "too few"),
    ],
)
def test_scattered_shifting_or_few_samples_are_unsteady(samples: tuple[float, ...], reason: str) -> None:
    spec = BenchmarkSpec(max_relative_half_width=0.2)
    result = judged(samples, spec)
    assert result.verdict is Verdict.UNSTEADY
    assert reason in result.detail


def test_a_core_shared_with_other_programs_is_unsteady_even_if_the_samples_look_fine() -> None:
    assert judged(wait_share=0.4).verdict is Verdict.UNSTEADY
    assert "40%" in judged(wait_share=0.4).detail
    assert judged(wait_share=None).ok


def test_threads_that_outnumber_the_cores_may_wait_for_each_other() -> None:
    spec = BenchmarkSpec(threads=4)
    crowded = judged(spec=spec, cores=(0, 1), wait_share=2.0, other_load_cores=0.02)
    assert crowded.ok
    loaded = judged(spec=spec, cores=(0, 1), wait_share=2.0, other_load_cores=1.0)
    assert loaded.verdict is Verdict.UNSTEADY
    assert "50%" in loaded.detail
    assert judged(spec=BenchmarkSpec(threads=2), cores=(0, 1), wait_share=0.15).ok
    conditions = replace(CONDITIONS, cores=None, wait_share=2.0, other_load_cores=0.02)
    everywhere = Measurement(Verdict.OK, samples_ms=STEADY, conditions=conditions)
    assert assess(everywhere, spec, device_cores=2).ok
    shifting = assess(replace(everywhere, samples_ms=(1.0,) * 15 + (1.2,) * 15), spec, device_cores=2)
    assert shifting.verdict is Verdict.UNSTEADY
    assert "other programs" not in shifting.detail
    assert "4 threads share 2 cores" in shifting.detail


def test_near_zero_median_is_refused() -> None:
    result = judged((0.0005,) * 30)
    assert result.verdict is Verdict.RUN_FAILED
    assert result.latency_ms is None


def test_zero_medians_do_not_divide_by_zero() -> None:
    assert judged((0.0,) * 30).verdict is Verdict.RUN_FAILED
    assert relative_shift((0.0,) * 30) is None


def test_a_falling_clock_or_throttle_events_are_throttled() -> None:
    assert judged(cpu_mhz_before=2000.0, cpu_mhz_after=1500.0).verdict is Verdict.THROTTLED
    assert judged(throttle_events=3).verdict is Verdict.THROTTLED
    assert judged(cpu_mhz_before=2000.0, cpu_mhz_after=1900.0, throttle_events=0).ok


def test_a_required_delegate_that_took_nothing_is_a_fallback() -> None:
    strict = BenchmarkSpec(require_delegate=True)
    assert judged(spec=strict, delegate_kernels=0).verdict is Verdict.FALLBACK
    assert judged(spec=strict, delegate_kernels=1).ok
    assert judged(delegate_kernels=0).ok


def test_the_steadier_measurement_is_kept() -> None:
    wild, calm = judged((1.0, 3.0) * 10), judged()
    assert steadier(wild, calm) is calm
    assert steadier(calm, wild) is calm
    assert steadier(calm, Measurement(Verdict.TIMEOUT)) is calm


def test_what_is_just_accepted_is_ok() -> None:
    """Limits belong to what is accepted."""
    scattered = judged((1.0, 1.1) * 10)
    assert scattered.statistics is not None
    width = scattered.statistics.relative_half_width
    assert width is not None
    assert judged((1.0, 1.1) * 10, BenchmarkSpec(max_relative_half_width=width)).ok
    assert not judged((1.0, 1.1) * 10, BenchmarkSpec(max_relative_half_width=0.99 * width)).ok
    risen = (1.0,) * 15 + (1.25,) * 15
    wide = BenchmarkSpec(max_relative_half_width=1.0, max_shift=0.25)
    assert judged(risen, wide).ok
    assert not judged(risen, wide.replace(max_shift=0.24)).ok
    assert judged(wait_share=0.5, spec=BenchmarkSpec(max_wait_share=0.5)).ok
    assert judged(cpu_mhz_before=2000.0, cpu_mhz_after=1000.0, spec=BenchmarkSpec(min_clock_ratio=0.5)).ok
    assert judged((NEAR_ZERO_MS,) * 30).ok


def test_samples_that_fall_shift_as_much_as_those_that_rise() -> None:
    falling = judged((1.25,) * 15 + (1.0,) * 15, BenchmarkSpec(max_relative_half_width=1.0))
    assert falling.verdict is Verdict.UNSTEADY
    assert "-20.0%" in falling.detail


def test_a_shift_is_that_of_the_medians_of_both_halves() -> None:
    assert relative_shift((1.0,) * 11) is None
    assert relative_shift((1.0,) * 6 + (2.0,) * 6) == 1.0
    assert relative_shift((2.0,) * 6 + (1.0,) * 7) == -0.5


def test_as_many_threads_as_cores_wait_for_other_programs_only() -> None:
    waiting = judged(spec=BenchmarkSpec(threads=2), cores=(0, 1), wait_share=0.8)
    assert waiting.verdict is Verdict.UNSTEADY
    assert "waited for a core 40%" in waiting.detail
    assert "share" not in waiting.detail
    on_one = judged((1.0, 3.0) * 10, BenchmarkSpec(threads=2), cores=(0,))
    assert "2 threads share 1 core, " in on_one.detail


def test_samples_without_conditions_cannot_be_assessed_and_failures_come_first() -> None:
    nothing = assess(Measurement(Verdict.OK, samples_ms=STEADY), BenchmarkSpec())
    assert nothing.verdict is Verdict.RUN_FAILED
    assert judged((), wait_share=0.9).verdict is Verdict.RUN_FAILED
    assert judged(wait_share=0.9, throttle_events=1).verdict is Verdict.THROTTLED


def test_a_clock_that_is_not_known_before_or_after_has_not_fallen() -> None:
    assert judged(cpu_mhz_before=2000.0, cpu_mhz_after=None).ok
    assert judged(cpu_mhz_before=None, cpu_mhz_after=100.0).ok


@pytest.mark.parametrize("verdict", Verdict)
def test_only_a_latency_however_doubtful_is_no_failure(verdict: Verdict) -> None:
    fine, flagged = verdict in (Verdict.OK, Verdict.CORRECTED), verdict in FLAGS
    assert is_failure(Measurement(verdict, samples_ms=STEADY)) is not (fine or flagged)
    assert is_failure(Measurement(verdict)) is not fine


def test_a_model_is_blamed_for_what_it_does_itself() -> None:
    blamed = {verdict for verdict in Verdict if blames_candidate(verdict)}
    running = {Verdict.RUN_FAILED, Verdict.OUT_OF_MEMORY, Verdict.TIMEOUT, Verdict.FALLBACK}
    assert blamed == {Verdict.CONVERT_FAILED, Verdict.COMPILE_FAILED, Verdict.LOAD_FAILED, *running}


def test_a_broken_bench_and_a_lost_device_are_told_apart() -> None:
    assert verdict_of_error(BenchFailedError("no delegate works")) is Verdict.BENCH_FAILED
    assert verdict_of_error(DeviceUnavailableError("unplugged")) is Verdict.DEVICE_LOST


# Measurements made of visits

VISIT_SETTINGS = VisitSettings()
VISIT_SPEC = BenchmarkSpec(max_risk=0.01)


def watched(probe_ms: float = 1.0, visits: int = 20, floor_ms: float | None = 1.0, name: str = "compute") -> ProbeWatch:
    """A probe that took as long in each of so many rounds."""
    watch = ProbeWatch([Probe(name, b"P")], VISIT_SETTINGS, {} if floor_ms is None else {name: floor_ms})
    for number in range(visits):
        watch.take(name, probe_ms, number)
    return watch


def visited(*times_ms: float, watch: ProbeWatch, spec: BenchmarkSpec = VISIT_SPEC, **changes: Any) -> Measurement:
    visits = [VisitTime(time_ms, number) for number, time_ms in enumerate(times_ms)]
    measurement = Measurement(Verdict.OK, samples_ms=times_ms, conditions=replace(CONDITIONS, **changes))
    return assess_visits(measurement, visits, spec, VISIT_SETTINGS, watch)


def test_enough_visits_that_agree_are_ok() -> None:
    found = visited(2.0, 2.02, 2.04, watch=watched())
    assert (found.verdict, found.detail, found.latency_ms) == (Verdict.OK, "", 2.02)


def test_visits_have_to_agree_within_what_the_measurement_accepts() -> None:
    times_ms = (2.0, 2.2, 2.4, 2.9)
    assert visited(*times_ms, watch=watched(), spec=VISIT_SPEC.replace(max_relative_half_width=0.2)).ok
    found = visited(*times_ms, watch=watched())
    assert (found.verdict, found.quiet) == (Verdict.CONTENDED, None)
    assert found.detail == "the lowest of 4 visits do not agree"


def test_two_visits_that_nearly_agree_are_a_correction() -> None:
    found = visited(2.0, 2.1, 2.9, 2.8, watch=watched())
    assert (found.verdict, found.latency_ms) == (Verdict.CORRECTED, pytest.approx(2.05))
    assert found.detail == "only 2 of 4 visits agree"
    busy = watched(1.5)
    busy.take("compute", 1.0, 20)  # not all are slow
    many = (2.0, 2.1, *[2.9] * 300)
    assert "other programs are busy" in visited(*many, watch=busy).detail


def test_visits_that_agree_are_too_few_where_the_probes_are_disturbed() -> None:
    busy = watched(1.5)
    busy.take("compute", 1.0, 20)
    found = visited(2.0, 2.02, 2.04, watch=busy)
    assert found.verdict is Verdict.CONTENDED
    assert found.best_ms == 2.02
    assert found.detail.startswith("3 visits are too few to trust their lowest: only about ")
    assert visited(2.0, 2.02, 2.04, watch=busy, spec=VISIT_SPEC.replace(max_risk=1.0)).ok


def test_visits_while_every_probe_is_slow_are_throttled_unless_no_probe_is_asked() -> None:
    slow = watched(1.5)
    found = visited(*[2.0] * 300, watch=slow)
    assert found.verdict is Verdict.THROTTLED
    assert found.detail == "all probes took at least 1.50 times as long as when undisturbed"
    assert visited(*[2.0] * 300, watch=slow, spec=VISIT_SPEC.replace(max_risk=1.0)).ok


def test_the_reference_network_corrects_visits_that_do_not_agree() -> None:
    watch = ProbeWatch([Probe(REFERENCE, b"R")], VISIT_SETTINGS, {REFERENCE: 2.0})
    for number, time_ms in enumerate([2.0, *[2.2] * 9]):
        watch.take(REFERENCE, time_ms, number)
    found = visited(3.0, *[3.3] * 9, watch=watch)
    assert (found.verdict, found.latency_ms) == (Verdict.CORRECTED, pytest.approx(3.0))
    assert found.detail.startswith("by its ratio to the reference network; only about ")


def test_work_that_is_none_is_not_saved_by_visits_that_agree() -> None:
    assert visited(*[NEAR_ZERO_MS / 2] * 5, watch=watched()).verdict is Verdict.RUN_FAILED
    assert visited(*[2.0] * 5, watch=watched(), throttle_events=2).verdict is Verdict.THROTTLED
    strict = VISIT_SPEC.replace(require_delegate=True)
    assert visited(*[2.0] * 5, watch=watched(), spec=strict, delegate_kernels=0).verdict is Verdict.FALLBACK


def test_without_a_probe_half_of_the_visits_are_guessed_to_be_quiet() -> None:
    nobody = ProbeWatch([], VISIT_SETTINGS)
    visits = [VisitTime(2.0, number) for number in range(3)]
    assert needed_visits(visits, VISIT_SPEC, VISIT_SETTINGS, nobody) == visits_needed(0.5, 0.01, VISIT_SETTINGS) == 7
    # Of a device that was quiet the few visits needed are those that have to agree.
    assert needed_visits(visits, VISIT_SPEC, VISIT_SETTINGS, watched()) == VISIT_SETTINGS.agreeing
