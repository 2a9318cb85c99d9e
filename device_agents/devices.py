"""Device addresses, and the agents they open.

    host:              this machine
    adb:               the only Android phone plugged in
    adb:SERIAL         the one with this serial number
    adb://HOST:PORT    one that listens on the network
    replay:TIMES.json  recorded times, each answered after as long as it says

An address is SCHEME:REST. Everything known stands in the tables below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_agents.api import DeviceAgent
from device_agents.errors import DeviceAddressError, DeviceError


@dataclass(frozen=True)
class DeviceRow:
    """One line of the list of devices.

    Attributes:
        address: What `open_device` takes.
        kind: Scheme, for example "host".
        model: Product or CPU name, or "" if unknown.
        state: "ready" or "unavailable".
        detail: Runtime and cores, or why it is unavailable.
    """

    address: str
    kind: str
    model: str
    state: str
    detail: str


def open_device(address: str) -> DeviceAgent:
    """Returns an agent for a device; close it, or use it in a `with` block.

    Args:
        address: For example "host:"; "host" alone is accepted too.

    Raises:
        DeviceAddressError: If the address is malformed, unknown or planned only.
        DeviceError: If the device cannot be opened.
    """
    scheme, rest = parse_address(address)
    return SCHEMES[scheme].open(rest)


def parse_address(address: str) -> tuple[str, str]:
    """Returns scheme and rest of an address.

    Raises:
        DeviceAddressError: If the address is malformed, unknown or planned only.
    """
    scheme, _, rest = address.partition(":")
    if scheme in PLANNED_SCHEMES:
        raise DeviceAddressError(
            f"{scheme}: devices ({PLANNED_SCHEMES[scheme]}) are not available in this version. "
            f"{_known()}. Received: {address!r}"
        )
    if scheme not in SCHEMES:
        raise DeviceAddressError(f"Unknown device address. {_known()}. Received: {address!r}")
    problem = SCHEMES[scheme].problem(rest)
    if problem:
        raise DeviceAddressError(f"Bad device address: {problem}. {_known()}. Received: {address!r}")
    return scheme, rest


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


def _open_phone(rest: str) -> DeviceAgent:
    from device_agents.android.address import open_phone

    return open_phone(rest)


def _phone_problem(rest: str) -> str:
    from device_agents.android.address import address_problem

    return address_problem(rest)


def _phone_rows() -> list[DeviceRow]:
    """The phones on USB; they are not asked anything, since that would raise a question on their screens."""
    from device_agents.android.adb_shell_transport import usb_serials

    return [DeviceRow(f"adb:{serial}", "adb", "", "ready", "plugged in, not asked yet") for serial in usb_serials()]


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
        open=_open_phone,
    ),
    "replay": Scheme(
        form="replay:TIMES.json",
        what="recorded times, answered in real time",
        problem=lambda rest: "" if rest else "a file must follow 'replay:'",
        open=_open_replay,
    ),
}

PLANNED_SCHEMES = {
    "ssh": "a board reached over SSH",
    "coral": "a Coral Edge TPU",
}


def _known() -> str:
    return "Known are " + ", ".join(f"{s.form} ({s.what})" for s in SCHEMES.values())
