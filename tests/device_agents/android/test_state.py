"""Reading what phones print: parsers on texts, and the script run by a phone's own shell and tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.state import (
    CoolSettings,
    PhoneIdentity,
    PhoneState,
    big_cores,
    core_mask,
    identity_of,
    little_cores,
    read_battery,
    read_cpu_list,
    read_phone,
    read_quick_state,
    read_thermal_service,
    read_zones,
    split_sections,
    state_of,
    why_hot,
    why_throttled,
)
from tests.support.android.phone import start, write_overlay
from tests.support.android.phones import OLD, PIXEL, SAMSUNG, SILENT, PhoneTexts

Asked = tuple[PhoneIdentity, PhoneState]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[[PhoneTexts], Asked]:
    """Runs the script on a stand-in of a phone."""

    def ask(texts: PhoneTexts) -> Asked:
        phone = start(write_overlay(tmp_path_factory.mktemp("phone") / "overlay", texts.texts, texts.files))
        try:
            with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
                return read_phone(link)
        finally:
            phone.close()

    return ask


def test_a_pixel_is_understood(ask: Callable[[PhoneTexts], Asked]) -> None:
    identity, state = ask(PIXEL)
    assert (identity.model, identity.soc, identity.abi) == ("Google Pixel 6 Pro", "Tensor", "arm64-v8a")
    assert (identity.android, identity.sdk) == ("14", 34)
    assert identity.build.startswith("google/raven")
    assert identity.memory_bytes is not None
    assert identity.cpus == tuple(range(8))
    assert (big_cores(identity, state), little_cores(identity, state)) == ((6, 7), (0, 1, 2, 3))
    assert state.thermal_status == 0
    assert {t.name: t.celsius for t in state.temperatures} == {"BIG": 44.800003, "VIRTUAL-SKIN": 31.793081}
    assert (state.battery.level_percent, state.battery.celsius, state.battery.plugged) == (87, 27.4, True)
    assert (state.awake, state.low_power, state.airplane) == (True, False, False)
    assert state.governor((6, 7)) == "schedutil"
    assert state.limit_mhz((4, 6)) == (2253 + 2802) / 2
    assert state.load_average is not None
    assert state.available_memory_bytes is not None
    assert state.free_storage_bytes is not None


def test_a_samsung_is_understood(ask: Callable[[PhoneTexts], Asked]) -> None:
    identity, state = ask(SAMSUNG)
    # The fastest core is off, and there are no capacities to go by.
    assert big_cores(identity, state) == (4, 5, 6)
    assert (identity.model, identity.soc) == ("samsung SM-S901B", "s5e9925")
    assert state.thermal_status == 1
    assert state.hottest_c() == 39.5
    assert state.battery.faked
    assert (state.battery.level_percent, state.battery.celsius, state.battery.plugged) == (82, 33.1, False)
    assert (state.awake, state.low_power, state.airplane) == (False, True, False)
    assert why_hot(state, CoolSettings()) == "thermal status light"
    assert why_hot(state, CoolSettings(max_status=1)) == "skin at 39.5 degrees Celsius, above 38"


def test_an_old_phone_is_understood(ask: Callable[[PhoneTexts], Asked]) -> None:
    identity, state = ask(OLD)
    assert (identity.model, identity.soc) == ("HTC 10", "MT6797")
    assert state.thermal_status is None
    assert {(t.name, t.kind, t.celsius) for t in state.temperatures} == {
        ("mtktscpu", "CPU", 41.25),
        ("battery", "BATTERY", 30.5),
        ("tsens_tz_sensor0", "CPU", 39.0),
    }
    assert state.awake is None
    assert state.low_power is False  # never set
    assert why_hot(state, CoolSettings()) == ""


def test_a_phone_that_says_nothing_is_no_error(ask: Callable[[PhoneTexts], Asked]) -> None:
    identity, state = ask(SILENT)
    assert (identity.model, identity.soc, identity.capacities) == ("", "", ())
    assert (state.policies, state.temperatures, state.thermal_status, state.battery.level_percent) == (
        (),
        (),
        None,
        None,
    )
    assert big_cores(identity, state) == ()
    assert why_hot(state, CoolSettings()) == ""


def test_the_quick_look_is_quick(link: AdbShellTransport) -> None:
    state = read_quick_state(link)
    assert state.thermal_status == 0
    assert len(state.policies) == 3
    assert state.battery.level_percent is None


def test_permission_denied_everywhere_is_no_error() -> None:
    denied = "\n".join(
        f"@@ {name}\ncat: /sys/x: Permission denied" for name in ("getprop", "cpus", "policies", "zones")
    )
    sections = split_sections(denied)
    assert identity_of(sections) == PhoneIdentity()
    assert state_of(sections) == PhoneState()


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    overlay = write_overlay(tmp_path / "overlay", PIXEL.texts, PIXEL.files)
    for name in PIXEL.files:
        if name.endswith(("scaling_governor", "scaling_max_freq", "cpu_capacity", "temp", "online")):
            (overlay / name).unlink()
            (overlay / name).mkdir()  # the daemon's user may read any file, but no folder as one
    phone = start(overlay)
    try:
        with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
            identity, state = read_phone(link)
    finally:
        phone.close()
    assert identity.model == "Google Pixel 6 Pro"
    assert identity.capacities == ()
    assert {(policy.governor, policy.limit_khz, policy.most_khz) for policy in state.policies} == {
        (None, None, 1_803_000),
        (None, None, 2_253_000),
        (None, None, 2_802_000),
    }
    assert big_cores(identity, state) == (6, 7)
    assert (state.online, state.battery.level_percent, state.thermal_status) == (None, 87, 0)


@pytest.mark.parametrize(
    ("text", "ids"),
    [("0-3", (0, 1, 2, 3)), ("4 5", (4, 5)), ("0,2-3", (0, 2, 3)), ("", ()), ("x", ()), ("0-", ()), ("3-1", ())],
)
def test_cpu_lists(text: str, ids: tuple[int, ...]) -> None:
    assert read_cpu_list(text) == ids


def test_masks_are_what_taskset_takes() -> None:
    assert (core_mask((4, 5, 6, 7)), core_mask((0,)), core_mask((0, 0, 9))) == ("f0", "1", "201")


def test_without_a_hal_the_zones_are_read() -> None:
    service = ["Thermal Status: 0", "Cached temperatures:", "\tTemperature{mValue=37.0, mType=3, mName=S, mStatus=0}"]
    assert read_thermal_service([*service, "HAL Ready: false"]) == (0, ())


@pytest.mark.parametrize("line", ["Thermal Status: 99", "Thermal Status: x", "Thermal Status: -1"])
def test_a_status_that_does_not_exist_is_unknown(line: str) -> None:
    assert read_thermal_service([line])[0] is None


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    lines = text.splitlines()
    read_thermal_service(["Current temperatures from HAL:", *lines])
    read_battery(lines)
    read_zones([f"/sys/class/thermal/thermal_zone0/temp {text}"])
    sections = split_sections(
        "\n".join(f"@@ {name}\n{text}" for name in ("cpus", "policies", "load", "storage", "power"))
    )
    state_of(sections)
    identity_of(sections)


# Heat


def state(status: int | None = 0, limit_khz: int = 2_000_000) -> PhoneState:
    lines = [f"/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq {limit_khz}"]
    return state_of({"thermalservice": [f"Thermal Status: {status}"], "policies": lines})


def test_heat_between_two_looks_is_throttling() -> None:
    assert why_throttled(state(), state(), (0,)) == ""
    assert "rose to moderate" in why_throttled(state(), state(2), (0,))
    assert "fell from 2000 to 1500 MHz" in why_throttled(state(), state(limit_khz=1_500_000), (0,))
    # Of other cores, or unknown before.
    assert why_throttled(state(), state(limit_khz=1_500_000), (5,)) == ""
    assert why_throttled(PhoneState(), state(), (0,)) == ""


def test_the_overlay_is_what_the_phone_shows(link: AdbShellTransport, overlay: Path) -> None:
    assert link.run(["getprop", "ro.soc.model"]).output == "Tensor\n"
    assert link.run(["getprop", "ro.unset"]).output == "\n"
    assert link.run(["settings", "get", "global", "unset"]).output == "null\n"


def test_numbers_of_any_length_are_read_without_an_error() -> None:
    many = "1" * 5000
    assert read_thermal_service([f"Thermal Status: {many}"])[0] is None
    sensor = f"\tTemperature{{mValue=40.0, mType={many}, mName=a, mStatus=0}}"
    assert read_thermal_service(["Current temperatures from HAL:", sensor])[1] == ()
    assert read_cpu_list("0-9999," * 200_000) == ()
