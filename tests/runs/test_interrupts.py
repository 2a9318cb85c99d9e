"""Signals while native code runs, which Python's own handlers have to wait for."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

BUSY = """
import hashlib
from nas_edge.runs.interrupts import StopSignals

with StopSignals("stopped; continue with: more") as stop, stop.held():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"minutes", b"", 10**9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a signal sent to a process there ends it")
def test_the_first_signal_is_answered_and_the_second_ends_the_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "\n"
            assert process.stderr.readline() == "stopping after this step; press Ctrl-C again to stop now\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr.read() == "\nnas-edge: stopped; continue with: more\n"
        finally:
            process.kill()
