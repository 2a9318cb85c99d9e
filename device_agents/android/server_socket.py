"""Where an adb server is expected, and whether one runs."""

from __future__ import annotations

import contextlib
import os
import re
import socket

from device_agents.errors import DeviceAddressError

_SERVER = ("127.0.0.1", 5037)
_PROBE_TIMEOUT_S = 0.5


def server_socket() -> tuple[str, int]:
    """Returns where an adb server is expected: as told by adb's own environment variables, else port 5037 here.

    Raises:
        DeviceAddressError: If a variable makes no sense.
    """
    named = os.environ.get("ADB_SERVER_SOCKET", "")
    if named:
        match = re.fullmatch(r"tcp:(?:([\w.:%-]+):)?(\d{1,5})", named)
        if match is None:
            raise DeviceAddressError(expected="ADB_SERVER_SOCKET to be tcp:[HOST:]PORT", received=f"{named!r:.80}")
        return match[1] or _SERVER[0], int(match[2])
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "") or str(_SERVER[1])
    if not re.fullmatch(r"\d{1,5}", port):
        raise DeviceAddressError(expected="ANDROID_ADB_SERVER_PORT to be a port", received=f"{port!r:.80}")
    return os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or _SERVER[0], int(port)


def server_runs() -> bool:
    """Returns whether something listens where the adb server is expected."""
    with contextlib.suppress(OSError, OverflowError), socket.create_connection(server_socket(), _PROBE_TIMEOUT_S):
        return True
    return False
