"""A board: what is on it, the worker that is copied to it, and the right to measure there."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.device_lock import DeviceLock
from device_agents.errors import BenchFailedError, DeviceError, DeviceUnavailableError
from device_agents.ssh.address import BoardAddress
from device_agents.ssh.channel import SshChannel
from device_agents.ssh.connection import Completed, SshConnection

LEAST_PYTHON = (3, 7)
# In nobody's home, since it is for all users of the board; gone after a restart.
LOCK = "/tmp/nas_edge-lock"
# Far more often than a lock becomes stale.
_RENEW_S = 120.0
_INSTALL_TIMEOUT_S = 120.0
_FOLDER = Path(__file__).resolve().parent
_WORKER_FOLDER = _FOLDER.parent / "worker"
# $1: the Python that was asked for, or ""; then what it is given. Else that of setup's environment, else the system's.
FIND_PYTHON = """
python=$1; shift
venv=${XDG_DATA_HOME:-$HOME/.local/share}/nas_edge/venv/bin/python
if [ -z "$python" ]; then
  if [ -x "$venv" ]; then python=$venv; else python=python3; fi
fi
exec "$python" "$@"
"""
_NOT_FOUND = (126, 127)
# A zip file is the same for the same files only if it has no times of theirs.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class BoardFacts:
    """What is on a board.

    Attributes:
        python: The Python that is used, as it calls itself.
        version: Its version.
        machine: Instruction set, for example "aarch64".
        numpy: Whether that Python has NumPy.
        runtime: The TFLite runtime it has, or "".
        free_bytes: Room where the worker goes.
        file: Where the worker lies.
        has_worker: Whether it is there, whole.
    """

    python: str
    version: tuple[int, ...]
    machine: str
    numpy: bool
    runtime: str
    free_bytes: int
    file: str
    has_worker: bool

    @property
    def version_text(self) -> str:
        """The version, as people write it."""
        return ".".join(map(str, self.version))


@functools.cache
def worker_file() -> tuple[str, bytes]:
    """Returns the name and the bytes of the file that a board's Python runs as the worker.

    The name holds a hash of the bytes, so another version never is taken for this one.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        main = "from nas_edge_worker.__main__ import main\nmain()\n"
        entries = {"__main__.py": main.encode()}
        entries |= {f"nas_edge_worker/{path.name}": path.read_bytes() for path in sorted(_WORKER_FOLDER.glob("*.py"))}
        for name, data in entries.items():
            file.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    data = buffer.getvalue()
    return f"worker-{hashlib.sha256(data).hexdigest()[:16]}.pyz", data


