"""What a terminal gets, and what is known of one that was closed."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys

from nas_edge.terminal import printable, was_closed

# Writes until that fails, though it is not told that the terminal is gone.
WRITER = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from nas_edge.terminal import was_closed
try:
    while True:
        print("here", flush=True)
        time.sleep(0.01)
except OSError as error:
    import os
    os._exit(7 if was_closed(error) else 8)
"""


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\tü") == "a?[2Jb?ü"


def test_a_write_to_a_terminal_that_was_closed_is_told_from_other_errors() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", WRITER], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        assert b"here" in os.read(master, 100)
        os.close(master)
        assert process.wait(60) == 7
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_an_error_of_a_disk_is_no_closed_terminal() -> None:
    assert not was_closed(OSError(errno.EIO, "input/output error"))
    assert not was_closed(OSError(errno.ENOSPC, "no space"))
    assert not was_closed(ValueError("other"))
