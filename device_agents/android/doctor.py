"""Whether a phone is fit to be measured, point by point, with the fix."""

from __future__ import annotations

import re
import statistics
import time

from device_agents.android.address import open_transport
from device_agents.android.agent import AndroidAgent
from device_agents.android.gate import CHARGED_PERCENT, LOW_PERCENT
from device_agents.android.state import (
    THERMAL_STATUS,
    CoolSettings,
    PhoneIdentity,
    PhoneState,
    big_cores,
    read_phone,
    read_quick_state,
    why_hot,
    why_throttled,
)
from device_agents.android.stored import stored_on
from device_agents.android.tool import how_to_get, install_tool
from device_agents.android.transport import Transport, UnauthorizedError
from device_agents.checks import Check
from device_agents.errors import DeviceError
from device_agents.measuring_checks import check_measuring, failed

_MEBIBYTE = 1 << 20
_ROUND_TRIPS = 11
_SLOW_MS = 100.0
_LEAST_SDK = 26  # Android 8, whose shell has `timeout`
_STORAGE_NEEDED, _STORAGE_EASY = 100 * _MEBIBYTE, 500 * _MEBIBYTE
_MEMORY_EASY = 512 * _MEBIBYTE
_SEVERE = THERMAL_STATUS.index("severe")
_HIGHEST_LOAD = 0.5  # per core
_CAPPED = 0.98  # of the highest clock


def examine_phone(address: str) -> list[Check]:
    """Looks at a phone and measures on it twice; what needs an answer is left out where there is none."""
    with open_transport(address) as transport:
        checks = _check_link(transport)
        if any(check.state == "fail" for check in checks):
            return checks
        try:
            identity, state = read_phone(transport)
        except DeviceError as error:
            return [*checks, failed("state", error)]
        tool = _check_tool(transport, identity)
        checks += [
            _check_system(identity, transport.address),
            tool,
            _check_storage(state),
            _check_battery(state),
            _check_saver(state),
            _check_screen(state),
            _check_airplane(state, transport.address),
            _check_heat(state),
            _check_cpus(identity, state),
            _check_load(identity, state),
            *_check_stored(transport),
        ]
        return checks if tool.state == "fail" else [*checks, *_check_measuring(transport, identity)]


def _check_link(transport: Transport) -> list[Check]:
    times_ms = []
    try:
        transport.run(["true"])
        for _ in range(_ROUND_TRIPS):
            started_s = time.perf_counter()
            transport.run(["true"])
            times_ms.append((time.perf_counter() - started_s) * 1e3)
    except UnauthorizedError as error:
        return [Check("connection", "pass", f"{transport.address} answers"), failed("authorisation", error)]
    except DeviceError as error:
        return [failed("connection", error)]
    found = f"a command takes {statistics.median(times_ms):.0f} ms"
    allowed = Check("authorisation", "pass", "the phone accepts this computer's key")
    if statistics.median(times_ms) <= _SLOW_MS:
        return [Check("connection", "pass", found), allowed]
    return [Check("connection", "warn", found, "a cable, or a nearer access point, makes a search faster"), allowed]


def _check_system(identity: PhoneIdentity, address: str) -> Check:
    android = f"Android {identity.android or '?'} (API level {identity.sdk or '?'})"
    facts = (identity.model or "model unknown", identity.soc, android, identity.abi or "ABI unknown")
    found = ", ".join(filter(None, facts))
    if identity.sdk is not None and identity.sdk < _LEAST_SDK:
        return Check("system", "fail", found, "Android 8 or newer is needed")
    if not identity.abi:
        return Check("system", "warn", found, how_to_get("", address))
    return Check("system", "pass", found)


def _check_tool(transport: Transport, identity: PhoneIdentity) -> Check:
    try:
        tool = install_tool(transport, identity.abi)
    except DeviceError as error:
        return failed("benchmark_model", error)
    return Check("benchmark_model", "pass", f"{tool.path}, {tool.version} as it is here")


def _check_storage(state: PhoneState) -> Check:
    free = state.free_storage_bytes
    if free is None:
        return Check("storage", "warn", "not known", "see that /data has some 500 MiB free")
    found = f"{free / _MEBIBYTE:.0f} MiB free in /data"
    if free < _STORAGE_NEEDED:
        return Check("storage", "fail", found, "free some storage on the phone")
    return Check("storage", "pass" if free >= _STORAGE_EASY else "warn", found, "free some storage on the phone")


def _check_battery(state: PhoneState) -> Check:
    battery = state.battery
    if battery.level_percent is None:
        return Check("battery", "warn", "not known", "see that it is charged and plugged in")
    plugged = {True: "plugged in", False: "not plugged in", None: "perhaps plugged in"}[battery.plugged]
    found = f"{battery.level_percent}%, {plugged}"
    if battery.faked:
        return Check("battery", "warn", f"{found}; set by hand", "run: adb shell dumpsys battery reset")
    if battery.level_percent < LOW_PERCENT and battery.plugged is False:
        return Check("battery", "fail", found, "plug it in and let it charge")
    if battery.level_percent < CHARGED_PERCENT or battery.plugged is False:
        return Check("battery", "warn", found, f"plug it in; above {CHARGED_PERCENT}% it charges, and warms, less")
    return Check("battery", "pass", found)


