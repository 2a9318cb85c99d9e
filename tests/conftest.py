"""What holds for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_adb_server() -> Iterator[None]:
    """An adb server that the user runs is never asked: nothing listens on this port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADB_SERVER_SOCKET", "tcp:1")
        yield
