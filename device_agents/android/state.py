"""What a phone is and how it is doing: a shell script run there, and the reading of what it prints.

Every phone lacks something: files the shell user may not read, services of another form, sensors that report nonsense.
So the script prints what it can, and each reader gives None for what is not there or makes no sense. Layouts after
AOSP (frameworks/base/services: ThermalManagerService, BatteryService, PowerManagerService) and public issue threads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_agents.android.transport import Transport, printable
from device_agents.api import DeviceInfo

# Needs only sh and what every Android has. `read` is built in, so that a dozen files cost no dozen processes.
_FUNCTIONS = """
say() { echo "@@ $1"; }
show() { for f in "$@"; do { read -r v < "$f" && echo "$f $v"; } 2>/dev/null; done; }
"""
_IDENTITY = """
say getprop; getprop
say uname; uname -rm
say cpus; show /sys/devices/system/cpu/possible /sys/devices/system/cpu/cpu*/cpu_capacity
say memory; grep -E '^Mem(Total|Available):' /proc/meminfo
"""
_QUICK = """
say policies; for p in /sys/devices/system/cpu/cpufreq/policy*; do
show $p/related_cpus $p/scaling_governor $p/scaling_cur_freq $p/scaling_max_freq $p/cpuinfo_max_freq; done
say online; show /sys/devices/system/cpu/online
say thermalservice; dumpsys thermalservice
say zones; show /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp
say load; show /proc/loadavg
"""
_POWER = """
say battery; dumpsys battery
say power; dumpsys power | grep -E 'mWakefulness=|mIsPowered=|Display Power: state='
say low_power; settings get global low_power
say airplane; settings get global airplane_mode_on
say storage; df -k /data/local/tmp
"""
QUICK_SCRIPT = f"{_FUNCTIONS}exec 2>/dev/null\n{_QUICK}"
# Shell functions for scripts that look on the way: clocks, temperatures and load, and what changes slowly.
STATE_FUNCTIONS = f"{_FUNCTIONS}quick_state() {{\n{_QUICK}}}\npower_state() {{\n{_POWER}}}\n"
IDENTITY_SCRIPT = f"{_FUNCTIONS}exec 2>/dev/null\n{_IDENTITY}"
FULL_SCRIPT = f"{_FUNCTIONS}exec 2>/dev/null\n{_IDENTITY}{_QUICK}{_POWER}"

# Temperature types of android.hardware.thermal; the others are volts, amperes and percent, or unknown.
_TEMPERATURE_TYPES = {
    0: "CPU", 1: "GPU", 2: "BATTERY", 3: "SKIN", 4: "USB_PORT", 5: "POWER_AMPLIFIER",
    9: "NPU", 10: "TPU", 11: "DISPLAY", 12: "MODEM", 13: "SOC",
}  # fmt: skip
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_PLAUSIBLE_C = (1.0, 150.0)
_MAX_LIST = 1000  # characters of a list of CPUs
_HEADER = "Current temperatures from HAL:"
_TEMPERATURE = re.compile(r"Temperature\{mValue=([^,{}]+), mType=(-?\d{1,9}), mName=([^,{}]*), mStatus=(-?\d{1,9})\}")
# What a Samsung appends after the battery's own lines.
_BATTERY_END = re.compile(r"^\s*\[|EventLog")


@dataclass(frozen=True)
class CpuPolicy:
    """CPUs that share a clock.

    Attributes:
        cpus: Their ids.
        governor: What chooses the clock, for example "schedutil".
        current_khz: The present clock.
        limit_khz: The highest clock allowed at present; heat lowers it.
        most_khz: The highest clock the hardware has.
    """

    cpus: tuple[int, ...]
    governor: str | None
    current_khz: int | None
    limit_khz: int | None
    most_khz: int | None


@dataclass(frozen=True)
class Temperature:
    """One sensor: its name, what it measures (CPU, SKIN, ...; "" if unknown) and degrees Celsius."""

    name: str
    kind: str
    celsius: float


@dataclass(frozen=True)
class Battery:
    """The battery. None: not known.

    Attributes:
        level_percent: Charge, 0 to 100.
        celsius: Its temperature.
        plugged: Whether it gets power from anywhere.
        faked: Whether somebody has set these values by hand (`dumpsys battery set`).
    """

    level_percent: int | None = None
    celsius: float | None = None
    plugged: bool | None = None
    faked: bool = False


@dataclass(frozen=True)
class PhoneState:
    """How a phone is doing. None: not known.

    Attributes:
        policies: Clocks, by cluster.
        online: Ids of the CPUs that are switched on.
        thermal_status: Index into `THERMAL_STATUS`.
        temperatures: Sensors that make sense.
        battery: See `Battery`.
        awake: Whether the screen is on.
        low_power: Whether battery saver is on.
        airplane: Whether airplane mode is on.
        load_average: Over one minute.
        available_memory_bytes: Memory that can be had.
        free_storage_bytes: Room where models are put.
    """

    policies: tuple[CpuPolicy, ...] = ()
    online: tuple[int, ...] | None = None
    thermal_status: int | None = None
    temperatures: tuple[Temperature, ...] = ()
    battery: Battery = Battery()
    awake: bool | None = None
    low_power: bool | None = None
    airplane: bool | None = None
    load_average: float | None = None
    available_memory_bytes: int | None = None
    free_storage_bytes: int | None = None

    def hottest_c(self, kinds: Sequence[str] = ()) -> float | None:
        """Returns the highest temperature in degrees Celsius, of these kinds of sensor only if any are given."""
        found = [t.celsius for t in self.temperatures if not kinds or t.kind in kinds]
        return max(found, default=None)

    def limit_mhz(self, cores: Sequence[int]) -> float | None:
        """Returns the mean of the highest clocks at present allowed on these cores, in MHz."""
        return _mean_mhz({cpu: policy.limit_khz for policy in self.policies for cpu in policy.cpus}, cores)

    def clock_mhz(self, cores: Sequence[int]) -> float | None:
        """Returns the mean of the present clocks of these cores, in MHz."""
        return _mean_mhz({cpu: policy.current_khz for policy in self.policies for cpu in policy.cpus}, cores)

    def governor(self, cores: Sequence[int]) -> str | None:
        """Returns the governor of these cores, None if unknown, "mixed" if they differ."""
        names = {p.governor for p in self.policies if p.governor and set(p.cpus) & set(cores)}
        return None if not names else names.pop() if len(names) == 1 else "mixed"


def _mean_mhz(khz: Mapping[int, int | None], cores: Sequence[int]) -> float | None:
    known = [value for core in cores if (value := khz.get(core)) is not None]
    return sum(known) / len(known) / 1e3 if known else None


@dataclass(frozen=True)
class PhoneIdentity:
    """What a phone is. "": not known.

    Attributes:
        model: Product, for example "Google Pixel 6 Pro".
        soc: System on chip, for example "Tensor".
        abi: Instruction set, for example "arm64-v8a".
        android: Version, for example "14".
        sdk: API level, None if unknown.
        build: Fingerprint of the system's build.
        kernel: Release of the kernel.
        cpus: Ids of all CPUs.
        capacities: What each CPU can do relative to the fastest (1024), by id.
        memory_bytes: Physical memory, None if unknown.
    """

    model: str = ""
    soc: str = ""
    abi: str = ""
    android: str = ""
    sdk: int | None = None
    build: str = ""
    kernel: str = ""
    cpus: tuple[int, ...] = ()
    capacities: tuple[tuple[int, int], ...] = ()
    memory_bytes: int | None = None


def read_phone(transport: Transport) -> tuple[PhoneIdentity, PhoneState]:
    """Asks a phone what it is and how it is doing.

    Raises:
        DeviceUnavailableError: If it does not answer.
    """
    sections = split_sections(transport.script(FULL_SCRIPT, timeout_s=20.0).output)
    return identity_of(sections), state_of(sections)


def read_identity(transport: Transport, timeout_s: float = 10.0) -> PhoneIdentity:
    """Asks a phone only what it is.

    Raises:
        DeviceUnavailableError: If it does not answer.
    """
    return identity_of(split_sections(transport.script(IDENTITY_SCRIPT, timeout_s=timeout_s).output))


def info_of(address: str, identity: PhoneIdentity, tool_version: str) -> DeviceInfo:
    """Returns what a phone is, in the words of every device.

    Args:
        address: The address that opens it.
        identity: What it says of itself.
        tool_version: Version of the benchmark_model on it.
    """
    return DeviceInfo(
        address=address,
        kind="adb",
        model=identity.model or "unknown phone",
        soc=identity.soc or identity.abi or "unknown",
        cores=len(identity.cpus) or 1,
        memory_bytes=identity.memory_bytes,
        # Not the build: a security update does not make it another device.
        os=f"Android {identity.android}" if identity.android else f"Linux {identity.kernel}".strip(),
        runtime="benchmark_model",
        runtime_version=tool_version,
    )


def read_quick_state(transport: Transport) -> PhoneState:
    """Asks a phone for clocks, temperatures and load only.

    Raises:
        DeviceUnavailableError: If it does not answer.
    """
    return state_of(split_sections(transport.script(QUICK_SCRIPT, timeout_s=10.0).output))


def split_sections(text: str) -> dict[str, list[str]]:
    """Returns the lines that follow each `@@ name`."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@@ "):
            lines = sections.setdefault(line[3:].strip(), [])
        else:
            lines.append(line.rstrip())
    return sections


