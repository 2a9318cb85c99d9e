"""`edgetpu_compiler`: the closed program that turns an int8 TFLite file into one that an Edge TPU runs.

Its log, as printed by version 16.0, is read into data. What it makes is kept by the hash of the file and the version.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_agents.api import Verdict
from device_agents.compiling import CompiledModel, Compiler
from device_agents.edgetpu.accelerator import is_probe
from device_agents.edgetpu.program import PROGRAM, Compilation, CompilerProgram, find_program
from device_agents.errors import BenchFailedError
from device_agents.files import write_atomically
from device_agents.worker.edgetpu import CUSTOM_OPERATOR

_REMEMBERED = 64
_MAX_CACHE_BYTES = 256 << 20
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MAPPED = "Mapped to Edge TPU"
_NAMED = 4


@dataclass(frozen=True)
class OperatorRow:
    """What became of the operators of one kind.

    Attributes:
        name: As in TFLite's schema.
        count: How many.
        status: The compiler's words.
    """

    name: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        """Whether they run on the Edge TPU."""
        return self.status == _MAPPED


@dataclass(frozen=True)
class MappingReport:
    """What the compiler says of a model.

    Attributes:
        version: Of the compiler, for example "16.0.384591198"; "" if it does not say.
        failure: Why it made nothing; "" if it made something.
        on_chip_bytes: Parameters that are kept on the chip; None where it does not say, as for the next four.
        on_chip_left_bytes: What is left there.
        streamed_bytes: Parameters that are sent again for each inference.
        subgraphs: Parts that run on the Edge TPU.
        operators: Of the whole model.
        rows: The table of operators.
    """

    version: str = ""
    failure: str = ""
    on_chip_bytes: int | None = None
    on_chip_left_bytes: int | None = None
    streamed_bytes: int | None = None
    subgraphs: int | None = None
    operators: int | None = None
    rows: tuple[OperatorRow, ...] = ()

    @property
    def on_cpu(self) -> tuple[OperatorRow, ...]:
        """What stays on the CPU."""
        return tuple(row for row in self.rows if not row.mapped)

    @property
    def is_whole(self) -> bool:
        """Whether the model became one part that runs on the Edge TPU, and nothing else."""
        return not self.failure and self.subgraphs == 1 and not self.on_cpu

    def __str__(self) -> str:
        if self.failure:
            return f"{PROGRAM}: {self.failure}"
        kept = [
            f"{bytes_text(size)} {where}"
            for size, where in ((self.on_chip_bytes, "on the chip"), (self.streamed_bytes, "streamed"))
            if size is not None
        ]
        parameters = f"; parameters: {', '.join(kept)}" if kept else ""
        if self.is_whole:
            return f"all operators run on the Edge TPU{parameters}"
        rows = self.on_cpu
        named = ", ".join(f"{row.count} {row.name} ({row.status})" for row in rows[:_NAMED])
        more = ", ..." if len(rows) > _NAMED else ""
        count = sum(row.count for row in rows)
        return (
            f"{count} of {self.operators} operators stay on the CPU, {self.subgraphs} Edge TPU part(s): {named}{more}"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "is_whole": self.is_whole}


def bytes_text(size: int) -> str:
    """A size as the compiler writes it."""
    unit = next((name for name in ("GiB", "MiB", "KiB") if size >= _UNITS[name]), "B")
    return f"{size / _UNITS[unit]:.2f} {unit}" if unit != "B" else f"{size} B"


def read_log(text: str, exit_code: int = 0) -> MappingReport:
    """Reads what the compiler printed; what it does not say stays None.

    Args:
        text: Standard output and error, and the log file if there is one.
        exit_code: Its exit status.
    """
    version = _found(r"Edge TPU Compiler version (\S+)", text)
    failure = _found(r"Compilation failed: (.*)", text)
    failure = failure or _found(r"(Internal compiler error.*)", text) or _found(r"ERROR: (.*)", text)
    if not exit_code and "Model compiled successfully" in text:
        failure = ""
    elif not failure:
        lines = [line for line in text.splitlines() if line.strip()]
        failure = (lines[-1].strip() if lines else "it said nothing") + f" (exit status {exit_code})"
    rows = dict.fromkeys(
        OperatorRow(name, int(count), status.strip())
        for name, count, status in re.findall(r"^([A-Z][A-Z0-9_]*)[ \t]+(\d{1,9})[ \t]+(\S.*)$", text, re.MULTILINE)
    )
    return MappingReport(
        version,
        failure[:300],
        _size(r"On-chip memory used for caching model parameters: (.*)", text),
        _size(r"On-chip memory remaining for caching model parameters: (.*)", text),
        _size(r"Off-chip memory used for streaming uncached model parameters: (.*)", text),
        _count(r"Number of Edge TPU subgraphs: (\d{1,9})", text),
        _count(r"Total number of operations: (\d{1,9})", text),
        tuple(rows),
    )


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].strip() if found else ""


def _count(pattern: str, text: str) -> int | None:
    found = _found(pattern, text)
    return int(found) if found else None


def _size(pattern: str, text: str) -> int | None:
    found = re.fullmatch(r"([\d.]{1,20})\s*(B|KiB|MiB|GiB)", _found(pattern, text))
    try:
        return None if found is None else round(float(found[1]) * _UNITS[found[2]])
    except ValueError:
        return None


class EdgeTpuCompiler(Compiler):
    """Runs the compiler, and keeps what it made.

    Args:
        cache: Folder of what was made; None for the user's.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache or cache_folder()
        self._made: OrderedDict[str, tuple[bytes | None, MappingReport]] = OrderedDict()
        self._program: CompilerProgram | None = None
        self._version = ""

    def compiled(self, model: bytes) -> CompiledModel:
        """See `Compiler`; what is compiled already, and the session's probes, are their own files."""
        if CUSTOM_OPERATOR in model or is_probe(model):
            return CompiledModel(model)
        file, report = self.compile(model)
        if report.is_whole and file is not None:
            return CompiledModel(file)
        return CompiledModel(None, Verdict.COMPILE_FAILED if report.failure else Verdict.FALLBACK, str(report))

    def compile(self, model: bytes) -> tuple[bytes | None, MappingReport]:
        """Returns what the compiler makes of a model, None if nothing, and what it says.

        Raises:
            BenchFailedError: If the compiler is missing or does not work.
            DeviceUnavailableError: If the host that has it cannot be reached.
        """
        if self._program is None:
            self._program = find_program()
            self._version = read_log(self._program.version()).version
        key = hashlib.sha256(self._version.encode() + b"\0" + model).hexdigest()
        if key not in self._made:
            self._made[key] = self._kept(key) or self._keep(key, self._program.compile(model))
            while len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def _kept(self, key: str) -> tuple[bytes | None, MappingReport] | None:
        try:
            log = (self._cache / f"{key}.log").read_text(encoding="utf-8")
            exit_code, _, text = log.partition("\n")
            report = read_log(text, int(exit_code))
            return (None if report.failure else (self._cache / f"{key}.tflite").read_bytes()), report
        except (OSError, ValueError):
            return None

    def _keep(self, key: str, made: Compilation) -> tuple[bytes | None, MappingReport]:
        file, log, exit_code = made.file, made.log, made.exit_code
        report = read_log(log, exit_code)
        if file is None and not report.failure:
            raise BenchFailedError(
                f"{PROGRAM} says that it compiled the model, but wrote no file", fix="is the disk full?"
            )
        try:
            if file is not None:
                write_atomically(self._cache / f"{key}.tflite", file)
            write_atomically(self._cache / f"{key}.log", f"{exit_code}\n{log}".encode())
            _make_room(self._cache)
        except OSError:
            pass  # it is compiled again the next time
        return (None if report.failure else file), report


def _make_room(folder: Path) -> None:
    """Removes the oldest files of a cache that has grown too large."""
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    size = sum(path.stat().st_size for path in files)
    for path in files:
        if size <= _MAX_CACHE_BYTES:
            return
        size -= path.stat().st_size
        path.unlink()


def cache_folder() -> Path:
    """Where compiled files are kept, below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nas_edge" / "edgetpu"


def clean_cache(folder: Path | None = None) -> list[str]:
    """Removes what is kept; returns a line for it."""
    folder = folder or cache_folder()
    if not folder.is_dir():
        return []
    size = sum(path.stat().st_size for path in folder.iterdir())
    shutil.rmtree(folder)
    return [f"{folder} ({size / 1e6:.1f} MB of compiled files)"]
