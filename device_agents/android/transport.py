"""What is asked of a link to a phone, and what is the same for every link.

A link runs commands with their exit status, and moves files. Everything that goes wrong is one of

    DeviceUnavailableError
    |-- LinkLostError           the connection broke, or cannot be made; a later attempt may work
    |-- UnauthorizedError       the phone has not accepted this computer's key
    |-- RemoteFileError         a file cannot be written, read or renamed on the phone
    `-- RemoteTimeoutError      a command took too long and was ended

A command that runs and fails is no error: its exit status says so.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import TypeVar

from device_agents.android.claim import computer_tag
from device_agents.errors import DeviceUnavailableError, SpecError

# What is not moved in one piece: no model and no tool is larger, and both ends hold it in memory.
MAX_FILE_BYTES = 1 << 30
MAX_OUTPUT_BYTES = 32 << 20
# In the name of a file that is being written, before the mark of the computer that writes it.
PART = ".nas_edge-part-"
_HASHED_DIFFERENTLY = 90
BETTER_LINK = "try another cable or a nearer access point"
_TransportT = TypeVar("_TransportT", bound="Transport")


class LinkLostError(DeviceUnavailableError):
    """The connection broke or cannot be made."""


class UnauthorizedError(DeviceUnavailableError):
    """The phone has not accepted this computer's key."""


class RemoteFileError(DeviceUnavailableError):
    """A file cannot be written, read or renamed on the phone.

    Attributes:
        path: The file on the phone.
    """

    def __init__(
        self,
        what: str,
        path: str,
        *,
        expected: str | None = None,
        received: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, expected=expected, received=received, fix=fix)
        self.path = path


class RefusedError(Exception):
    """How a link hands on, to this module only, that the phone refused a file; in the phone's words."""


class RemoteTimeoutError(DeviceUnavailableError):
    """A command took longer than it may and was ended on the phone."""


@dataclass(frozen=True)
class Completed:
    """A command that ended.

    Attributes:
        exit_code: Its exit status, 0 to 255; a signal is 128 + its number, as shells have it.
        stdout: What it wrote to standard output.
        stderr: What it wrote to standard error.
        sent_s: Seconds until the phone had taken the file that came with it; None if there was none or it is not known.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    sent_s: float | None = None

    @property
    def output(self) -> str:
        """Standard output as text; bytes that are no UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        """Standard error as text; bytes that are no UTF-8 are replaced."""
        return self.stderr.decode("utf-8", "replace")

    @property
    def last_line(self) -> str:
        """The last line it wrote, for messages; standard error first."""
        lines = [line.strip() for text in (self.output, self.errors) for line in text.splitlines() if line.strip()]
        return printable(lines[-1]) if lines else "no output"


@dataclass(frozen=True)
class FileStat:
    """A file on the phone.

    Attributes:
        mode: Type and permissions, as in `os.stat`.
        size_bytes: Its length.
        modified_s: Seconds since the epoch.
    """

    mode: int
    size_bytes: int
    modified_s: int


