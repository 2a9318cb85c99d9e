"""What may follow `adb:` in a device address."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from device_agents.api import DeviceAgent

DEFAULT_PORT = 5555


def address_problem(rest: str) -> str:
    """Returns what is wrong with what follows `adb:`, "" if nothing is."""
    if not rest.startswith("//"):
        return "" if re.fullmatch(r"[\w.:-]{0,100}", rest) else "a serial number has letters, digits and . : - _ only"
    try:
        split_host_port(rest)
    except ValueError as error:
        return str(error)
    return ""


def split_host_port(rest: str) -> tuple[str, int]:
    """Returns host and port of `//HOST:PORT`; the port may be left out.

    Raises:
        ValueError: If it is malformed.
    """
    parts = urlsplit(rest)
    host, port = parts.hostname, parts.port  # raises ValueError itself for a port that is none
    extra = parts.path or parts.query or parts.fragment or parts.username
    if extra or not host or not re.fullmatch(r"[\w.:%-]{1,255}", host):
        raise ValueError("expected //HOST:PORT")
    if port == 0:
        raise ValueError("port must be from 1 to 65535")
    return host, port or DEFAULT_PORT


def open_phone(rest: str) -> DeviceAgent:
    """Returns the agent for what follows `adb:`; it connects when it is first asked something."""
    from device_agents.android.adb_shell_transport import AdbShellTransport
    from device_agents.android.agent import AndroidAgent

    if rest.startswith("//"):
        return AndroidAgent(AdbShellTransport.tcp(*split_host_port(rest)))
    return AndroidAgent(AdbShellTransport.usb(rest))
