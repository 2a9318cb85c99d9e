"""One measuring process at a time on a device: a lock that lies on the device itself.

    mkdir FOLDER (atomic) -> FOLDER/OWNER-TOKEN, whose time of change is the last sign of life

So it holds between users, containers and computers, none of which know of each other. Needs only a shell on the device
with mkdir, touch, stat and date, so it serves phones and boards alike.

A lock is stale when its owner ran on this computer and is gone, or has given no sign of life for `STALE_S` by the
device's own clock. Exactly one process can break it: breaking begins with removing the owner's file by name, which
succeeds once. A new owner looks whether it is alone after it has written its file, so two cannot both believe to have
the lock, whatever the order. What measures on the device renews the lock in the same command (`RENEW`).
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import secrets
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from device_agents.errors import DeviceError, DeviceUnavailableError

# Longer than any measurement takes; an owner that was silent for longer loses the device only if somebody asks for it.
STALE_S = 600
NOT_OURS = 93
"""The exit status of a command in which `RENEW` found the lock gone."""
# $lock: the file of the owner. For scripts that measure: shows a sign of life, or ends because another has the device.
RENEW = f'touch -c "$lock" && [ -f "$lock" ] || exit {NOT_OURS}'

Shell = Callable[..., tuple[int, str]]
"""Runs a script on the device with arguments $1, $2, ...; returns its exit status and standard output."""

# $1 folder, $2 own token, $3 own record, $4 token of a stale lock to break, "" for none. Prints every owner there is:
# its token, seconds since its last sign of life, its record.
_ACQUIRE = """
lock=$1 own=$1/owner-$2 new=$1.$2
[ -f "$own" ] && touch -c "$own" && exit 0
[ -z "$4" ] || rm "$lock/owner-$4" 2>/dev/null
mkdir -p "${lock%/*}" || exit 3
# One that was left empty, by a process that ended between two steps, is in nobody's way.
rmdir "$lock" 2>/dev/null
if mkdir "$lock" 2>/dev/null; then
  echo "$3" > "$new" && mv "$new" "$own" || { rm -f "$new"; rmdir "$lock" && exit 3; }
fi
now=$(date +%s) others=0
for owner in "$lock"/owner-*; do
  [ "$owner" != "$own" ] && [ -f "$owner" ] || continue
  others=1
  echo "${owner##*/owner-} $((now - $(stat -c %Y "$owner"))) $(head -c 2000 "$owner")"