def identity_of(sections: Mapping[str, Sequence[str]]) -> PhoneIdentity:
    """Reads what the script printed about what the phone is."""
    properties = read_properties(sections.get("getprop", ()))
    files = _files(sections.get("cpus", ()))
    uname = " ".join(sections.get("uname", ())).split()
    capacities = {}
    for path, text in files.items():
        match = re.fullmatch(r"/sys/devices/system/cpu/cpu(\d{1,4})/cpu_capacity", path)
        value = _whole(text)
        if match and value:
            capacities[int(match[1])] = value
    maker, model = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "")
    return PhoneIdentity(
        model=model if model.lower().startswith(maker.lower()) else f"{maker} {model}".strip(),
        soc=_first_known(properties, _SOC_PROPERTIES),
        abi=properties.get("ro.product.cpu.abi") or (uname[1] if len(uname) > 1 else ""),
        android=properties.get("ro.build.version.release", ""),
        sdk=_whole(properties.get("ro.build.version.sdk", "")),
        build=properties.get("ro.build.fingerprint", ""),
        kernel=uname[0] if uname else "",
        cpus=read_cpu_list(files.get("/sys/devices/system/cpu/possible", "")) or tuple(sorted(capacities)),
        capacities=tuple(sorted(capacities.items())),
        memory_bytes=_meminfo(sections, "MemTotal"),
    )


