"""Device addresses, and the agents they open.

    host:              this machine
    adb:               the only Android phone
    adb:SERIAL         the one with this serial number; through the adb server if one runs, else on USB
    adb://HOST:PORT    one that listens on the network
    replay:TIMES.json  recorded times, each answered after as long as it says

An address is SCHEME:REST. Everything built in stands in the tables below. Other packages add schemes by entry points of
the group `nas_edge.devices`: the name is the scheme, the object a function that is called with REST and returns a
`DeviceAgent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from device_agents.api import DeviceAgent
from device_agents.errors import DeviceAddressError, DeviceError
from device_agents.plugins import Plugin, PluginGroup


@dataclass(frozen=True)
class DeviceRow:
    """One line of the list of devices.

    Attributes:
        address: What `open_device` takes.
        kind: Scheme, for example "host".
        model: Product or CPU name, or "" if unknown.
        state: "ready", "unavailable", or what else is in the way.
        detail: Runtime and cores, or why it is unavailable.
        fix: What to do about that, where it takes more than a few words.
    """

    address: str
    kind: str
    model: str
    state: str
    detail: str
    fix: str = ""


def open_device(address: str) -> DeviceAgent:
    """Returns an agent for a device; close it, or use it in a `with` block.

    Args:
        address: For example "host:"; "host" alone is accepted too.

    Raises:
        DeviceAddressError: If the address is malformed, unknown or planned only.
        DeviceError: If the device cannot be opened.
    """
    name, rest = parse_address(address)
    return _find(name, address).open(rest)


def parse_address(address: str) -> tuple[str, str]:
    """Returns scheme and rest of an address.

    Raises:
        DeviceAddressError: If the address is malformed, unknown or planned only.
    """
    name, _, rest = address.partition(":")
    scheme = _find(name, address)
    problem = scheme.problem(rest)
    if problem:
        raise DeviceAddressError(
            f"Bad device address: {problem}. Expected {scheme.form} ({scheme.what}). Received: {address!r}"
        )
    return name, rest


def list_devices() -> list[DeviceRow]:
    """Returns the devices that can be found without being named."""
    return [_host_row(), *_phone_rows()]


@dataclass(frozen=True)
class Scheme:
    """How addresses of one scheme look and what opens them.

    Attributes:
        form: The address as shown to users.
        what: What it is, in a few words.
        problem: Returns what is wrong with the part after the colon, or "".
        open: Returns the agent for the part after the colon.
    """

    form: str
    what: str
    problem: Callable[[str], str]
    open: Callable[[str], DeviceAgent]


def _open_host(_: str) -> DeviceAgent:
    from device_agents.host import HostAgent

    return HostAgent()


def _open_replay(path: str) -> DeviceAgent:
    from device_agents.replay import ReplayAgent

    return ReplayAgent.from_file(path)


def _host_row() -> DeviceRow:
    from device_agents.host import host_info

    try:
        info = host_info()
    except DeviceError as error:
        return DeviceRow("host:", "host", "", "unavailable", str(error))
    detail = f"{info.cores} cores, {info.soc}, {info.runtime} {info.runtime_version}"
    return DeviceRow(info.address, info.kind, info.model, "ready", detail)


def _open_phone(scheme: str) -> Callable[[str], DeviceAgent]:
    def open_(rest: str) -> DeviceAgent:
        from device_agents.android.address import open_phone

        return open_phone(f"{scheme}:{rest}")

    return open_


def _phone_problem(rest: str) -> str:
    from device_agents.android.address import address_problem

    return address_problem(rest)


def _serial_problem(rest: str) -> str:
    from device_agents.android.address import serial_problem

    return serial_problem(rest)


def _phone_rows() -> list[DeviceRow]:
    from device_agents.android.listing import list_phones

    return list_phones()


SCHEMES: dict[str, Scheme] = {
    "host": Scheme(
        form="host:",
        what="this machine",
        problem=lambda rest: "nothing may follow 'host:'" if rest else "",
        open=_open_host,
    ),
    "adb": Scheme(
        form="adb:[SERIAL] or adb://HOST:PORT",
        what="an Android phone",
        problem=_phone_problem,
        open=_open_phone("adb"),
    ),
    "adb-usb": Scheme(
        form="adb-usb:[SERIAL]",
        what="an Android phone on USB, even if an adb server runs",
        problem=_serial_problem,
        open=_open_phone("adb-usb"),
    ),
    "adb-server": Scheme(
        form="adb-server:[SERIAL]",
        what="an Android phone of the adb server, for example one paired over Wi-Fi",
        problem=_serial_problem,
        open=_open_phone("adb-server"),
    ),
    "replay": Scheme(
        form="replay:TIMES.json",
        what="recorded times, answered in real time",
        problem=lambda rest: "" if rest else "a file must follow 'replay:'",
        open=_open_replay,
    ),
}

PLUGINS = PluginGroup("nas_edge.devices", "device scheme", SCHEMES, DeviceAddressError, DeviceError)

PLANNED_SCHEMES = {
    "ssh": "a board reached over SSH",
    "coral": "a Coral Edge TPU",
}


def schemes() -> list[Scheme]:
    """Returns every scheme: what is built in, then what other packages add."""
    return [*SCHEMES.values(), *map(_of_plugin, PLUGINS.plugins())]


def _find(name: str, address: str) -> Scheme:
    """The scheme of an address."""
    plugin = PLUGINS.find(name)
    if plugin is not None:
        return _of_plugin(plugin)
    if name in PLANNED_SCHEMES:
        raise DeviceAddressError(
            f"{name}: devices ({PLANNED_SCHEMES[name]}) are not available in this version. "
            f"{_known()}. Received: {address!r}"
        )
    if name not in SCHEMES:
        near = get_close_matches(name, [scheme.form.partition(":")[0] for scheme in schemes()], n=1)
        meant = f" Did you mean {near[0]}: ?" if near else ""
        raise DeviceAddressError(f"Unknown device address.{meant} {_known()}. Received: {address!r}")
    return SCHEMES[name]


def _of_plugin(plugin: Plugin) -> Scheme:
    return Scheme(
        form=f"{plugin.name}:...",
        what=plugin.origin,
        problem=lambda rest: "",  # only the package knows
        open=lambda rest: plugin.make(DeviceAgent, rest),  # type: ignore[type-abstract] # only for isinstance
    )


def _known() -> str:
    return f"Known are {', '.join(scheme.form for scheme in schemes())}; `nas-edge devices` says what they are"
