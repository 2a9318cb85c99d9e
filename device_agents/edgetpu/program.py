"""Where `edgetpu_compiler` runs: on this machine, or on one that is reached over SSH.

It runs on Linux on x86-64 only, so that a Mac or an Arm board that has the Edge TPU asks another machine. The
environment variable `NAS_EDGE_EDGETPU_COMPILER` says which: a file, or `ssh://[USER@]HOST[:PORT]`.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agents.errors import BenchFailedError
from device_agents.ssh_host import is_host, read_host

PROGRAM = "edgetpu_compiler"
COMPILER_VARIABLE = "NAS_EDGE_EDGETPU_COMPILER"
HOW_TO_GET = (
    "install the package edgetpu-compiler (Linux on x86-64 only; https://coral.ai/docs/edgetpu/compiler says from "
    f"where), and put it on PATH; or name a machine that has it: {COMPILER_VARIABLE}=ssh://HOST"
)
_TIMEOUT_S, _VERSION_TIMEOUT_S = 600.0, 10.0
_LOG_FILE, _MADE_FILE = "model_edgetpu.log", "model_edgetpu.tflite"
_MAX_ANSWER_BYTES = 1 << 30
_NOT_THERE, _NO_ROOM = 127, 125
# $1: the program. The model comes on stdin; what became of it goes back as one archive. Nothing is left, also where the
# connection is lost meanwhile: then writing fails.
_COMPILE = f"""
command -v "$1" >/dev/null || exit {_NOT_THERE}
folder=$(mktemp -d "${{TMPDIR:-/tmp}}/nas_edge-edgetpu-XXXXXXXX") || exit {_NO_ROOM}
trap 'rm -rf "$folder"' EXIT
trap 'exit 129' HUP INT PIPE TERM
cat > "$folder/model.tflite" || exit {_NO_ROOM}
"$1" -s -o "$folder" "$folder/model.tflite" > "$folder/said" 2>&1 < /dev/null
echo $? > "$folder/status"
set -- status said
for file in {_LOG_FILE} {_MADE_FILE}; do
  [ ! -f "$folder/$file" ] || set -- "$@" "$file"
done
tar -C "$folder" -cf - "$@"
"""


@dataclass(frozen=True)
class Compilation:
    """What became of a model.

    Attributes:
        file: What was made; None if nothing.
        log: What the compiler printed, and its log file if there is one.
        exit_code: Its exit status.
    """

    file: bytes | None
    log: str
    exit_code: int


class CompilerProgram(ABC):
    """The compiler on some machine; errors are as of `EdgeTpuCompiler.compile`."""

    @abstractmethod
    def version(self) -> str:
        """Returns what it says of its version."""

    @abstractmethod
    def compile(self, model: bytes) -> Compilation:
        """Has it compile a model."""

    @abstractmethod
    def __str__(self) -> str:
        """Returns where it is."""


def find_program() -> CompilerProgram:
    """Returns the compiler that is named by `NAS_EDGE_EDGETPU_COMPILER`, else the one on PATH.

    Raises:
        DeviceAddressError: If a host is named that can be none.
        BenchFailedError: If there is none.
    """
    named = os.environ.get(COMPILER_VARIABLE, "")
    if is_host(named):
        return SshProgram(named)
    program = shutil.which(Path(named).expanduser() if named else PROGRAM)
    if program is None:
        missing = f"{COMPILER_VARIABLE} names no program: {named}" if named else f"{PROGRAM} is not on PATH"
        raise BenchFailedError(
            f"The model is not compiled for the Edge TPU, and {missing}",
            fix=f"{HOW_TO_GET}; or measure a compiled file, ..._edgetpu.tflite",
        )
    return LocalProgram(program)


class LocalProgram(CompilerProgram):
    """The compiler on this machine.

    Args:
        program: Its path.
    """

    def __init__(self, program: str) -> None:
        self._program = program

    def __str__(self) -> str:
        return self._program

    def version(self) -> str:
        """See `CompilerProgram`."""
        exit_code, text = _run([self._program, "--version"], _VERSION_TIMEOUT_S)
        if exit_code:
            said = " ".join(text.split())[:200]
            raise BenchFailedError(f"{self._program} does not run (exit status {exit_code}): {said}", fix=HOW_TO_GET)
        return text

    def compile(self, model: bytes) -> Compilation:
        """See `CompilerProgram`."""
        with tempfile.TemporaryDirectory(prefix="nas_edge-edgetpu-") as name:
            folder = Path(name)
            (folder / "model.tflite").write_bytes(model)
            exit_code, text = _run([self._program, "-s", "-o", name, str(folder / "model.tflite")], _TIMEOUT_S)
            log, made = folder / _LOG_FILE, folder / _MADE_FILE
            if log.is_file():
                text += "\n" + log.read_text(encoding="utf-8", errors="replace")
            return Compilation(made.read_bytes() if made.is_file() else None, text, exit_code)


class SshProgram(CompilerProgram):
    """The compiler on PATH of another machine; connects when it is first used, and anew after the link was lost.

    Args:
        address: Of the machine, `ssh://[USER@]HOST[:PORT]`.

    Raises:
        DeviceAddressError: If that is malformed.
    """

    def __init__(self, address: str) -> None:
        from device_agents.ssh_connection import SshConnection

        self._host = read_host(address)
        self._connection = SshConnection(self._host)

    def __str__(self) -> str:
        return f"{PROGRAM} at {self._host}"

    def version(self) -> str:
        """See `CompilerProgram`."""
        done = self._connection.run([PROGRAM, "--version"])
        self._check(done.exit_code, done.log)
        return done.output.decode(errors="replace")

    def compile(self, model: bytes) -> Compilation:
        """See `CompilerProgram`."""
        command = ["sh", "-c", _COMPILE, "sh", PROGRAM]
        done = self._connection.run(command, model, _TIMEOUT_S, _MAX_ANSWER_BYTES)
        self._check(done.exit_code, done.log)
        try:
            with tarfile.open(fileobj=io.BytesIO(done.output)) as archive:
                files = {
                    member.name: file.read() for member in archive if (file := archive.extractfile(member)) is not None
                }
            exit_code = int(files["status"][:10])
        except (tarfile.TarError, KeyError, ValueError, EOFError, OSError) as error:
            raise BenchFailedError(
                f"What came back of {self} is not what was asked for: {str(error)[:200]}",
                fix=f"`ssh {self._host.for_ssh} true` must print nothing; is its disk full?",
            ) from error
        texts = [files[name].decode(errors="replace") for name in ("said", _LOG_FILE) if name in files]
        return Compilation(files.get(_MADE_FILE), "\n".join(texts), exit_code)

    def _check(self, exit_code: int, said: str) -> None:
        if exit_code == _NOT_THERE:
            raise BenchFailedError(
                f"The model is not compiled for the Edge TPU, and {PROGRAM} is not on PATH at {self._host}",
                fix="install the package edgetpu-compiler there (https://coral.ai/docs/edgetpu/compiler)",
            )
        if exit_code:
            raise BenchFailedError(
                f"{self} cannot be run (exit status {exit_code}): {said[-300:]}", fix="is its disk full?"
            )


def _run(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise BenchFailedError(f"{PROGRAM} did not end within {timeout_s:.0f} s", fix="try a smaller model") from None
    except OSError as error:
        raise BenchFailedError(f"{command[0]} cannot be run: {error.strerror}", fix=HOW_TO_GET) from error
    return done.returncode, done.stdout.decode(errors="replace")