# The first that says something; `ro.board.platform` is shared by several chips, so it comes late.
_SOC_PROPERTIES = (
    "ro.soc.model",
    "ro.mediatek.platform",
    "ro.hardware.chipname",
    "ro.chipname",
    "ro.board.platform",
    "ro.hardware",
)


def state_of(sections: Mapping[str, Sequence[str]]) -> PhoneState:
    """Reads what the script printed about how the phone is doing."""
    status, temperatures = read_thermal_service(sections.get("thermalservice", ()))
    power = "\n".join(sections.get("power", ()))
    wakefulness = re.search(r"mWakefulness=(\w+)", power)
    load = _files(sections.get("load", ())).get("/proc/loadavg", "").split()
    return PhoneState(
        policies=read_policies(sections.get("policies", ())),
        online=read_cpu_list(_files(sections.get("online", ())).get("/sys/devices/system/cpu/online", "")) or None,
        thermal_status=status,
        # The service knows what its sensors mean; the bare zones are for phones without it.
        temperatures=temperatures or read_zones(sections.get("zones", ())),
        battery=read_battery(sections.get("battery", ())),
        awake=wakefulness[1] == "Awake" if wakefulness else None,
        low_power=_setting(sections.get("low_power", ())),
        airplane=_setting(sections.get("airplane", ())),
        load_average=_number(load[0]) if load else None,
        available_memory_bytes=_meminfo(sections, "MemAvailable"),
        free_storage_bytes=_free_storage(sections.get("storage", ())),
    )


def read_properties(lines: Sequence[str]) -> dict[str, str]:
    """Reads `getprop`: [key]: [value] per line."""
    pairs = (re.fullmatch(r"\[([^\]]+)\]: \[(.*)\]", line) for line in lines)
    return {pair[1]: printable(pair[2]) for pair in pairs if pair}


def read_cpu_list(text: str) -> tuple[int, ...]:
    """Reads a list such as "0-3,6" or "4 5"; () if it is none."""
    if len(text) > _MAX_LIST:
        return ()
    ids: set[int] = set()
    for part in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if match is None:
            return ()
        ids |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(ids))


