"""What every agent does around one attempt to measure: refuse hopeless files, repeat what was unsteady."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.errors import ModelFileError
from device_agents.tflite_file import inspect_model
from device_agents.verdicts import steadier


def measure_in_attempts(
    model: bytes,
    spec: BenchmarkSpec,
    attempt: Callable[[bytes, BenchmarkSpec], Measurement],
    pause_s: float = 0.0,
) -> Measurement:
    """Measures a model until it is not unsteady, at most `spec.max_attempts` times.

    Args:
        model: A TFLite file; one whose verdict needs no run is not run.
        spec: How to measure.
        attempt: Measures once.
        pause_s: Seconds to wait before the second attempt; the next waits grow by as much, because what disturbed an
            attempt is often over soon.

    Returns:
        The first attempt that was not unsteady, else the steadiest, with the number of attempts and the busy seconds
        of all of them.
    """
    refusal = _refuse(model)
    if refusal is not None:
        return refusal
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


def _refuse(model: bytes) -> Measurement | None:
    """Returns the verdict on a file that need not be run for it."""
    try:
        summary = inspect_model(model)
    except ModelFileError as error:
        return Measurement(Verdict.LOAD_FAILED, str(error))
    if summary.operators == 0:
        return Measurement(Verdict.RUN_FAILED, "the graph has no operator: nothing to time")
    return None
