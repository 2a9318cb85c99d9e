"""`nas-edge devices doctor`: whether a device is fit to be measured, point by point, with the fix.

What a scheme's own doctor says comes first; that the device's noise is watched, and what is kept of it here, is the
same for all.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from device_agents.api import PRESETS, BenchmarkSpec, DeviceAgent, DeviceInfo
from device_agents.busy import BusyWatch
from device_agents.checks import Check, healthy
from device_agents.devices import scheme_of
from device_agents.errors import DeviceError
from device_agents.floors import FloorStore, default_floors
from device_agents.host import pick_cores
from device_agents.measuring_checks import check_measuring, failed
from device_agents.noise import WATCH_S, WATCH_SETTINGS, noise_checks, watch_noise
from device_agents.siblings import sibling_check, watch_pair
from device_agents.visiting import VisitingAgent
from device_agents.worker.system import allowed_cores


def examine(address: str, watch_s: float = WATCH_S) -> Sequence[Check]:
    """Looks at a device, measures a small model on it twice and watches its noise, which may take minutes.

    Args:
        address: The device.
        watch_s: How long its noise is watched at most, in seconds; 0 for not at all.

    Raises:
        DeviceAddressError: If the address is malformed or unknown.
    """
    scheme, rest = scheme_of(address)
    checks = list((scheme.doctor or _doctor_of(scheme.open))(rest))
    if watch_s <= 0 or not healthy(checks):
        return checks
    try:
        return [*checks, *check_noise(scheme.open(rest), watch_s)]
    except DeviceError as error:
        return [*checks, failed("noise", error)]


def _doctor_of(open_: Callable[[str], DeviceAgent]) -> Callable[[str], Sequence[Check]]:
    """Returns the doctor of a scheme that has none."""

    def doctor(rest: str) -> Sequence[Check]:
        try:
            with open_(rest) as agent:
                info = agent.info()
                found = f"{info.model}, {info.os}, {info.cores} cores, {info.runtime} {info.runtime_version}"
                return [Check("device", "pass", found), *check_measuring(agent)]
        except DeviceError as error:
            return [failed("device", error)]

    return doctor


def check_noise(agent: DeviceAgent, watch_s: float = WATCH_S, root: Path = Path("/")) -> list[Check]:
    """Watches how quiet a device is, as a search would measure on it; says nothing of recorded times.

    What it learns of the device's undisturbed times is kept for the sessions that follow.

    Args:
        agent: The device, which is closed.
        watch_s: At most so many seconds; less where it is clearly quiet.
        root: Where /proc and /sys are; tests may supply their own.

    Raises:
        DeviceError: If the bench itself is broken.
    """
    floors = FloorStore(default_floors())
    with VisitingAgent(agent, floors=floors, settings=WATCH_SETTINGS) as visiting:
        if agent.recorded:
            return []
        info, spec = agent.info(), PRESETS["search"]
        busy = None
        if info.measures_on_host:
            spec, busy = spec.replace(cores=pick_cores(spec.threads)), BusyWatch(root)
        noise = watch_noise(visiting, spec, watch_s)
        programs, idle = (None, None) if busy is None else (busy.programs(), busy.idle_core(spec.cores or ()))
        checks = noise_checks(noise, spec, info.address, programs, idle)
        if info.measures_on_host:
            checks += _check_cores(agent, spec, root)
    return [*checks, *check_kept(info, floors)]


def _check_cores(agent: DeviceAgent, spec: BenchmarkSpec, root: Path) -> list[Check]:
    usable = allowed_cores()
    if usable is None:
        return []  # the system does not pin programs to cores
    if spec.cores is None:
        found = "only one CPU may be used, so all else that runs disturbs what is measured"
        return [Check("cores", "warn", found, "run nothing beside a search, or give this machine a second CPU")]
    return [sibling_check(watch_pair(agent, spec, usable, root), usable, root)]


def check_kept(info: DeviceInfo, floors: FloorStore, now: datetime | None = None) -> list[Check]:
    """Lists what is kept of a device on this machine, and how it is removed.

    Args:
        info: The device.
        floors: Where its probes' undisturbed times are kept.
        now: The time; None for now.
    """
    now = now or datetime.now(timezone.utc)
    kept = floors.kept(info, now)
    if not kept:
        return []
    names = ", ".join(dict.fromkeys(floor.probe for floor in kept))
    ages_h = [(now - floor.measured).total_seconds() / 3600 for floor in kept]
    age = " to ".join(dict.fromkeys(f"{age_h:.1f}" for age_h in (max(0.0, min(ages_h)), max(0.0, *ages_h))))
    found = f"undisturbed times of the probes ({names}), {age} hours old, in {floors.file}"
    return [Check("kept here", "pass", f"{found}; nas-edge devices clean {shlex.quote(info.address)} removes them")]