def read_policies(lines: Sequence[str]) -> tuple[CpuPolicy, ...]:
    """Reads the files of each cpufreq policy."""
    by_policy: dict[int, dict[str, str]] = {}
    for path, text in _files(lines).items():
        match = re.fullmatch(r"/sys/devices/system/cpu/cpufreq/policy(\d{1,4})/(\w+)", path)
        if match:
            by_policy.setdefault(int(match[1]), {})[match[2]] = text
    return tuple(
        CpuPolicy(
            # Without the list of its CPUs a policy is known to hold the one it is named after.
            cpus=read_cpu_list(values.get("related_cpus", "")) or (policy,),
            governor=printable(values.get("scaling_governor", "")) or None,
            current_khz=_whole(values.get("scaling_cur_freq", "")),
            limit_khz=_whole(values.get("scaling_max_freq", "")),
            most_khz=_whole(values.get("cpuinfo_max_freq", "")),
        )
        for policy, values in sorted(by_policy.items())
    )


def read_thermal_service(lines: Sequence[str]) -> tuple[int | None, tuple[Temperature, ...]]:
    """Reads `dumpsys thermalservice`: the status, and the sensors as they are now (the cached ones are stale)."""
    status = None
    found: list[Temperature] = []
    in_block = False
    for line in lines:
        match = re.match(r"^Thermal Status: (\d{1,9})$", line)
        if match and int(match[1]) < len(THERMAL_STATUS):
            status = int(match[1])
        if line.startswith(_HEADER):
            in_block = True
        elif in_block and not line[:1].isspace():
            break
        elif in_block:
            sensor = _TEMPERATURE.search(line)
            celsius = _number(sensor[1]) if sensor else None
            kind = _TEMPERATURE_TYPES.get(int(sensor[2])) if sensor else None
            if sensor and kind and celsius is not None and _is_plausible(celsius):
                found.append(Temperature(printable(sensor[3]), kind, celsius))
    return status, tuple(found)


def read_zones(lines: Sequence[str]) -> tuple[Temperature, ...]:
    """Reads /sys/class/thermal; the unit is told by the magnitude."""
    names: dict[str, str] = {}
    values: dict[str, float] = {}
    for path, text in _files(lines).items():
        match = re.fullmatch(r"/sys/class/thermal/thermal_zone(\d{1,4})/(type|temp)", path)
        if match and match[2] == "type":
            names[match[1]] = printable(text)
        elif match and (value := _number(text)) is not None:
            values[match[1]] = _to_celsius(value)
    return tuple(
        Temperature(names.get(zone, f"zone{zone}"), _kind_of_zone(names.get(zone, "")), celsius)
        for zone, celsius in values.items()
        if _is_plausible(celsius)
    )


def read_battery(lines: Sequence[str]) -> Battery:
    """Reads `dumpsys battery`: lines of two spaces, a key and a value, up to whatever a maker appended."""
    values: dict[str, str] = {}
    faked = False
    for line in lines:
        if _BATTERY_END.search(line):
            break
        faked = faked or "UPDATES STOPPED" in line
        match = re.fullmatch(r"  (\S[^:]*): (.*)", line)
        if match:
            values.setdefault(match[1], match[2].strip())
    level, scale = _whole(values.get("level", "")), _whole(values.get("scale", ""))
    tenths = _number(values.get("temperature", ""))
    celsius = tenths / 10 if tenths is not None else None
    powered = [value == "true" for key, value in values.items() if key.endswith(" powered")]
    return Battery(
        level_percent=round(100 * level / scale) if level is not None and scale and level <= scale else None,
        celsius=celsius if celsius is not None and _is_plausible(celsius) else None,
        plugged=any(powered) if powered else None,
        faked=faked,
    )


def big_cores(identity: PhoneIdentity, state: PhoneState) -> tuple[int, ...]:
    """Returns the fastest cores that are on: of the highest capacity, else of the highest clock; () if unknown."""
    return _extreme_cores(identity, state, fastest=True)


def little_cores(identity: PhoneIdentity, state: PhoneState) -> tuple[int, ...]:
    """Returns the slowest cores that are on; () if unknown."""
    return _extreme_cores(identity, state, fastest=False)


def _extreme_cores(identity: PhoneIdentity, state: PhoneState, fastest: bool) -> tuple[int, ...]:
    speeds = dict(identity.capacities) or {
        cpu: policy.most_khz for policy in state.policies for cpu in policy.cpus if policy.most_khz
    }
    on = {cpu: speed for cpu, speed in speeds.items() if state.online is None or cpu in state.online}
    if not on:
        return ()
    chosen = (max if fastest else min)(on.values())
    return tuple(sorted(cpu for cpu, speed in on.items() if speed == chosen))


def core_mask(cores: Sequence[int]) -> str:
    """Returns the mask `taskset` takes: hexadecimal, without 0x."""
    return f"{sum(1 << core for core in set(cores)):x}"