class Board:
    """A board over one connection; everything connects when it is needed, and anew after the link was lost.

    Args:
        address: Where it is.
        worker_arguments: With which the worker is started.
    """

    def __init__(self, address: BoardAddress, worker_arguments: Sequence[str] = ()) -> None:
        self.address, self._worker_arguments = address, worker_arguments
        self.connection = SshConnection(address)
        self._lock = DeviceLock(LOCK, f"the board at {address}")
        self._is_ready = False
        self._file, self._python = "", ""
        self._ended: threading.Event | None = None

    def start_worker(self) -> SshChannel:
        """Starts the worker; the first time on a connection, after claiming the board and copying what is missing.

        Raises:
            DeviceUnavailableError: If the board cannot be reached, is in use, or lacks something.
        """
        if not self.connection.alive:
            self._is_ready = False
        if not self._is_ready:
            self.claim()
            facts = self.ready()
            self._file, self._python, self._is_ready = facts.file, facts.python, True
        process = self.connection.start(
            [self._python, "-c", _board_side(), "start", self._file, *self._worker_arguments]
        )
        return SshChannel(process, self.connection)

    def claim(self) -> None:
        """Takes the board for this process until `close`.

        Raises:
            DeviceUnavailableError: If another process has it, or it does not answer.
        """
        self._lock.acquire(self.shell)
        if self._ended is None:
            self._ended = threading.Event()
            threading.Thread(target=self._renew, args=(self._ended,), daemon=True).start()

    def ready(self) -> BoardFacts:
        """Returns what is on the board, once everything is there.

        Raises:
            DeviceUnavailableError: If something is missing that only the user can bring.
        """
        facts = self.examine()
        check_python(facts, self.address)
        if not facts.has_worker:
            self.install_worker()
        return facts

    def examine(self) -> BoardFacts:
        """Returns what is on the board.

        Raises:
            DeviceUnavailableError: If it does not answer, or has no Python.
        """
        name, data = worker_file()
        return _read_facts(self.ask("examine", name, hashlib.sha256(data).hexdigest()), self.address)

    def install_worker(self) -> None:
        """Copies the worker.

        Raises:
            DeviceUnavailableError: If it cannot be kept there.
        """
        name, data = worker_file()
        self.ask("install", name, hashlib.sha256(data).hexdigest(), data=data, timeout_s=_INSTALL_TIMEOUT_S)

    def ask(self, what: str, *arguments: str, data: bytes = b"", timeout_s: float = 30.0) -> dict[str, Any]:
        """Has a function of `board_side` run and returns its answer, unchecked.

        Raises:
            DeviceUnavailableError: If that fails.
        """
        done = self.python("-c", _board_side(), what, *arguments, data=data, timeout_s=timeout_s)
        if done.exit_code in _NOT_FOUND:
            name = self.address.python or "python3"
            raise DeviceUnavailableError(
                f"The board at {self.address} has no Python {name!r}",
                fix="install Python 3.7 or later there, or name one: ssh://...?python=PATH",
            )
        try:
            answer = json.loads(done.output.decode())
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            said = done.log[-300:] or done.output[-300:].decode(errors="replace")
            raise BenchFailedError(
                f"The Python of the board at {self.address} failed (exit status {done.exit_code}): {said}",
                fix="Python 3.7 or later is needed; does the login shell print anything by itself?",
            )
        if "error" in answer:
            raise DeviceUnavailableError(
                f"The board at {self.address} cannot keep what is copied to it: {str(answer['error'])[:300]}",
                fix="free some storage in its home folder, and see that it can be written",
            )
        return answer

    def python(self, *arguments: str, data: bytes = b"", timeout_s: float = 30.0) -> Completed:
        """Runs the board's Python."""
        return self.connection.run(["sh", "-c", FIND_PYTHON, "sh", self.address.python, *arguments], data, timeout_s)

    def shell(self, text: str, *arguments: str) -> tuple[int, str]:
        """Runs a script, see `device_lock.Shell`."""
        done = self.connection.run(["sh", "-c", text, "sh", *arguments], timeout_s=15.0)
        return done.exit_code, done.output.decode(errors="replace")

    def close(self) -> None:
        """Lets others have the board, and ends the connection."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None
            with contextlib.suppress(DeviceError):  # where the board is gone, so is what measured on it
                self._lock.release(self.shell if self.connection.alive else _unreachable)
        self.connection.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(_RENEW_S):
            if self.connection.alive:
                with contextlib.suppress(DeviceError):  # who measures next finds out
                    self.shell('touch -c "$1"', self._lock.file)


def _unreachable(text: str, *arguments: str) -> tuple[int, str]:
    raise DeviceUnavailableError("The board is gone")


def check_python(facts: BoardFacts, address: BoardAddress) -> None:
    """Raises DeviceUnavailableError unless the board's Python can run the worker."""
    if facts.version < LEAST_PYTHON:
        raise DeviceUnavailableError(
            f"The Python of the board at {address} is too old",
            expected=".".join(map(str, LEAST_PYTHON)) + " or later",
            received=f"{facts.version_text} ({facts.python})",
            fix="name another one: ssh://...?python=PATH",
        )
    missing = [*([] if facts.numpy else ["NumPy"]), *([] if facts.runtime else ["TFLite runtime"])]
    if missing:
        raise DeviceUnavailableError(
            f"{facts.python} on the board at {address} has no {' and no '.join(missing)}",
            fix=f"nas-edge devices setup '{address}' installs it there, in an environment of its own",
        )


def _read_facts(answer: dict[str, Any], address: BoardAddress) -> BoardFacts:
    try:
        texts = [answer[name] for name in ("python", "machine", "runtime", "file")]
        version = tuple(answer["version"])
        if not all(isinstance(text, str) and len(text) < 4096 and text.isprintable() for text in texts):
            raise ValueError("a text is not printable")
        if not all(type(part) is int for part in version) or len(version) != 3:
            raise ValueError("version")
        python, machine, runtime, file = texts
        return BoardFacts(
            python,
            version,
            machine,
            bool(answer["numpy"]),
            runtime,
            int(answer["free_bytes"]),
            file,
            bool(answer["has_worker"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BenchFailedError(f"The board at {address} says of itself what makes no sense: {error}") from error


@functools.cache
def _board_side() -> str:
    return (_FOLDER / "board_side.py").read_text(encoding="utf-8")
