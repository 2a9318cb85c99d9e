from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.verdicts import assess, relative_shift, steadier
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