class Transport(ABC):
    """A link to one phone. Not thread-safe; a link that broke is made again by the next call."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The address that was opened, for example "adb://127.0.0.1:5555"."""

    def run(self, command: Sequence[str], timeout_s: float = 10.0, file: tuple[bytes, str] | None = None) -> Completed:
        """Runs a command and waits for it.

        Args:
            command: Program and arguments; no shell looks at them.
            timeout_s: When it is ended on the phone, in seconds.
            file: What a file shall hold and where it is written before the command runs, in an existing folder. The
                command must verify it. This takes fewer round trips than `send`.

        Raises:
            RemoteTimeoutError: If it took longer.
            RemoteFileError: If the file cannot be written.
            LinkLostError: If the connection broke; the command is ended then, too.
        """
        if not command or not command[0]:
            raise SpecError(expected="a program to run", received=f"{list(command)!r}")
        for word in command:
            if "\0" in word:
                raise SpecError("An argument holds a zero byte", received=f"{word!r:.80}")
        if file is None:
            return self._run(shlex.join(command), timeout_s, None)
        data, path = file
        check_path(path)
        if len(data) > MAX_FILE_BYTES:
            raise SpecError("Too large to push", expected=f"at most {MAX_FILE_BYTES} bytes", received=f"{len(data)}")
        try:
            return self._run(shlex.join(command), timeout_s, file)
        except RefusedError as error:
            raise self._cannot_write(path, error) from error

    def script(
        self, text: str, *arguments: str, timeout_s: float = 10.0, file: tuple[bytes, str] | None = None
    ) -> Completed:
        """Runs a shell script. Whatever varies is handed over as $1, $2, ..., never pasted into the text."""
        return self.run(["sh", "-c", text, "sh", *arguments], timeout_s, file)

    def push(self, data: bytes, path: str, mode: int = 0o600) -> None:
        """Writes a file. It appears under its name only when its size and SHA-256 have been verified there.

        Args:
            data: What it shall hold.
            path: Where, absolute; folders that are missing are made.
            mode: Its permissions.

        Raises:
            RemoteFileError: If it cannot be written (storage full, read-only, no such place).
            LinkLostError: If the connection broke.
        """
        check_path(path)
        part = f"{path}{PART}{computer_tag()}-{secrets.token_hex(4)}"
        self.send(data, part)
        try:
            self._put_in_place(data, part, path, mode)
        except RemoteFileError:
            self.script('rm -f "$1"', part)
            raise

    def send(self, data: bytes, path: str) -> None:
        """Writes a file without looking at what has arrived, for those who verify it themselves; cheaper than `push`.

        Args:
            data: What it shall hold.
            path: Where, absolute; folders that are missing are made.

        Raises:
            RemoteFileError: If it cannot be written (storage full, read-only, no such place); what is there of it is
                removed.
            LinkLostError: If the connection broke.
        """
        check_path(path)
        if len(data) > MAX_FILE_BYTES:
            raise SpecError("Too large to push", expected=f"at most {MAX_FILE_BYTES} bytes", received=f"{len(data)}")
        try:
            self._send(data, path)
        except RefusedError as error:
            raise self._cannot_write(path, error) from error

    def pull(self, path: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Returns what a file on the phone holds.

        Raises:
            RemoteFileError: If there is no such file, it is too large or cannot be read.
            LinkLostError: If the connection broke.
        """
        check_path(path)
        found = self.stat(path)
        if found is None:
            raise RemoteFileError(f"There is no file {path} on {self.address}", path)
        if found.size_bytes > max_bytes:
            raise RemoteFileError(
                f"{path} on {self.address} is too large",
                path,
                expected=f"at most {max_bytes} bytes",
                received=f"{found.size_bytes}",
            )
        try:
            return self._receive(path, max_bytes)
        except RefusedError as error:
            raise RemoteFileError(
                f"{path} cannot be read on {self.address}: {error}", path, fix=advice(str(error)) or None
            ) from error

    @abstractmethod
    def stat(self, path: str) -> FileStat | None:
        """Returns what is known of a file, None if there is none.

        Raises:
            LinkLostError: If the connection broke.
        """

    @abstractmethod
    def alive(self) -> bool:
        """Returns whether the phone answers, making the connection if need be; never raises."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection and what it runs; may be called twice."""

    @abstractmethod
    def _run(self, command_line: str, timeout_s: float, file: tuple[bytes, str] | None) -> Completed:
        """Runs a quoted command line, after it has written a file if there is one."""

    @abstractmethod
    def _send(self, data: bytes, path: str) -> None:
        """Writes a file under a temporary name."""

    @abstractmethod
    def _receive(self, path: str, max_bytes: int) -> bytes:
        """Reads a file of at most so many bytes."""

    def _put_in_place(self, data: bytes, part: str, path: str, mode: int) -> None:
        found = self.stat(part)
        if found is None or found.size_bytes != len(data):
            received = "no file" if found is None else f"{found.size_bytes} bytes"
            why, fix = self._why_not(part, "no reason given")
            raise RemoteFileError(
                f"{path} did not arrive on {self.address}: {why}",
                path,
                expected=f"{len(data)} bytes",
                received=received,
                fix=fix,
            )
        digest = hashlib.sha256(data).hexdigest()
        done = self.script(_PUT_IN_PLACE, part, path, digest, f"{mode:o}", timeout_s=60.0)
        if done.exit_code == _HASHED_DIFFERENTLY:
            raise RemoteFileError(
                f"{path} arrived damaged on {self.address}: its SHA-256 differs from what was sent",
                path,
                fix=BETTER_LINK,
            )
        if done.exit_code != 0:
            raise RemoteFileError(
                f"{path} cannot be put in place on {self.address}: {done.last_line}",
                path,
                fix=advice(done.last_line) or None,
            )

    def _cannot_write(self, path: str, refusal: RefusedError) -> RemoteFileError:
        """Returns the error for a file that the phone refused, having removed what is there of it."""
        why, fix = self._why_not(path, str(refusal))
        self.script('rm -f "$1"', path)
        named = path.partition(PART)[0]
        return RemoteFileError(f"{named} cannot be written on {self.address}: {why}", named, fix=fix)

    def _why_not(self, path: str, told: str) -> tuple[str, str]:
        """Returns why a file cannot be written and what to do: the shell's reason if the file service gave none."""
        if not advice(told):
            done = self.script('mkdir -p "${1%/*}" && head -c 65536 /dev/zero > "$1"; s=$?; rm -f "$1"; exit $s', path)
            told = done.last_line if done.exit_code else told
        return told, advice(told) or _ADVICE["nonexistent directory"]

    def __enter__(self: _TransportT) -> _TransportT:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


# $1 temporary name, $2 name, $3 SHA-256, $4 mode. A folder of that name must not swallow the file.
_PUT_IN_PLACE = f"""
sum=$(sha256sum < "$1") || exit 1
[ "${{sum%% *}}" = "$3" ] || exit {_HASHED_DIFFERENTLY}
if [ -d "$2" ]; then echo "Is a directory" >&2; exit 1; fi
chmod "$4" "$1" && mv -f "$1" "$2"
"""

_ADVICE = {
    "No space left": "free some storage on the phone",
    "Read-only file system": "use a folder below /data/local/tmp",
    "Permission denied": "use a folder below /data/local/tmp, which the shell user may write",
    "Operation not permitted": "use a folder below /data/local/tmp, which the shell user may write",
    "Is a directory": "give the name of a file, not of a folder",
    "File exists": "give a path whose folders are folders",
    "Not a directory": "give a path whose folders are folders",
    "inaccessible or not found": "the phone lacks this tool; Android 8 or newer is needed",
    "nonexistent directory": "use a folder below /data/local/tmp",
}


def advice(problem: str) -> str:
    """Returns what to do about a message of the phone, "" if that is not known."""
    return next((text for words, text in _ADVICE.items() if words.lower() in problem.lower()), "")


def check_path(path: str) -> None:
    """Raises `SpecError` unless it is an absolute path that every link can express."""
    parts = PurePosixPath(path).parts
    if not path.startswith("/") or path.endswith("/") or ".." in parts or re.search(r"[\0\n\r]", path):
        raise SpecError(expected="an absolute path of a file on the phone", received=f"{path!r}")
    # The file service takes NAME,MODE, splitting at the last comma, and names of at most 1024 bytes.
    if len(path.encode()) > 900:
        raise SpecError("A path on the phone has at most 900 bytes", received=f"{len(path.encode())}")


def printable(text: str, length: int = 300) -> str:
    """Returns text of a phone with everything that a terminal would act on taken out."""
    return "".join(c if c.isprintable() else " " for c in text[:length]).strip()