done
[ "$others" = 0 ] && rm -f "$lock".* || rm -f "$own"
[ -f "$own" ]
"""
_RELEASE = 'rm "$1/owner-$2" 2>/dev/null; rmdir "$1" 2>/dev/null; :'
_WRITE_FAILED = 3
_BOOT_ID, _PID_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_TRIES = 5
# Tokens of the locks that agents of this process have.
_HELD: set[str] = set()


@dataclass(frozen=True)
class LockOwner:
    """Who has a device.

    Attributes:
        user: Name of the user.
        host: Name of the computer.
        computer: What tells this running computer, and its process ids, from others.
        pid: Process id.
        started: When that process began, in the system's own units; "" if not known.
        since_utc: When it took the lock, ISO 8601.
    """

    user: str
    host: str
    computer: str
    pid: int
    started: str
    since_utc: str


class DeviceLock:
    """The right to measure on a device, once acquired.

    Args:
        folder: Where it is on the device; its parent is made if it is missing.
        device: The device, for messages.
    """

    def __init__(self, folder: str, device: str) -> None:
        self._folder, self._device = folder, device
        self._token = secrets.token_hex(8)

    @property
    def file(self) -> str:
        """What `RENEW` touches."""
        return f"{self._folder}/owner-{self._token}"

    def acquire(self, shell: Shell) -> None:
        """Takes the device, or shows a sign of life if it is ours already.

        Raises:
            DeviceUnavailableError: If another process has it, or the lock cannot be written.
        """
        was_held = self._token in _HELD
        # Before the lock is there, lest another agent of this process takes it for one that was forgotten.
        _HELD.add(self._token)
        try:
            self._acquire(shell)
        except BaseException:
            if not was_held:
                _HELD.discard(self._token)
            raise

    def _acquire(self, shell: Shell) -> None:
        stale = ""
        for _ in range(_TRIES):
            record = json.dumps(asdict(_this_process()))
            status, output = shell(_ACQUIRE, self._folder, self._token, record, stale)
            if status == 0:
                return
            if status == _WRITE_FAILED:
                raise DeviceUnavailableError(
                    f"{self._folder} cannot be written on {self._device}",
                    fix="free some storage there, or remove what else has that name",
                )
            others = [entry for line in output.splitlines() if (entry := _read_entry(line)) is not None]
            busy = [(age_s, owner) for token, age_s, owner in others if not _is_stale(token, age_s, owner)]
            if busy:
                raise self._refusal(*busy[0])
            stale = others[0][0] if others else ""
        raise DeviceUnavailableError(f"Several processes are taking {self._device} at this moment", fix="try again")

    def release(self, shell: Shell) -> None:
        """Lets others have the device; one that cannot be reached is free once this process is gone."""
        _HELD.discard(self._token)
        with contextlib.suppress(DeviceError):
            shell(_RELEASE, self._folder, self._token)

    def _refusal(self, age_s: int, owner: LockOwner | None) -> DeviceUnavailableError:
        who = "another process" if owner is None else f"{owner.user}@{owner.host}, process {owner.pid}"
        since = "" if owner is None else f" since {owner.since_utc}"
        return DeviceUnavailableError(
            f"{self._device} is being measured by {who}{since} (last sign of life {max(0, age_s)} s ago)",
            fix=f"wait until that is done, or use another device; if it is gone, wait {STALE_S // 60} minutes or "
            f"remove {self._folder} there",
        )


def _is_stale(token: str, age_s: int, owner: LockOwner | None) -> bool:
    this = _this_process()
    if owner is None or owner.computer != this.computer:
        # A device whose clock was set may have signs of life from the future.
        return abs(age_s) > STALE_S
    if (owner.pid, owner.started) == (this.pid, this.started):
        return token not in _HELD
    return not _runs(owner)


def _read_entry(line: str) -> tuple[str, int, LockOwner | None] | None:
    """Reads a line of `_ACQUIRE`: token, age in seconds, and the owner if its record makes sense."""
    match = re.fullmatch(r"([\w-]{1,64}) (-?\d{1,12}) ?(.*)", line)
    return None if match is None else (match[1], int(match[2]), _read_owner(match[3]))


def _read_owner(text: str) -> LockOwner | None:
    try:
        raw = json.loads(text)
        owner = LockOwner(**{field.name: raw[field.name] for field in fields(LockOwner)})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (owner.user, owner.host, owner.computer, owner.started, owner.since_utc)
    if not all(isinstance(text, str) and len(text) <= 200 and text.isprintable() for text in texts):
        return None
    return owner if isinstance(owner.pid, int) and 0 < owner.pid < 2**31 else None


def _this_process() -> LockOwner:
    pid = os.getpid()
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return LockOwner(user_name(), _short(socket.gethostname()), _computer(), pid, _started(pid), now)


def _short(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:100]


def user_name() -> str:
    """Returns the name of the user who runs this process, "unknown" where there is none."""
    try:
        return _short(getpass.getuser())
    except (OSError, KeyError, ImportError):  # a container may have a user without a name
        return "unknown"


def _computer() -> str:
    """What is the same for processes that can see each other's ids, and different after a restart."""
    parts = [socket.gethostname(), running_machine()]
    with contextlib.suppress(OSError):
        parts.append(str(_PID_NAMESPACE.readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def running_machine() -> str:
    """Returns what is the same for all processes and containers of a machine, and different after a restart of it."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return f"{uuid.getnode():x}"


def _started(pid: int) -> str:
    """When a process began, so that a reused id is not taken for it; "" where the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    words = stat.rpartition(")")[2].split()  # the name before may hold anything
    return words[19] if len(words) > 19 and words[0] not in "ZX" else ""


def _runs(owner: LockOwner) -> bool:
    """Whether a process of this computer still runs."""
    if sys.platform == "win32":
        return True  # asking would end it
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return _started(owner.pid) == owner.started
