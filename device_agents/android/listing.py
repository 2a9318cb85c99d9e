"""The phones of `nas-edge devices`: what they are, and what is missing before they can be measured.

All are asked at once and none is waited for: a phone that wants its key accepted is listed as such. Where there is no
phone, one row says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from device_agents.android.address import adb_server, open_transport
from device_agents.android.server_socket import server_runs
from device_agents.android.state import read_identity
from device_agents.android.tool import find_tool, how_to_get, is_on_phone
from device_agents.android.transport import UnauthorizedError, printable
from device_agents.errors import DeviceError
from device_agents.scheme import DeviceRow
from device_agents.wording import what_happened

if TYPE_CHECKING:
    from device_agents.android.adb_server_transport import ServerPhone

_T = TypeVar("_T")
_PROMPT_TIMEOUT_S = 1.0
_ANSWER_TIMEOUT_S = 4.0
_AT_ONCE = 16


@dataclass(frozen=True)
class _Obstacle:
    """Why a phone that the adb server lists cannot be used: a word, and what to do."""

    state: str
    fix: str


# By the server's own word for it.
_OBSTACLES = {
    "unauthorized": _Obstacle("unauthorised", "unlock it and tap 'Allow' where it asks 'Allow USB debugging?'"),
    "authorizing": _Obstacle("unauthorised", "unlock it and tap 'Allow' where it asks 'Allow USB debugging?'"),
    "offline": _Obstacle("offline", "unlock it; else plug it in again, or switch USB debugging off and on"),
    "connecting": _Obstacle("offline", "it is connecting; try again in a few seconds"),
    "no permissions": _Obstacle(
        "no permission", "add a udev rule (package android-sdk-platform-tools-common), then plug it in again"
    ),
    "bootloader": _Obstacle("not booted", "it is in its bootloader; start Android"),
    "recovery": _Obstacle("not booted", "it is in recovery mode; start Android"),
    "sideload": _Obstacle("not booted", "it is in recovery mode; start Android"),
}


_NO_PHONE = (
    "switch on USB debugging in the phone's developer options, plug it in with a cable that carries data, and unlock "
    "it. {}. A phone on the network is not looked for: nas-edge devices doctor adb://HOST:PORT"
)
_NONE_ON_SERVER = _NO_PHONE.format("For Wi-Fi: adb pair HOST:PORT, then adb connect HOST:PORT")
_NONE_ON_USB = _NO_PHONE.format("On Linux it takes a permission: sudo apt install android-sdk-platform-tools-common")


def list_phones() -> list[DeviceRow]:
    """Returns the phones of the adb server if one runs, else those on USB; takes a few seconds at most.

    Where there is none, one row of address `adb:` says why.
    """
    with_server = server_runs()
    try:
        if with_server:
            rows = _at_once(_of_server, adb_server().server_phones())
        else:
            from device_agents.android.adb_shell_transport import usb_serials

            rows = _at_once(_asked, [printable(serial) for serial in usb_serials()])
    except DeviceError as error:
        return [replace(_unavailable("adb:", error), present=False)]
    if rows:
        return rows
    if with_server:
        return [_none("the adb server knows of no phone", _NONE_ON_SERVER)]
    return [_none("no phone on USB, and no adb server", _NONE_ON_USB)]


def _none(found: str, fix: str) -> DeviceRow:
    return DeviceRow("adb:", "adb", "", "unavailable", found, fix, present=False)


def _unavailable(address: str, error: DeviceError) -> DeviceRow:
    return DeviceRow(address, "adb", "", "unavailable", what_happened(error), error.fix or "")


def _at_once(ask: Callable[[_T], DeviceRow], phones: Sequence[_T]) -> list[DeviceRow]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(ask, phones))


def _of_server(phone: ServerPhone) -> DeviceRow:
    if phone.state == "device":
        return _asked(phone.serial)
    obstacle = _OBSTACLES.get(phone.state, _Obstacle(phone.state, "start Android on it"))
    return DeviceRow(f"adb:{phone.serial}", "adb", phone.model, obstacle.state, obstacle.fix)


def _asked(serial: str) -> DeviceRow:
    """What a phone says of itself."""
    address = f"adb:{serial}"
    try:
        with open_transport(address, prompt_timeout_s=_PROMPT_TIMEOUT_S) as transport:
            identity = read_identity(transport, timeout_s=_ANSWER_TIMEOUT_S)
            has_tool = find_tool(identity.abi) is not None or is_on_phone(transport)
    except UnauthorizedError:
        unauthorized = _OBSTACLES["unauthorized"]
        return DeviceRow(address, "adb", "", unauthorized.state, unauthorized.fix)
    except DeviceError as error:
        return _unavailable(address, error)
    android = f"Android {identity.android}" if identity.android else "Android version unknown"
    facts = ", ".join(filter(None, (identity.soc, android, identity.abi)))
    if has_tool:
        return DeviceRow(address, "adb", identity.model, "ready", facts)
    missing = f"{facts}; lacks benchmark_model"
    return DeviceRow(address, "adb", identity.model, "not set up", missing, how_to_get(identity.abi, address))
