"""What this machine lacks for reaching phones."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from device_agents.android import host_checks
from device_agents.errors import DeviceUnavailableError


def put(root: Path, name: str, text: str) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def phone(root: Path) -> Path:
    """A phone with debugging on, as the kernel shows it; returns its device file."""
    for name, value in {"Class": "ff", "SubClass": "42", "Protocol": "01"}.items():
        put(root, f"sys/bus/usb/devices/1-4/1-4:1.1/bInterface{name}", value)
        put(root, f"sys/bus/usb/devices/1-4/1-4:1.0/bInterface{name}", "06")  # pictures
    (root / "sys/bus/usb/devices/1-4:1.1").symlink_to("1-4/1-4:1.1")
    (root / "sys/bus/usb/devices/1-4:1.0").symlink_to("1-4/1-4:1.0")
    put(root, "sys/bus/usb/devices/1-4/busnum", "1\n")
    put(root, "sys/bus/usb/devices/1-4/devnum", "12\n")
    return put(root, "dev/bus/usb/001/012", "")


def test_usb_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "server_runs", lambda: False)
    (check,) = host_checks.check_usb(tmp_path, lambda: "no USB library installed")
    assert check.state == "pass"
    phone(tmp_path)
    (check,) = host_checks.check_usb(tmp_path, lambda: "no USB library installed")
    assert (check.state, check.fix) == ("warn", "pip install 'nas-edge[usb]'")
    (check,) = host_checks.check_usb(tmp_path, lambda: "libusb cannot be loaded")
    assert "libusb-1.0-0" in check.fix


def test_a_phone_on_usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = phone(tmp_path)
    monkeypatch.setattr(host_checks, "server_runs", lambda: False)
    (check,) = host_checks.check_usb(tmp_path, lambda: None)
    assert (check.state, check.found[-1]) == ("pass", "1")
    # The superuser may open everything, so the answer of the system is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: path != node)
    check = host_checks.check_usb(tmp_path, lambda: None)[1]
    assert check.state == "fail"
    assert str(node) in check.found
    assert "udev" in check.fix
    monkeypatch.setattr(host_checks, "server_runs", lambda: True)
    assert [check.state for check in host_checks.check_usb(tmp_path, lambda: None)] == ["pass"]


def test_the_adb_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    monkeypatch.delenv("ANDROID_ADB_SERVER_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        monkeypatch.setattr(host_checks, "adb_server", lambda: None)
        assert f"one runs at 127.0.0.1:{port}" in host_checks.check_adb_server().found

        def missing() -> None:
            raise DeviceUnavailableError("adbutils is not installed")

        monkeypatch.setattr(host_checks, "adb_server", missing)
        check = host_checks.check_adb_server()
        assert (check.state, "[adb-server]" in check.fix) == ("warn", True)
    assert host_checks.check_adb_server().found.startswith("none")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "no number")
    assert host_checks.check_adb_server().state == "fail"
