"""One writer per run folder.

The lock is the operating system's, on an open file: it ends with its process, however that ends, so there is no stale
lock to clean up. What the file says (process and host) is only for the message.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import IO, Any

from nas_edge.errors import RunError
from nas_edge.runs.untrusted import open_regular

# Whoever lists runs holds the lock for an instant, to see whether it is free.
_ATTEMPTS = 5
_PAUSE_S = 0.05

if sys.platform == "win32":
    import msvcrt

    # Windows hides locked bytes from other processes, so a byte is locked that is far beyond what they read.
    _OFFSET = 1 << 30

    def _try_lock(file: IO[Any], shared: bool) -> None:
        file.seek(_OFFSET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

else:
    import fcntl

    def _try_lock(file: IO[Any], shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


class RunLock:
    """Held in a `with` block by whoever writes to a run.

    Args:
        path: the lock's file, in the run folder.

    Raises:
        RunError: on entering, when another process holds it, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> RunLock:
        try:
            file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write to {self._path.parent}: {error.strerror}") from error
        for attempt in range(_ATTEMPTS):
            try:
                _try_lock(file, shared=False)
                break
            except OSError:
                if attempt + 1 == _ATTEMPTS:
                    file.seek(0)
                    holder = _describe(file.read())
                    file.close()
                    raise RunError(
                        f"{self._path.parent} is in use by {holder}", fix="wait until that is done, or stop it"
                    ) from None
                time.sleep(_PAUSE_S)
        self._file = file
        try:
            file.truncate(0)
            json.dump({"pid": os.getpid(), "host": platform.node()}, file)
            file.flush()
        except OSError:
            # Only the message needs it; a full disk is noticed where it matters.
            pass
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def is_locked(path: Path) -> bool:
    """Whether somebody is writing to the run whose lock file this is.

    Raises:
        RunError: when it is not a file.
    """
    try:
        with open_regular(path) as file:
            _try_lock(file, shared=True)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _describe(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
