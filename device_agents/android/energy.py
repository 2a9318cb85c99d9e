"""Energy of an inference on a phone: battery power while the tool runs, times the time of a run.

    /sys/class/power_supply/battery/{status, current_now, voltage_now}     ten times a second, if the shell may read it
    dumpsys battery     "status: 3", "current now: -321", "voltage: 4063"  twice a second; only Samsung prints a current

It covers the whole phone, screen and radio included, so it compares networks on one phone that is otherwise idle.
While the phone is plugged in, the battery's current says nothing about the phone's power. According to Linux
(Documentation/ABI/testing/sysfs-class-power), currents are in microamperes and voltages in microvolts; vendors differ
in the sign, and some use milliamperes and millivolts.
"""

from __future__ import annotations

import re
from statistics import fmean

SOURCE = "of the whole phone, from its battery's current and voltage"
_BATTERY = "/sys/class/power_supply/battery"
# A busy phone draws more than 10 mA and less than 10 A; the voltage of its battery is between 2.5 and 10 V.
_LEAST_MICROAMPERES, _LEAST_MICROVOLTS = 10_000, 100_000
_DISCHARGING = ("Discharging", "3")

# Writes samples for `read_power`, until the shell that started it ends.
SAMPLE = f"""
sample_power() {{
  while kill -0 $$; do
    echo sample
    if [ -r {_BATTERY}/current_now ]; then
      show {_BATTERY}/status {_BATTERY}/current_now {_BATTERY}/voltage_now
      sleep 0.1
    else
      dumpsys battery
      sleep 0.5
    fi
  done
}}
"""


def read_power(text: str) -> tuple[float | None, str]:
    """Returns the mean power in watts and what it covers, or None and the reason why it is not known.

    Args:
        text: What `SAMPLE` wrote.
    """
    samples = [_values(part) for part in text.split("sample\n")[1:]]
    # The first one is from before the tool began to work.
    samples = samples[1:] if len(samples) > 1 else samples
    if not samples:
        return None, "no sample of the battery was taken, since the tool ended at once"
    for values in samples:
        status = values.get("status", "unknown")
        if status not in _DISCHARGING:
            said = {"1": "unknown", "2": "Charging", "4": "Not charging", "5": "Full"}.get(status, status)
            return None, (
                f"the phone does not run on its battery (status {said:.40}); unplug it, and connect to it by Wi-Fi "
                "(adb://HOST:PORT)"
            )
    watts = [watt for watt in map(_watts, samples) if watt]
    if not watts:
        return None, f"the phone does not report a current to the shell ({_BATTERY}/current_now, dumpsys battery)"
    return fmean(watts), SOURCE


def _values(text: str) -> dict[str, str]:
    """Status, current and voltage of one sample, by their names in sysfs."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith(f"{_BATTERY}/"):
            name, _, value = line[len(_BATTERY) + 1 :].partition(" ")
        elif match := re.fullmatch(r"  (status|current now|voltage): (.*)", line):
            name, value = {"current now": "current_now", "voltage": "voltage_now"}.get(match[1], match[1]), match[2]
        else:
            continue
        values.setdefault(name, value.strip())
    return values


def _watts(values: dict[str, str]) -> float | None:
    numbers = [values.get(name, "") for name in ("current_now", "voltage_now")]
    if not all(re.fullmatch(r"-?\d{1,12}", number) for number in numbers):
        return None
    current, voltage = (abs(int(number)) for number in numbers)
    amperes = current / (1e6 if current >= _LEAST_MICROAMPERES else 1e3)
    volts = voltage / (1e6 if voltage >= _LEAST_MICROVOLTS else 1e3)
    return amperes * volts
