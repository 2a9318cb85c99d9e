"""Whether two CPUs of this machine share a core: one is burnt while the other is measured.

What the system says of its topology is compared with it: virtual machines often say nothing, or what is not so.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from device_agents.api import BenchmarkSpec, DeviceAgent, parse_cores, quantile
from device_agents.checks import Check
from device_agents.errors import SpecError
from device_agents.probe_models import compute_model
from device_agents.quiet import VisitSettings, time_of
from device_agents.worker.system import busy_s

# A CPU beside a busy one of the same core takes 1.3 to 2 times as long; beside one of another core, its clock may fall.
_SHARED, _SLOWED = 1.25, 1.10
_MOST_USED = 0.3
_BLOCKS, _VISITS = 5, 4
_SETTLE_S = 0.01
_LONGEST_S = 60.0
# It ends with the process that started it, even while it is stopped: 1 is PR_SET_PDEATHSIG, 9 is SIGKILL.
_BURN = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(1, 9)
parent, end_s = int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
os.sched_setaffinity(0, {int(sys.argv[1])})
import numpy
values = numpy.ones((64, 64), numpy.float32)
print(flush=True)
while os.getppid() == parent and time.monotonic() < end_s:
    for _ in range(100):
        values @ values
"""
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}


@dataclass(frozen=True)
class CorePair:
    """Two CPUs of this machine.

    Attributes:
        measured: The one that models are measured on.
        other: Another.
        ratio: Time of the compute probe on the first while the second is busy, over that while it is idle; None if it
            could not be measured.
        listed: Whether the system calls them siblings; None if it does not say.
        used_share: Share of the time in which other programs used the second one while it was to be idle; None if not
            known.
    """

    measured: int
    other: int
    ratio: float | None
    listed: bool | None
    used_share: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether the ratio says something: one that was never idle would slow the other all the time."""
        if self.ratio is None:
            return False
        return self.ratio >= _SHARED or self.used_share is None or self.used_share <= _MOST_USED


def listed_siblings(core: int, root: Path = Path("/")) -> tuple[int, ...] | None:
    """Returns the CPUs that share a core with one, itself included, as the system says; None if it does not.

    Args:
        core: CPU id.
        root: Where /sys is; tests may supply their own.
    """
    folder = root / f"sys/devices/system/cpu/cpu{core}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):
        with suppress(OSError, ValueError, SpecError):
            siblings = parse_cores((folder / name).read_text(encoding="ascii").strip())
            if not isinstance(siblings, str) and core in siblings:
                return siblings
    return None


def watch_pair(agent: DeviceAgent, spec: BenchmarkSpec, usable: Sequence[int], root: Path = Path("/")) -> CorePair:
    """Burns a CPU while another is measured, in turns with leaving it idle.

    Args:
        agent: This machine.
        spec: How candidates will be measured; pinned to the CPU that is measured.
        usable: CPU ids that this process may use, at least two. The system's sibling of the measured one is taken, or
            else the nearest.
        root: Where /sys is; tests may supply their own.

    Raises:
        DeviceError: If the bench itself is broken.
    """
    assert spec.cores
    measured = spec.cores[-1]
    siblings = listed_siblings(measured, root)
    others = sorted((core for core in usable if core not in spec.cores), key=lambda core: abs(core - measured))
    other = next((core for core in others if core in (siblings or ())), others[0])
    listed = None if siblings is None else other in siblings
    visit = VisitSettings().of_visit(spec.replace(threads=1, cores=(measured,)))
    times_ms: dict[bool, list[float]] = {False: [], True: []}
    used_s, idle_s = 0.0, 0.0
    with _burner(other) as burn:
        if burn is None:
            return CorePair(measured, other, None, listed)
        for block in range(2 * _BLOCKS):
            is_burning = block % 2 == 1
            burn(is_burning)
            started_s, used_before_s = time.monotonic(), _busy_s(other, root)
            for measurement in agent.measure_all([(compute_model(), visit)] * _VISITS):
                if measurement.samples_ms:
                    times_ms[is_burning].append(time_of(measurement.samples_ms, VisitSettings()))
            if not is_burning:
                used_s += _busy_s(other, root) - used_before_s
                idle_s += time.monotonic() - started_s
    used_share = None if math.isnan(used_s) else used_s / idle_s
    # What else disturbs only adds time, to both.
    idle_ms, burning_ms = (quantile(sorted(times), 0.25) if times else None for times in times_ms.values())
    ratio = None if not idle_ms or burning_ms is None else burning_ms / idle_ms
    return CorePair(measured, other, ratio, listed, used_share)


def _busy_s(core: int, root: Path) -> float:
    seconds = busy_s((core,), root)
    return math.nan if seconds is None else seconds


@contextmanager
def _burner(core: int) -> Iterator[Callable[[bool], None] | None]:
    """Yields what makes a CPU busy or idle; None if that cannot be done here."""
    command = [sys.executable, "-c", _BURN, str(core), str(os.getpid()), str(_LONGEST_S)]
    # The environment's own, so that the program finds the same NumPy.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, **_ONE_THREAD},
    )  # fmt: skip

    def burn(is_busy: bool) -> None:
        process.send_signal(signal.SIGCONT if is_busy else signal.SIGSTOP)
        time.sleep(_SETTLE_S)

    try:
        assert process.stdout is not None
        yield burn if process.stdout.readline() else None
    finally:
        process.kill()
        process.communicate()


def sibling_check(pair: CorePair, usable: Sequence[int], root: Path = Path("/")) -> Check:
    """Returns what a doctor says of two CPUs.

    Args:
        pair: The two.
        usable: CPU ids that this process may use.
        root: Where /sys is; tests may supply their own.
    """
    name, cpus = "cores", f"CPUs {pair.other} and {pair.measured}"
    if pair.ratio is None or not pair.is_known:
        why = "" if pair.ratio is None else f": other programs keep CPU {pair.other} busy"
        said = {True: "the system says so", False: "the system says no", None: "the system does not say"}[pair.listed]
        found = f"whether {cpus} share a core could not be measured{why}; {said}"
        if not pair.listed:
            return Check(name, "pass", found)
        return Check(name, "warn", found, _keep_idle(pair, usable, root))
    took = f"the compute probe takes {pair.ratio:.2f} times as long on {pair.measured} while {pair.other} is busy"
    if pair.ratio >= _SHARED:
        though = {True: ", and the system says so", False: ", though the system says no", None: ""}[pair.listed]
        return Check(name, "warn", f"{cpus} share a core: {took}{though}", _keep_idle(pair, usable, root))
    if pair.ratio >= _SLOWED:
        return Check(name, "warn", f"{cpus} slow each other: {took}", _keep_idle(pair, usable, root))
    though = ", though the system says that they share a core" if pair.listed else ""
    return Check(name, "pass", f"{cpus} do not slow each other: {took}{though}")


def _keep_idle(pair: CorePair, usable: Sequence[int], root: Path) -> str:
    rest = [core for core in usable if core not in (pair.measured, pair.other)]
    if rest:
        elsewhere = ",".join(map(str, rest))
        return f"keep CPU {pair.other} idle while measuring: run other programs with taskset -c {elsewhere}"
    idle = "run nothing else beside a search"
    switch = root / "sys/devices/system/cpu/smt/control"
    with suppress(OSError, ValueError):
        if pair.listed and switch.read_text(encoding="ascii").strip() == "on":
            return f"{idle}, or measure on whole cores: echo off | sudo tee {switch}"
    return idle
