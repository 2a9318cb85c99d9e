"""Energy of an inference by a phone's battery: layouts of several makers, and over the real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.energy import SOURCE, read_power
from device_agents.api import BenchmarkSpec, Verdict
from tests.support import models
from tests.support.android.agents import fast_spec
from tests.support.android.phone import start, write_overlay
from tests.support.android.phones import PIXEL
from tests.support.android.tools import canned_script, transcript, write_tool

__all__ = ["fast_spec"]  # a fixture

BATTERY = "/sys/class/power_supply/battery"


def sample(current: object, voltage: object, status: str = "Discharging") -> str:
    return f"sample\n{BATTERY}/status {status}\n{BATTERY}/current_now {current}\n{BATTERY}/voltage_now {voltage}\n"


SAMSUNG = """sample
Current Battery Service state:
  AC powered: false
  USB powered: false
  Charge counter: 0
  status: 3
  level: 84
  voltage: 4000
  temperature: 326
  current now: -250
"""


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        (sample(-500_000, 4_000_000), 2.0),  # as the documentation of Android has the sign
        (sample(500_000, 4_000_000), 2.0),  # as others have it
        (sample(500, 4_000), 2.0),  # milliamperes and millivolts
        (sample(9_000_000, 4_000_000) + sample(250_000, 4_000_000) + sample(500_000, 4_000_000), 1.5),
        (SAMSUNG, 1.0),
    ],
)
def test_the_mean_power_is_read_whatever_the_sign_and_the_unit(text: str, watts: float) -> None:
    assert read_power(text) == (pytest.approx(watts), SOURCE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the tool ended at once"),
        (sample(1_000_000, 4_000_000, "Charging"), r"does not run on its battery \(status Charging\); unplug it"),
        (sample(1_000_000, 4_000_000, "Not charging"), "status Not charging"),
        (SAMSUNG.replace("status: 3", "status: 5"), "status Full"),
        (f"sample\n{BATTERY}/status Discharging\n", "does not report a current to the shell"),
        (sample("many", "-"), "does not report a current to the shell"),
        (sample(0, 4_000_000), "does not report a current to the shell"),
        ("sample\n\x00\n", "status unknown"),
    ],
)
def test_what_is_not_known_has_a_reason_and_no_number(text: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(read_power(text)[1])
    assert read_power(text)[0] is None


def test_a_phone_on_its_battery_tells_the_energy_of_an_inference(tmp_path: Path, fast_spec: BenchmarkSpec) -> None:
    sysfs = {"status": "Discharging", "current_now": "-500000", "voltage_now": "4000000"}
    files = {f"{BATTERY[1:]}/{name}": f"{text}\n" for name, text in sysfs.items()}
    overlay = write_overlay(tmp_path / "overlay", PIXEL.texts, {**PIXEL.files, **files})
    tool = write_tool(tmp_path / "tool", canned_script(transcript("tf_2_14"), seconds=0.25))
    phone = start(overlay)
    link = AdbShellTransport.tcp("127.0.0.1", phone.port)
    try:
        with AndroidAgent(link, AndroidSettings(tool=tool), sleep=lambda s: None) as agent:
            (told,) = agent.measure_all([(models.conv_model(), fast_spec.replace(energy=True))])
            (silent,) = agent.measure_all([(models.conv_model(), fast_spec)])
    finally:
        phone.close()
    assert told.verdict is Verdict.OK, told.detail
    assert told.energy_note == SOURCE
    # 2 W for as long as the tool says that a run takes in the mean.
    assert told.energy_mj is not None
    assert told.latency_ms is not None
    assert 2.0 * told.latency_ms <= told.energy_mj < 2.0 * 10 * told.latency_ms
    assert (silent.energy_mj, silent.energy_note) == (None, "")
    assert silent.samples_ms == told.samples_ms
