"""Whose a phone is: one process at a time that measures on it, and this computer's mark on what it leaves there."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from typing import IO, TYPE_CHECKING

from device_agents.android.keys import config_folder
from device_agents.device_lock import DeviceLock
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
_WAIT_S = 15.0  # for another process that is giving this computer its number


class PhoneClaim:
    """The right to measure on a phone, kept until `release`; see `device_lock`.

    Args:
        transport: The phone.

    Raises:
        DeviceUnavailableError: If another process has it, or the phone does not answer.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = DeviceLock(f"{BASE}/lock", f"the phone at {transport.address}")
        self.renew()

    @property
    def file(self) -> str:
        """The file on the phone that `device_lock.RENEW` touches."""
        return self._lock.file

    def renew(self) -> None:
        """Takes the phone again, in case another one answers now or the claim was lost meanwhile.

        Raises:
            DeviceUnavailableError: As the constructor.
        """
        self._lock.acquire(self._shell)

    def release(self) -> None:
        """Lets others have the phone."""
        self._lock.release(self._shell)

    def _shell(self, text: str, *arguments: str) -> tuple[int, str]:
        done = self._transport.script(text, *arguments, timeout_s=5.0)
        return done.exit_code, done.output

    def __enter__(self) -> PhoneClaim:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def computer_tag() -> str:
    """Returns the mark of what this computer leaves on a phone for a while, so that it removes no other computer's.

    A random one: computers, and containers above all, may share a name.

    Raises:
        DeviceUnavailableError: If the settings folder cannot be written.
    """
    file = _locked("computer_id", _WAIT_S)
    if isinstance(file, str):
        raise DeviceUnavailableError(f"{config_folder() / 'computer_id'} is locked by another process", fix="try again")
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
            f"{path} cannot be written: {error.strerror}",
            fix=f"make {path.parent} writable, or set XDG_CONFIG_HOME",
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
