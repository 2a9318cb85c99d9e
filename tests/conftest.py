"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_adb_server() -> Iterator[None]:
    """An adb server that the user runs is never asked: nothing listens on this port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADB_SERVER_SOCKET", "tcp:1")
        yield
