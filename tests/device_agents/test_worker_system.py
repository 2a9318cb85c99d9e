from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_agents.worker import system


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_bare_system_knows_nothing_and_raises_nothing(tmp_path: Path) -> None:
    state = system.snapshot((0,), tmp_path)
    known = {name for name, value in state.items() if value is not None}
    assert known == {"clock_s", "own_s"}
    assert system.memory_bytes("VmRSS", tmp_path) is None
    assert not system.reset_peak_memory(tmp_path)


@pytest.mark.parametrize(
    ("text", "celsius"),
    [("41000", 41.0), ("415", 41.5), ("41", 41.0), ("0", None), ("-5700", None), ("hot", None)],
)
def test_temperature_units_are_told_apart(tmp_path: Path, text: str, celsius: float | None) -> None:
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": text})
    assert system.temperature_c(tmp_path) == celsius


def test_the_hottest_sensor_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "41000\n",
            "sys/class/hwmon/hwmon1/temp2_input": "62500\n",
        },
    )
    assert system.temperature_c(tmp_path) == 62.5


def test_clocks_and_governors_of_the_used_cores_are_read(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    write(
        tmp_path,
        {
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave",
            f"{cpu}/cpu4/cpufreq/scaling_governor": "schedutil",
            f"{cpu}/cpu4/cpufreq/scaling_cur_freq": "2000000",
            f"{cpu}/cpu5/cpufreq/scaling_cur_freq": "1000000",
            f"{cpu}/cpu5/thermal_throttle/core_throttle_count": "3",
        },
    )
    assert system.governor((4, 5), tmp_path) == "schedutil"
    assert system.cpu_mhz((4, 5), tmp_path) == 1500.0
    assert system.throttle_events((4, 5), tmp_path) == 3
    assert system.cpu_mhz((0,), tmp_path) is None


def test_busy_time_counts_the_used_cores_and_stolen_time_but_not_idling(tmp_path: Path) -> None:
    stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 50 900 10 0 0 50 0 0\ncpu1 7 0 0 1 1 1 1 1 0 0\n"
    write(tmp_path, {"proc/stat": stat, "proc/loadavg": "1.50 0.7 0.3 2/300 999\n"})
    assert system.busy_s((0,), tmp_path) == 200 / os.sysconf("SC_CLK_TCK")
    assert system.load_average(tmp_path) == 1.5


def test_waiting_is_summed_over_threads(tmp_path: Path) -> None:
    tasks = "proc/self/task"
    write(
        tmp_path,
        {
            f"{tasks}/1/schedstat": "5000 1000000000 7",
            f"{tasks}/2/schedstat": "5000 500000000 7",
            f"{tasks}/3/schedstat": "strange",
        },
    )
    assert system.wait_s(tmp_path) == 1.5
