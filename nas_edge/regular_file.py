"""Opens files that may have been put there by anybody: a FIFO would be waited for, a device may never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFDIR: "directory",
}


class NotRegularFileError(OSError):
    """It is a FIFO, a socket, a device or a directory; `strerror` says which."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading, or fails at once.

    Raises:
        OSError: when it cannot be opened.
        NotRegularFileError: when it is not a regular file.
    """
    # Without O_NONBLOCK, opening a FIFO hangs until somebody opens its other end. Of files it changes nothing.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "special file")
            raise NotRegularFileError(None, f"not a regular file but a {kind}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
