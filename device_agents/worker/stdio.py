"""Frames over stdin and stdout, which are kept for them alone."""

from __future__ import annotations

import os
from typing import Any


def take_over_stdio() -> tuple[int, int]:
    """Returns file descriptors of what were stdin and stdout, for frames.

    Native libraries print to file descriptor 1 at will, which would corrupt the stream;
    from here on such prints go to stderr.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return read_fd, write_fd


def write_all(sink: Any, data: bytes) -> None:
    """Writes all of the bytes to an unbuffered file."""
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]
