"""A board, or another host: what is on it, the program that is copied to it, and the right to measure there."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from device_agents.device_lock import DeviceLock
from device_agents.errors import BenchFailedError, DeviceError, DeviceUnavailableError
from device_agents.ssh.address import BoardAddress
from device_agents.ssh.channel import SshChannel
from device_agents.ssh_connection import Completed, SshConnection

# In nobody's home, since it is for all users of the board; gone after a restart.
LOCK = "/tmp/nas_edge-lock"
# Far more often than a lock becomes stale.
_RENEW_S = 120.0
_INSTALL_TIMEOUT_S = 120.0
_PACKAGE = __package__.partition(".")[0]
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
class Program:
    """What is copied to a board and run by its Python.

    Attributes:
        file: Name of its file. It holds a hash of the bytes, so another version never is taken for this one.
        data: The bytes of the file.
        least_python: The oldest Python that runs it.
        needs_runtime: Whether it is of no use without a TFLite runtime.
    """

    file: str
    data: bytes
    least_python: tuple[int, int]
    needs_runtime: bool

    @property
    def sha256(self) -> str:
        """Of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def least_python_text(self) -> str:
        """The oldest Python, as people write it."""
        return ".".join(map(str, self.least_python))


@dataclass(frozen=True)
class BoardFacts:
    """What is on a board.

    Attributes:
        python: The Python that is used, as it calls itself.
        version: Its version.
        machine: Instruction set, for example "aarch64".
        numpy: Whether that Python has NumPy.
        runtime: The TFLite runtime it has, or "".
        missing: Which of the modules that were asked for it has not.
        free_bytes: Room where the program goes.
        file: Where the program lies.
        has_program: Whether it is there, whole.
    """

    python: str
    version: tuple[int, ...]
    machine: str
    numpy: bool
    runtime: str
    missing: tuple[str, ...]
    free_bytes: int
    file: str
    has_program: bool

    @property
    def version_text(self) -> str:
        """The version, as people write it."""
        return ".".join(map(str, self.version))


@functools.cache
def worker_program() -> Program:
    """Returns the worker, which measures with the board's own TFLite runtime."""
    files = {f"nas_edge_worker/{name}": data for name, data in _sources("worker").items()}
    main = "from nas_edge_worker.__main__ import main\nmain()\n"
    return Program(*_packed_program("worker", main, files), least_python=(3, 7), needs_runtime=True)


@functools.cache
def agents_program() -> Program:
    """Returns all of `device_agents`, of which `serve` is run: it measures on devices that the other host reaches."""
    main = f"from {_PACKAGE}.serve import main\nmain()\n"
    files = {f"{_PACKAGE}/{name}": data for name, data in _sources("").items()}
    return Program(*_packed_program("agents", main, files), least_python=(3, 10), needs_runtime=False)


def _sources(folder: str) -> dict[str, bytes]:
    """The modules in a folder of this package and below, by their paths; it may itself lie in a zip file."""
    found: dict[str, bytes] = {}
    todo = [(resources.files(_PACKAGE).joinpath(folder), "")]
    while todo:
        place, path = todo.pop()
        for entry in place.iterdir():
            if entry.is_dir() and entry.name != "__pycache__":
                todo.append((entry, f"{path}{entry.name}/"))
            elif entry.name.endswith(".py"):
                found[f"{path}{entry.name}"] = entry.read_bytes()
    return dict(sorted(found.items()))


def _packed_program(kind: str, main: str, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in {"__main__.py": main.encode(), **files}.items():
            file.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    data = buffer.getvalue()
    return f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}.pyz", data


