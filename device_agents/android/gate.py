"""Whether a phone is in a state to be measured, and if not, why and what to do."""

from __future__ import annotations

from device_agents.android.state import CoolSettings, PhoneState, why_hot
from device_agents.api import BenchmarkSpec

# Below this, and on battery, phones lower their clocks, or are about to.
LOW_PERCENT = 15
CHARGED_PERCENT = 80


def why_weak(state: PhoneState, spec: BenchmarkSpec) -> str:
    """Returns why a phone has not the power to be measured, "" if nothing speaks against it.

    Waiting does not help here, as it does against heat.
    """
    battery = state.battery
    level = battery.level_percent
    if state.low_power:
        return "its battery saver is on, which lowers the clocks; plug it in and switch the saver off"
    if level is not None and level < LOW_PERCENT and battery.plugged is False:
        return f"its battery is at {level}% and it is not plugged in; charge it"
    if not spec.require_charged:
        return ""
    if battery.faked:
        return "its battery shows values set by hand; run `adb shell dumpsys battery reset`"
    if level is None or battery.plugged is None:
        return "it does not say how its battery is; leave out --require-charged"
    if not battery.plugged:
        return f"it is not plugged in (battery at {level}%); plug it in"
    if level < CHARGED_PERCENT:
        return f"its battery is at {level}%, below {CHARGED_PERCENT}%; charge it"
    return ""


def why_not_cool(state: PhoneState, cool: CoolSettings, spec: BenchmarkSpec) -> str:
    """Returns why a phone is too hot to be measured, "" if it is not.

    One that says nothing of its temperature is not, unless it has to be known.
    """
    hot = why_hot(state, cool)
    if not hot and spec.require_cool and state.thermal_status is None and state.hottest_c() is None:
        return "it does not say how warm it is; leave out --require-cool"
    return hot
