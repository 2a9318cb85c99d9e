"""What may follow `adb:` in a device address, and what then leads to the phone.

adb:[SERIAL]         through the adb server if one runs, since it owns the USB interface; else USB
adb-usb:[SERIAL]     USB, without a server
adb-server:[SERIAL]  through the adb server; the way to phones paired over Wi-Fi
adb://HOST:PORT      the network, without a server
"""

from __future__ import annotations

import re
from types import ModuleType
from urllib.parse import urlsplit

from device_agents.android.server_socket import server_runs
from device_agents.android.transport import Transport
from device_agents.api import DeviceAgent
from device_agents.errors import DeviceUnavailableError

DEFAULT_PORT = 5555


def address_problem(rest: str) -> str:
    """Returns what is wrong with what follows `adb:`, "" if nothing is."""
    if not rest.startswith("//"):
        return serial_problem(rest)
    try:
        split_host_port(rest)
    except ValueError as error:
        return str(error)
    return ""


def serial_problem(serial: str) -> str:
    """Returns what is wrong with a serial number, "" if nothing is."""
    fits = re.fullmatch(r"[\w.:\[\]-]{0,100}", serial)
    return "" if fits else "a serial number has letters, digits and . : - _ [ ] only"


def split_host_port(rest: str) -> tuple[str, int]:
    """Returns host and port of `//HOST:PORT`; the port may be left out.

    Raises:
        ValueError: If it is malformed.
    """
    try:
        parts = urlsplit(rest)
        host = parts.hostname or ""
        host.encode("idna")  # as connecting will; refuses empty and overlong labels
    except ValueError:
        raise ValueError("no host can have that name") from None
    if parts.path or parts.query or parts.fragment or parts.username or not re.fullmatch(r"[\w.:%-]{1,255}", host):
        raise ValueError("only a host and a port may follow adb://")
    try:
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port must be a number from 1 to 65535")
    return host, port


def adb_server() -> ModuleType:
    """Returns the module for links over an adb server.

    Raises:
        DeviceUnavailableError: If what it needs is not installed.
    """
    try:
        from device_agents.android import adb_server_transport
    except ImportError as error:
        raise DeviceUnavailableError(
            f"Going through an adb server needs the package adbutils ({error})",
            fix="install it: pip install 'nas-edge[adb-server]'; if a server runs and is not wanted, stop it with `adb "
            "kill-server`: the phones are on USB then",
        ) from error
    return adb_server_transport


def open_transport(address: str, prompt_timeout_s: float | None = None) -> Transport:
    """Returns the link to a phone; it connects when it is first used.

    Args:
        address: In one of the forms above, known to be well-formed.
        prompt_timeout_s: How long to wait, in seconds, for the key to be accepted on the phone; None for as long as a
            person may take. A server asks by itself and waits for nothing.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "adb-server" or (scheme == "adb" and not rest.startswith("//") and server_runs()):
        transport: Transport = adb_server().AdbServerTransport(rest)
        return transport
    from device_agents.android.adb_shell_transport import PROMPT_TIMEOUT_S, AdbShellTransport

    wait_s = PROMPT_TIMEOUT_S if prompt_timeout_s is None else prompt_timeout_s
    if rest.startswith("//"):
        return AdbShellTransport.tcp(*split_host_port(rest), wait_s)
    return AdbShellTransport.usb(rest, wait_s)


def known_serials(scheme: str) -> list[str]:
    """Returns the serial numbers that may follow `scheme:`, without asking the phones anything."""
    if scheme == "adb-server" or (scheme == "adb" and server_runs()):
        return [phone.serial for phone in adb_server().server_phones()]
    from device_agents.android.adb_shell_transport import usb_serials

    return usb_serials()


def open_phone(address: str) -> DeviceAgent:
    """Returns the agent for the phone at an address; it connects when it is first asked something."""
    from device_agents.android.agent import AndroidAgent

    return AndroidAgent(open_transport(address))
