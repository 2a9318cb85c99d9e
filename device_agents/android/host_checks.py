"""What this machine lacks for reaching phones, for `nas-edge doctor`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from device_agents.android.address import adb_server
from device_agents.android.server_socket import server_runs, server_socket
from device_agents.checks import Check
from device_agents.errors import DeviceAddressError, DeviceUnavailableError


def check_usb(root: Path = Path("/"), loads: Callable[[], str | None] | None = None) -> list[Check]:
    """Whether phones can be reached by USB, as far as this machine is concerned.

    Args:
        root: where /sys and /dev are.
        loads: returns why the USB library cannot be used, or None; tests may pass their own.
    """
    phones = list(_phones_on_usb(root))
    if server_runs():
        return [Check("usb", "pass", f"left to the adb server; phones with debugging on: {len(phones)}")]
    problem = (loads or _usb_problem)()
    if problem is not None:
        found = f"{problem}; {f'{len(phones)} phones are plugged in' if phones else 'needed for phones on USB only'}"
        fix = (
            "pip install 'nas-edge[usb]'" if "installed" in problem else "install libusb: sudo apt install libusb-1.0-0"
        )
        return [Check("usb", "warn" if phones else "pass", found, fix)]
    checks = [Check("usb", "pass", f"library loads; phones with debugging on: {len(phones)}")]
    checks += [
        Check(
            "usb permission",
            "fail",
            f"{node} may not be opened by this user",
            "sudo apt install android-sdk-platform-tools-common (udev rules); join the group plugdev; plug in again",
        )
        for node in phones
        if not os.access(node, os.R_OK | os.W_OK)
    ]
    return checks


def _usb_problem() -> str | None:
    from adb_shell import adb_device

    if find_spec("usb1") is None:
        return "no USB library installed"
    # The Python part is there; what it wraps may not be.
    return "libusb cannot be loaded" if adb_device.UsbTransport is None else None


def _phones_on_usb(root: Path) -> Iterator[Path]:
    """Device files of what speaks adb: class 0xff, subclass 0x42, protocol 0x01."""
    for interface in (root / "sys/bus/usb/devices").glob("*:*"):
        with suppress(OSError, ValueError):
            read = [(interface / f"bInterface{part}").read_text().strip() for part in ("Class", "SubClass", "Protocol")]
            if read == ["ff", "42", "01"]:
                device = interface.parent / interface.name.partition(":")[0]
                bus, number = (int((device / name).read_text()) for name in ("busnum", "devnum"))
                yield root / f"dev/bus/usb/{bus:03d}/{number:03d}"


def check_adb_server() -> Check:
    """Whether an adb server owns the phones on USB."""
    try:
        where = "{}:{}".format(*server_socket())
        if server_runs():
            adb_server()
            return Check("adb server", "pass", f"one runs at {where}, and addresses with adb: go through it")
    except DeviceAddressError as error:
        return Check("adb server", "fail", str(error), "correct or unset that variable")
    except DeviceUnavailableError:
        fix = "pip install 'nas-edge[adb-server]'; or, to use USB instead, adb kill-server"
        return Check("adb server", "warn", f"one runs at {where}, and what it takes to use it is not installed", fix)
    return Check("adb server", "pass", "none, so addresses with adb: go to USB")
