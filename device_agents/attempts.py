"""What every agent does around one attempt to measure.

    refuse hopeless files -> attempts until steady -> failed? examine the bench -> again -> believe it

A failure is held against a model only when it happens twice and the bench is sound after each. What else is wrong is
the bench's: it is repaired and the model measured again, or the agent says so and names what is broken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.errors import BenchFailedError, DeviceUnavailableError, ModelFileError
from device_agents.probe_models import compute_model
from device_agents.tflite_file import inspect_model
from device_agents.verdicts import blames_candidate, steadier

# How often a bench that keeps failing is repaired before it is given up.
MAX_BENCH_FAULTS = 3
# A sign of life is all that is wanted: one run on the CPU, which every build can do.
_PROBE = BenchmarkSpec(
    min_runs=1,
    max_runs=1,
    min_duration_s=0.0,
    max_duration_s=1.0,
    warmup_min_runs=1,
    warmup_min_duration_s=0.0,
    warmup_max_duration_s=1.0,
    max_relative_half_width=100.0,
    max_attempts=1,
    timeout_s=30.0,
)
Attempt = Callable[[bytes, BenchmarkSpec], Measurement]


def measure_fairly(
    model: bytes,
    spec: BenchmarkSpec,
    attempt: Attempt,
    examine: Callable[[Measurement], str],
    pause_s: float = 0.0,
) -> Measurement:
    """Measures a model, and believes it guilty only if the bench is not.

    Args:
        model: A TFLite file; one that need not be run to be assessed is not.
        spec: How to measure.
        attempt: Measures once.
        examine: Is given a failure that would be the model's; returns what is wrong with the bench, having prepared
            its repair, or "" if it is sound. It is asked only then, so that what works costs nothing more.
        pause_s: See `measure_in_attempts`.

    Raises:
        BenchFailedError: If the bench does not work, in the words of `examine`.
    """
    refusal = refuse(model)
    if refusal is not None:
        return refusal
    attempts, busy_s, suspected, bench_faults = 0, 0.0, False, 0
    while True:
        latest = measure_in_attempts(model, spec, attempt, pause_s)
        attempts, busy_s = attempts + latest.attempts, busy_s + latest.busy_s
        latest = replace(latest, attempts=attempts, busy_s=busy_s)
        if not blames_candidate(latest.verdict):
            return latest
        problem = examine(latest)
        if not problem and suspected:
            return latest
        suspected = not problem
        bench_faults += bool(problem)
        if bench_faults >= MAX_BENCH_FAULTS:
            raise BenchFailedError(problem)


def probe(attempt: Attempt, threads: int = 1) -> str:
    """Measures a model that is known to work; returns why that fails, "" if it does not or cannot be tried.

    Args:
        attempt: Measures once.
        threads: With how many threads.
    """
    try:
        model = compute_model()
    except DeviceUnavailableError:
        return ""
    measurement = attempt(model, _PROBE.replace(threads=threads))
    if measurement.samples_ms and not blames_candidate(measurement.verdict):
        return ""
    return f"{measurement.verdict}: {measurement.detail}"


def measure_in_attempts(
    model: bytes,
    spec: BenchmarkSpec,
    attempt: Attempt,
    pause_s: float = 0.0,
) -> Measurement:
    """Measures a model until it is not unsteady, at most `spec.max_attempts` times.

    Args:
        model: A TFLite file.
        spec: How to measure.
        attempt: Measures once.
        pause_s: Seconds to wait before the second attempt; the next waits grow by as much, because what disturbed an
            attempt is often over soon.

    Returns:
        The first attempt that was not unsteady, else the steadiest, with the number of attempts and the busy seconds
        of all of them.
    """
    best: Measurement | None = None
    busy_s = 0.0
    for number in range(1, spec.max_attempts + 1):
        if pause_s:
            time.sleep(pause_s * (number - 1))
        latest = attempt(model, spec)
        busy_s += latest.busy_s
        best = latest if best is None or latest.ok else steadier(best, latest)
        best = replace(best, attempts=number, busy_s=busy_s)
        if latest.verdict is not Verdict.UNSTEADY:
            return replace(latest, attempts=number, busy_s=busy_s)
    assert best is not None
    return best


def refuse(model: bytes) -> Measurement | None:
    """Returns the verdict on a file that need not be run for it."""
    try:
        summary = inspect_model(model)
    except ModelFileError as error:
        return Measurement(Verdict.LOAD_FAILED, str(error))
    if summary.operators == 0:
        return Measurement(Verdict.RUN_FAILED, "the graph has no operator: nothing to time")
    return None