# ------------------------------------------------------------------------------------------------------------- heat


@dataclass(frozen=True)
class CoolSettings:
    """When a phone is cool enough to be measured.

    Attributes:
        max_status: Highest accepted index into `THERMAL_STATUS`.
        max_skin_c: Highest accepted skin temperature; phones throttle from about 39 degrees Celsius on.
        max_battery_c: Highest accepted battery temperature.
        max_chip_c: Highest accepted temperature of CPU, GPU or chip.
        wait_s: How long to wait for it, in seconds.
        poll_s: How often to look, in seconds.
    """

    max_status: int = 0
    max_skin_c: float = 38.0
    max_battery_c: float = 40.0
    max_chip_c: float = 60.0
    wait_s: float = 120.0
    poll_s: float = 2.0


def why_hot(state: PhoneState, settings: CoolSettings) -> str:
    """Returns why a phone is too hot to be measured, "" if it is not or nothing is known."""
    status = state.thermal_status
    if status is not None and status > settings.max_status:
        return f"thermal status {THERMAL_STATUS[status]}"
    for what, kinds, limit in (
        ("skin", ("SKIN",), settings.max_skin_c),
        ("battery", ("BATTERY",), settings.max_battery_c),
        ("chip", ("CPU", "GPU", "SOC", "NPU", "TPU"), settings.max_chip_c),
    ):
        celsius = state.hottest_c(kinds)
        if celsius is not None and celsius > limit:
            return f"{what} at {celsius:.1f} degrees Celsius, above {limit:g}"
    return ""


def why_throttled(before: PhoneState, after: PhoneState, cores: Sequence[int]) -> str:
    """Returns why what was measured between two states is not to be relied on, "" if nothing speaks against it."""
    status = after.thermal_status
    if status and status > (before.thermal_status or 0):
        return f"the phone's thermal status rose to {THERMAL_STATUS[status]}"
    limit_before, limit_after = before.limit_mhz(cores), after.limit_mhz(cores)
    if limit_before and limit_after and limit_after < limit_before * 0.98:
        return f"the highest clock allowed fell from {limit_before:.0f} to {limit_after:.0f} MHz"
    return ""


# ----------------------------------------------------------------------------------------------------------- readers


def _files(lines: Sequence[str]) -> dict[str, str]:
    """Reads lines of a path and what its file holds."""
    pairs = (line.split(" ", 1) for line in lines if line.startswith("/"))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,15}", text.strip()) else None


def _number(text: str) -> float | None:
    match = re.fullmatch(r"[-+]?\d{1,12}(?:\.\d{1,20})?(?:[eE][-+]?\d{1,2})?", text.strip())
    return float(match[0]) if match else None


def _is_plausible(celsius: float) -> bool:
    return _PLAUSIBLE_C[0] <= celsius <= _PLAUSIBLE_C[1]


def _to_celsius(value: float) -> float:
    # Millidegrees mostly; tenths or whole degrees with some makers.
    if abs(value) >= 1000:
        return value / 1000
    return value / 10 if abs(value) >= 150 else value


def _kind_of_zone(name: str) -> str:
    words = name.lower()
    for kind, pattern in _ZONE_KINDS:
        if re.search(pattern, words):
            return kind
    return ""


_ZONE_KINDS = (
    ("BATTERY", r"batt"),
    ("SKIN", r"skin|quiet|xo[-_]?therm"),
    ("GPU", r"gpu|g3d"),
    ("CPU", r"cpu|^big$|^mid$|^little$|tsens"),
    ("SOC", r"^soc"),
)


def _setting(lines: Sequence[str]) -> bool | None:
    value = lines[0].strip() if lines else ""
    return {"0": False, "1": True, "null": False}.get(value)


def _meminfo(sections: Mapping[str, Sequence[str]], field: str) -> int | None:
    for line in sections.get("memory", ()):
        match = re.fullmatch(rf"{field}:\s+(\d{{1,12}}) kB", line.strip())
        if match:
            return int(match[1]) * 1024
    return None


def _free_storage(lines: Sequence[str]) -> int | None:
    """Reads `df -k`: the fourth column of its last line."""
    cells = lines[-1].split() if lines else []
    value = _whole(cells[3]) if len(cells) >= 6 else None
    return None if value is None else value * 1024


def _first_known(properties: Mapping[str, str], names: Sequence[str]) -> str:
    return next((properties[name] for name in names if properties.get(name, "") not in ("", "unknown")), "")
