"""Reads the state of the device: clocks, temperature, load. Linux; elsewhere mostly None.

Every read tolerates a file that is missing, forbidden or strange: boards, containers and
phones each lack some of them. Paths are under `root` so that tests can supply their own.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path("/")
_PLAUSIBLE_C = (1.0, 150.0)


def snapshot(cores: tuple[int, ...] | None, root: Path = ROOT) -> dict[str, Any]:
    """Returns the present state as JSON values; what cannot be known is None.

    Args:
        cores: CPU ids in use, or None for those the process may run on.
        root: Where /proc and /sys are.

    Returns:
        clock_s (monotonic), cpu_mhz, governor, temperature_c, throttle_events,
        load_average, busy_s (seconds those cores were busy since boot), own_s (CPU
        seconds of this process), wait_s (seconds its threads waited for a core).
    """
    ids = cores or allowed_cores() or ()
    return {
        "clock_s": time.perf_counter(),
        "cpu_mhz": cpu_mhz(ids, root),
        "governor": governor(ids, root),
        "temperature_c": temperature_c(root),
        "throttle_events": throttle_events(ids, root),
        "load_average": load_average(root),
        "busy_s": busy_s(ids, root),
        "own_s": time.process_time(),
        "wait_s": wait_s(root),
    }


def allowed_cores() -> tuple[int, ...] | None:
    """Returns the CPU ids this process may run on, None if the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return tuple(sorted(os.sched_getaffinity(0)))


def describe(root: Path = ROOT) -> dict[str, Any]:
    """Returns what this machine is, as JSON values.

    Returns:
        model (of the board or the CPU), soc (instruction set), cores (how many may be used), memory_bytes, os,
        capacities (of the usable CPUs by id; empty where the system does not tell them apart).
    """
    cores = allowed_cores() or ()
    return {
        "model": cpu_model(root),
        "soc": platform.machine() or "unknown",
        "cores": len(cores) or os.cpu_count() or 1,
        "memory_bytes": physical_memory_bytes(),
        # The patch level of a kernel does not make two machines different devices.
        "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "capacities": {str(core): capacity for core, capacity in cpu_capacities(cores, root).items()},
    }


def cpu_model(root: Path = ROOT) -> str:
    """Returns the name of the board, or else of its CPU."""
    for name, pattern in (
        ("proc/device-tree/model", r"^(?P<model>[^\0\n]+)"),
        ("proc/cpuinfo", r"^model name\s*:\s*(?P<model>.+)$"),
    ):
        match = re.search(pattern, _read_text(root / name) or "", re.MULTILINE)
        if match:
            return match.group("model").strip()
    return platform.processor() or "unknown CPU"


def cpu_capacities(cores: Iterable[int], root: Path = ROOT) -> dict[int, int]:
    """Returns how fast the CPUs are, relative to each other, as far as the kernel says."""
    readings = {core: _read_number(root / f"sys/devices/system/cpu/cpu{core}/cpu_capacity") for core in cores}
    return {core: int(reading) for core, reading in readings.items() if reading is not None}


def physical_memory_bytes() -> int | None:
    """Returns the physical memory, None if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def temperature_c(root: Path = ROOT) -> float | None:
    """Returns the hottest plausible sensor in degrees Celsius."""
    files = [*root.glob("sys/class/thermal/thermal_zone*/temp")]
    files += root.glob("sys/class/hwmon/hwmon*/temp*_input")
    readings = [_celsius(value) for value in map(_read_number, files) if value is not None]
    low, high = _PLAUSIBLE_C
    return max((t for t in readings if low <= t <= high), default=None)


def _celsius(value: float) -> float:
    # Kernels report millidegrees; some vendors tenths or whole degrees.
    if value >= 1000:
        return value / 1000
    return value / 10 if value > _PLAUSIBLE_C[1] else value


def governor(cores: Iterable[int], root: Path = ROOT) -> str | None:
    """Returns the frequency governor of the cores, several joined by commas."""
    names = {_read_text(folder / "scaling_governor") for folder in _cpufreq(cores, root)}
    return ",".join(sorted(name for name in names if name)) or None


def cpu_mhz(cores: Iterable[int], root: Path = ROOT) -> float | None:
    """Returns the mean present clock of the cores in MHz."""
    values = [_read_number(folder / "scaling_cur_freq") for folder in _cpufreq(cores, root)]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) / 1000 if known else None


def _cpufreq(cores: Iterable[int], root: Path) -> Iterator[Path]:
    for core in cores:
        yield root / f"sys/devices/system/cpu/cpu{core}/cpufreq"


def throttle_events(cores: Iterable[int], root: Path = ROOT) -> int | None:
    """Returns how often the cores were throttled since boot."""
    folder = root / "sys/devices/system/cpu"
    files = [folder / f"cpu{core}/thermal_throttle/core_throttle_count" for core in cores]
    known = [value for value in map(_read_number, files) if value is not None]
    return int(sum(known)) if known else None


def load_average(root: Path = ROOT) -> float | None:
    """Returns the one-minute load average."""
    text = _read_text(root / "proc/loadavg")
    return _to_number(text.split()[0]) if text else None


def busy_s(cores: Iterable[int], root: Path = ROOT) -> float | None:
    """Returns the seconds the cores were busy since boot, time stolen by a host included."""
    wanted = {f"cpu{core}" for core in cores}
    total, seen = 0.0, 0
    for line in (_read_text(root / "proc/stat") or "").splitlines():
        name, *ticks = line.split()
        if name in wanted and len(ticks) >= 8 and all(tick.isdigit() for tick in ticks):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
            seen += 1
    return total / os.sysconf("SC_CLK_TCK") if seen else None


def wait_s(root: Path = ROOT) -> float | None:
    """Returns the seconds the threads of this process were runnable but had no core."""
    texts = [_read_text(file) for file in (root / "proc/self/task").glob("*/schedstat")]
    fields = [text.split() for text in texts if text]
    waits = [int(parts[1]) for parts in fields if len(parts) == 3 and parts[1].isdigit()]
    return sum(waits) / 1e9 if waits else None


def memory_bytes(field: str, root: Path = ROOT) -> int | None:
    """Returns a size out of /proc/self/status, for example VmRSS, VmHWM or VmData."""
    status = _read_text(root / "proc/self/status") or ""
    match = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def reset_peak_memory(root: Path = ROOT) -> bool:
    """Makes VmHWM start again from the present; returns whether the system let us."""
    try:
        (root / "proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _read_number(path: Path) -> float | None:
    text = _read_text(path)
    return _to_number(text) if text else None


def _to_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -1e12 < value < 1e12 else None
