"""Fixtures: the real daemon as a phone, shared by the tests that leave it as it was, and one that can be broken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from tests.device_agents.android.phone import Phone, PhoneUnavailableError, write_overlay
from tests.device_agents.android.phones import PIXEL

PhoneFactory = Callable[..., Phone]
# Read before `home` replaces what it depends on.
CACHE = os.environ.get("NAS_EDGE_CACHE") or str(Path("~/.cache/nas_edge").expanduser())


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's own keys and settings stay out of it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_EDGE_CACHE", CACHE)
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_overlay(tmp_path_factory.mktemp("pixel") / "overlay", PIXEL.texts, PIXEL.files)


def start(overlay: Path, **options: object) -> Phone:
    try:
        return Phone(overlay, **options)  # type: ignore[arg-type]
    except PhoneUnavailableError as error:
        pytest.skip(f"no ADB daemon here: {error}")


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


@pytest.fixture
def link(phone: Phone) -> Iterator[AdbShellTransport]:
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        yield link
