"""What every doctor of a device ends with: a small model is measured twice."""

from __future__ import annotations

from device_agents.api import PRESETS, DeviceAgent, Measurement
from device_agents.checks import Check
from device_agents.errors import DeviceError
from device_agents.probe_models import compute_model
from device_agents.verdicts import FLAGS
from device_agents.wording import what_happened

# What is promised of a quiet device. Where it is not quiet, measuring in visits still works; how well, noise tells.
_REPEATS_WITHIN = 0.05


def check_measuring(agent: DeviceAgent, fix: str = "see the other points") -> list[Check]:
    """Measures a small model twice, each time in one go: whether that works, and whether both agree.

    Args:
        agent: The device.
        fix: What to do where it does not work.
    """
    try:
        first, second = (agent.measure(compute_model(), PRESETS["search"]) for _ in range(2))
    except DeviceError as error:
        return [failed("measuring", error, fix)]
    checks = [_check_measurement(second if first.ok else first, fix)]
    if first.statistics is None or second.statistics is None:
        return checks
    one_ms, other_ms = first.statistics.median_ms, second.statistics.median_ms
    difference = abs(one_ms - other_ms) / min(one_ms, other_ms)
    found = f"{one_ms:.3f} and {other_ms:.3f} ms for the same model, {difference:.1%} apart"
    if difference <= _REPEATS_WITHIN:
        return [*checks, Check("repeatability", "pass", found)]
    advice = "close other programs, let it cool, fix its clock if it can be, and try again"
    return [*checks, Check("repeatability", "warn", found, advice)]


def _check_measurement(measurement: Measurement, fix: str) -> Check:
    if measurement.ok:
        where = measurement.conditions
        cores = "any core" if where is None or where.cores is None else f"cores {','.join(map(str, where.cores))}"
        return Check("measuring", "pass", f"{len(measurement.samples_ms)} samples on {cores}")
    found = f"{measurement.verdict}: {measurement.detail}"
    if measurement.verdict in FLAGS:
        return Check("measuring", "warn", found, "see the other points; measured again, it may be steady")
    return Check("measuring", "fail", found, fix)


def failed(name: str, error: DeviceError, fix: str = "see the other points") -> Check:
    """Returns the failed check an error makes.

    Args:
        name: Of the check.
        error: What happened.
        fix: What to do where the error does not say it.
    """
    return Check(name, "fail", what_happened(error), error.fix or fix)
