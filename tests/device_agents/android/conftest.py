"""Fixtures: the real daemon as a phone, shared by the tests that leave it as it was, and one that can be broken."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.transport import Transport
from tests.support.android.adb_server import AdbServer
from tests.support.android.phone import Connect, Phone, PhoneFactory, start, write_overlay
from tests.support.android.phones import PIXEL
from tests.support.android.tools import NO_BUNDLE, install_real_bundle, real_bundle
from tests.support.data import CACHE
from tests.support.requirements import missing


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_overlay(tmp_path_factory.mktemp("pixel") / "overlay", PIXEL.texts, PIXEL.files)


@pytest.fixture(scope="session")
def phone(overlay: Path) -> Iterator[Phone]:
    """For tests that leave it as it was."""
    phone = start(overlay)
    yield phone
    phone.close()


@pytest.fixture
def new_phone(overlay: Path) -> Iterator[PhoneFactory]:
    """Starts phones to be broken."""
    started: list[Phone] = []

    def new(**options: object) -> Phone:
        started.append(start(overlay, **options))
        return started[-1]

    yield new
    for phone in started:
        phone.close()


@pytest.fixture(scope="session")
def adb_server(home: Path, phone: Phone) -> Iterator[AdbServer]:
    """A real adb server on a port of its own; `phone` is asked for because it says why there is none here."""
    server = AdbServer(home)
    yield server
    server.close()


@pytest.fixture(params=["adb-shell", "adb-server"])
def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Opens links to phones, over each back-end in turn."""
    links: list[Transport] = []

    def shell(phone: Phone) -> Transport:
        links.append(AdbShellTransport.tcp("127.0.0.1", phone.port))
        return links[-1]

    def server(phone: Phone) -> Transport:
        from device_agents.android.adb_server_transport import AdbServerTransport

        links.append(AdbServerTransport(running.connect(phone)))
        return links[-1]

    if request.param == "adb-shell":
        yield shell
    else:
        running: AdbServer = request.getfixturevalue("adb_server")
        monkeypatch.setenv("ADB_SERVER_SOCKET", running.socket)
        yield server
    for link in links:
        link.close()


@pytest.fixture
def link(phone: Phone, connect: Connect) -> Transport:
    return connect(phone)


@pytest.fixture(scope="session")
def ready_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """A phone of this machine's instruction set, with the libraries the real tool needs; left as it was by tests."""
    bundle = real_bundle(CACHE)
    if bundle is None:
        missing("benchmark_model", NO_BUNDLE)
    getprop = PIXEL.texts["getprop"].replace("arm64-v8a", {"aarch64": "arm64-v8a"}.get(platform.machine(), "x86_64"))
    files = {**PIXEL.files, "sys/devices/system/cpu/possible": "0-1\n", "sys/devices/system/cpu/online": "0-1\n"}
    overlay = write_overlay(tmp_path_factory.mktemp("ready") / "overlay", {**PIXEL.texts, "getprop": getprop}, files)
    install_real_bundle(bundle, overlay)
    phone = start(overlay, data_mib=1024)
    yield phone
    phone.close()


@pytest.fixture
def tool_file() -> Path:
    """The real tool, to be pushed."""
    bundle = real_bundle(CACHE)
    if bundle is None:
        missing("benchmark_model", NO_BUNDLE)
    return bundle / "bin/benchmark_model"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty settings folder, and no tool named."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv("NAS_EDGE_BENCHMARK_MODEL", raising=False)
    return tmp_path / "settings/nas_edge"