class Board:
    """A board over one connection; everything connects when it is needed, and anew after the link was lost.

    Args:
        address: Where it is.
        worker_arguments: With which the worker is started.
        program: What runs there; None for the worker.
    """

    def __init__(
        self, address: BoardAddress, worker_arguments: Sequence[str] = (), program: Program | None = None
    ) -> None:
        self.address, self._worker_arguments = address, worker_arguments
        self.program = program or worker_program()
        self.connection = SshConnection(address)
        self._lock = DeviceLock(LOCK, f"the {address.called}")
        self._is_ready = False
        self._file, self._python = "", ""
        self._ended: threading.Event | None = None

    def start_worker(self) -> SshChannel:
        """Starts the worker; the first time on a connection, after claiming the board and copying what is missing.

        Raises:
            DeviceUnavailableError: If the board cannot be reached, is in use, or lacks something.
        """
        if not self._still_ready():
            self.claim()
        return self._started("start", *self._worker_arguments)

    def start_serving(self, session: str) -> SshChannel:
        """Starts `serve`, which several may do at once; ends one that was started for the same session before.

        Raises:
            DeviceUnavailableError: If the host cannot be reached, or lacks something.
        """
        return self._started("serve", session)

    def _still_ready(self) -> bool:
        self._is_ready = self._is_ready and self.connection.alive
        return self._is_ready

    def _started(self, how: str, *arguments: str) -> SshChannel:
        if not self._still_ready():
            facts = self.ready()
            self._file, self._python, self._is_ready = facts.file, facts.python, True
        process = self.connection.start([self._python, "-c", _board_side(), how, self._file, *arguments])
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
        check_python(facts, self.program, self.address)
        if not facts.has_program:
            self.install()
        return facts

    def examine(self, *modules: str) -> BoardFacts:
        """Returns what is on the board.

        Args:
            *modules: Of which its Python is asked whether it has them.

        Raises:
            DeviceUnavailableError: If it does not answer, or has no Python.
        """
        return _read_facts(self.ask("examine", self.program.file, self.program.sha256, *modules), self.address)

    def install(self) -> None:
        """Copies the program.

        Raises:
            DeviceUnavailableError: If it cannot be kept there.
        """
        program = self.program
        self.ask("install", program.file, program.sha256, data=program.data, timeout_s=_INSTALL_TIMEOUT_S)

    def ask(self, what: str, *arguments: str, data: bytes = b"", timeout_s: float = 30.0) -> dict[str, Any]:
        """Has a function of `board_side` run and returns its answer, unchecked.

        Raises:
            DeviceUnavailableError: If that fails.
        """
        done = self.python("-c", _board_side(), what, *arguments, data=data, timeout_s=timeout_s)
        if done.exit_code in _NOT_FOUND:
            name = self.address.python or "python3"
            raise DeviceUnavailableError(
                f"The {self.address.called} has no Python {name!r}",
                fix=f"install Python {self.program.least_python_text} or later there, or name one: "
                "ssh://...?python=PATH",
            )
        try:
            answer = json.loads(done.output.decode())
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            said = done.log[-300:] or done.output[-300:].decode(errors="replace")
            raise BenchFailedError(
                f"The Python of the {self.address.called} failed (exit status {done.exit_code}): {said}",
                fix=f"Python {self.program.least_python_text} or later is needed; does the login shell print anything "
                "by itself?",
            )
        if "error" in answer:
            raise DeviceUnavailableError(
                f"The {self.address.called} cannot keep what is copied to it: {str(answer['error'])[:300]}",
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


def check_python(facts: BoardFacts, program: Program, address: BoardAddress) -> None:
    """Raises DeviceUnavailableError unless the board's Python can run a program."""
    if facts.version < program.least_python:
        raise DeviceUnavailableError(
            f"The Python of the {address.called} is too old",
            expected=f"{program.least_python_text} or later",
            received=f"{facts.version_text} ({facts.python})",
            fix="name another one: ssh://...?python=PATH",
        )
    lacks_runtime = program.needs_runtime and not facts.runtime
    missing = [*([] if facts.numpy else ["NumPy"]), *(["TFLite runtime"] if lacks_runtime else [])]
    if missing:
        raise DeviceUnavailableError(
            f"{facts.python} on the {address.called} has no {' and no '.join(missing)}",
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
        missing = tuple(str(name) for name in answer["missing"])
        return BoardFacts(
            python,
            version,
            machine,
            bool(answer["numpy"]),
            runtime,
            missing,
            int(answer["free_bytes"]),
            file,
            bool(answer["has_program"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BenchFailedError(f"The {address.called} says of itself what makes no sense: {error}") from error


@functools.cache
def _board_side() -> str:
    return resources.files(__package__).joinpath("board_side.py").read_text(encoding="utf-8")
