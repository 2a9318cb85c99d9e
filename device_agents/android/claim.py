"""Whose a phone is: this computer's mark on what it leaves there, and one process at a time that measures on it.

A phone is known by a number that is left on it, since serial numbers are not always unique and addresses change. Its
lock is the operating system's, on a file in the settings folder, so that it ends with its process, however that ends.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from typing import IO, TYPE_CHECKING

from device_agents.android.keys import config_folder
from device_agents.errors import DeviceUnavailableError

if TYPE_CHECKING:
    from device_agents.android.transport import Transport

if sys.platform == "win32":
    import msvcrt

    # Windows hides locked bytes from other processes, so a byte is locked that is far beyond what they read.
    def _lock(file: IO[str]) -> None:
        file.seek(1 << 30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

    def _unlock(file: IO[str]) -> None:
        file.close()

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(0)

    def _unlock(file: IO[str]) -> None:
        # Not by closing it alone: a process that was forked meanwhile has the same lock.
        fcntl.flock(file, fcntl.LOCK_UN)
        file.close()


BASE = "/data/local/tmp/nas_edge"
_PAUSE_S = 0.05
_WAIT_S = 15.0  # for another process that is giving a phone, or this computer, its number
# $1 folder, $2 a number for the phone if it has none yet.
_NUMBER_PHONE = """
id=$1/phone_id new=$1/phone_id.$2
grep -qE '^[0-9a-f]{16}$' "$id" 2>/dev/null || {
  mkdir -p "$1" && rm -rf "$id" && echo "$2" > "$new" && mv "$new" "$id" || { rm -f "$new"; exit 1; }
}
cat "$id"
"""


class PhoneClaim:
    """The right to measure on a phone, kept until `release`.

    Args:
        transport: The phone.

    Raises:
        DeviceUnavailableError: If another agent on this computer has it, the phone does not answer, or the settings
            folder cannot be written.
    """

    def __init__(self, transport: Transport) -> None:
        self.phone_id = phone_id(transport)
        file = _locked(f"phones/{self.phone_id}.lock")
        if isinstance(file, str):
            holder = f"process {file}" if re.fullmatch(r"\d{1,20}", file) else "another process"
            raise DeviceUnavailableError(
                f"The phone at {transport.address} is being measured by {holder} of this computer. "
                "Wait until that is done, or use another phone"
            )
        self._file = file
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Lets others have the phone."""
        _unlock(self._file)

    def __enter__(self) -> PhoneClaim:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def phone_id(transport: Transport) -> str:
    """Returns the number by which a phone is known, giving it one if it has none."""
    found = transport.script('cat "$1/phone_id" 2>/dev/null', BASE).output.strip()
    if not _is_hex(found, 16):
        lock = _locked("phones/new.lock", _WAIT_S)
        try:
            done = transport.script(_NUMBER_PHONE, BASE, secrets.token_hex(8))
        finally:
            if not isinstance(lock, str):
                _unlock(lock)
        found = done.output.strip()
        if not _is_hex(found, 16):
            raise DeviceUnavailableError(
                f"{BASE} cannot be written on {transport.address}: {done.last_line}. Free some storage on the phone, "
                "or remove what else is there under that name"
            )
    return found


def computer_tag() -> str:
    """Returns the mark of what this computer leaves on a phone for a while, so that it removes no other computer's.

    A random one: computers, and containers above all, may share a name.

    Raises:
        DeviceUnavailableError: If the settings folder cannot be written.
    """
    file = _locked("computer_id", _WAIT_S)
    if isinstance(file, str):
        raise DeviceUnavailableError(f"{config_folder() / 'computer_id'} is locked by another process. Try again")
    try:
        tag = file.read(100).strip()
        if not _is_hex(tag, 8):
            tag = secrets.token_hex(4)
            file.seek(0)
            file.truncate(0)
            file.write(tag + "\n")
            file.flush()
        return tag
    finally:
        _unlock(file)


def _is_hex(text: str, digits: int) -> bool:
    return bool(re.fullmatch(rf"[0-9a-f]{{{digits}}}", text))


def _locked(name: str, wait_s: float = 0.0) -> IO[str] | str:
    """Returns a file of the settings folder, open and locked, or what it says if another holds it for so long."""
    path = config_folder() / name
    deadline_s = time.monotonic() + wait_s
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8", opener=_open_private)  # noqa: SIM115
    except OSError as error:
        raise DeviceUnavailableError(
            f"{path} cannot be written: {error.strerror}. Make {path.parent} writable, or set XDG_CONFIG_HOME"
        ) from error
    while True:
        try:
            _lock(file)
            return file
        except OSError:
            if time.monotonic() >= deadline_s:
                with file:
                    file.seek(0)
                    return file.read(100).strip()
        time.sleep(_PAUSE_S)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