def _check_saver(state: PhoneState) -> Check:
    if state.low_power:
        return Check("battery saver", "fail", "on: it lowers the clocks", "switch it off")
    return Check("battery saver", "pass", "off") if state.low_power is False else _unknown("battery saver", "is off")


def _check_screen(state: PhoneState) -> Check:
    if state.awake is None:
        return _unknown("screen", "stays on")
    if state.awake:
        return Check("screen", "pass", "on")
    return Check("screen", "warn", "off: some phones lower their clocks then", "switch on 'Stay awake' for developers")


def _check_airplane(state: PhoneState, address: str) -> Check:
    if state.airplane:
        return Check("airplane mode", "pass", "on")
    if re.fullmatch(r"adb:.+:\d+", address) or "_adb-tls" in address:
        return Check("airplane mode", "pass", "off; the link needs the network")
    if state.airplane is None:
        return _unknown("airplane mode", "is on")
    return Check("airplane mode", "warn", "off: calls, mail and updates disturb", "switch it on (Wi-Fi may stay on)")


def _check_heat(state: PhoneState) -> Check:
    known = {t.name: t for t in sorted(state.temperatures, key=lambda t: t.celsius)}
    hottest = ", ".join(f"{t.name} {t.celsius:.0f}" for t in list(known.values())[:-4:-1])
    status = "" if state.thermal_status is None else f"thermal status {THERMAL_STATUS[state.thermal_status]}"
    found = "; ".join(filter(None, (status, f"{hottest} degrees Celsius" if hottest else "")))
    if not found:
        return Check("heat", "warn", "not known", "keep it cool, and look at the repeatability below")
    if (state.thermal_status or 0) >= _SEVERE:
        return Check("heat", "fail", found, "let it cool down, out of its case")
    hot = why_hot(state, CoolSettings())
    return (
        Check("heat", "warn", f"{found}: {hot}", "let it cool down, out of its case")
        if hot
        else Check("heat", "pass", found)
    )


def _check_cpus(identity: PhoneIdentity, state: PhoneState) -> Check:
    cores = big_cores(identity, state)
    if not cores:
        return Check("cpus", "warn", f"{len(identity.cpus)} cpus, which is big is not known", "name cores with --cores")
    clusters = []
    capped = False
    for policy in state.policies:
        if policy.limit_khz and policy.most_khz:
            capped = capped or policy.limit_khz < _CAPPED * policy.most_khz
        most = f" to {policy.most_khz / 1e6:.2f} GHz" if policy.most_khz else ""
        clusters.append(f"{_span(policy.cpus)} {policy.governor or '?'}{most}")
    found = f"big cores {_span(cores)}; {'; '.join(clusters) or 'clocks not readable'}"
    if capped:
        return Check("cpus", "warn", f"{found}; clocks are capped", "let it cool, charge it, switch the saver off")
    return Check("cpus", "pass", found)


def _check_load(identity: PhoneIdentity, state: PhoneState) -> Check:
    facts = []
    if state.load_average is not None:
        facts.append(f"load {state.load_average:.1f} on {len(identity.cpus) or '?'} cpus")
    if state.available_memory_bytes is not None:
        facts.append(f"{state.available_memory_bytes / _MEBIBYTE:.0f} MiB of memory available")
    found = ", ".join(facts) or "not known"
    busy = (state.load_average or 0.0) > _HIGHEST_LOAD * max(1, len(identity.cpus))
    tight = state.available_memory_bytes is not None and state.available_memory_bytes < _MEMORY_EASY
    if busy or tight or not facts:
        return Check("load", "warn", found, "close apps and wait until updates and synchronisation are done")
    return Check("load", "pass", found)


def _check_stored(transport: Transport) -> list[Check]:
    """Lists what lies on the phone for measuring, and how it is removed."""
    try:
        stored = stored_on(transport)
    except DeviceError as error:
        return [failed("kept on it", error)]
    if not stored:
        return []
    kinds = ", ".join(map(str, stored))
    return [Check("kept on it", "pass", f"{kinds}; nas-edge devices clean {transport.address} removes it")]


def _check_measuring(transport: Transport, identity: PhoneIdentity) -> list[Check]:
    try:
        before = read_quick_state(transport)
        with AndroidAgent(transport) as agent:
            checks = check_measuring(agent, "see the other points; another build of benchmark_model may help")
        after = read_quick_state(transport)
    except DeviceError as error:
        return [failed("measuring", error)]
    throttled = why_throttled(before, after, big_cores(identity, before))
    if throttled:
        return [*checks, Check("clocks", "warn", throttled, "let it cool, out of its case, and try again")]
    limit_mhz = after.limit_mhz(big_cores(identity, after))
    if limit_mhz is None:
        return [*checks, _unknown("clocks", "stay the same")]
    return [*checks, Check("clocks", "pass", f"big cores may run at {limit_mhz:.0f} MHz, before and after")]


def _unknown(name: str, wish: str) -> Check:
    return Check(name, "warn", "not known", f"see that it {wish}")


def _span(cpus: tuple[int, ...]) -> str:
    """Shows cpus as 4-7, or one by one where some are missing."""
    whole = len(cpus) > 1 and cpus == tuple(range(cpus[0], cpus[-1] + 1))
    return f"{cpus[0]}-{cpus[-1]}" if whole else ",".join(map(str, cpus))
