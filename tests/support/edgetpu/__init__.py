"""What stands in for an Edge TPU in tests: its library, compiled here, and its compiler, which prints recorded logs.

The logs are of the form in which users quote them (google-coral/edgetpu#427, #449, #490, #512, #608); the numbers of
`whole.txt` are made up.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from device_agents.edgetpu.program import PROGRAM
from device_agents.worker.edgetpu import CUSTOM_OPERATOR, LIBRARY_VARIABLE
from tests.support.models import OP, T, unary_model

FOLDER = Path(__file__).parent
TRANSCRIPTS = FOLDER / "transcripts"


@functools.cache
def stand_in_library() -> Path:
    """The library, built once for all tests; needs `cc`."""
    library = Path(tempfile.mkdtemp(prefix="nas_edge-edgetpu-")) / "libedgetpu.so.1"
    command = ["cc", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", str(library), str(FOLDER / "delegate.c")]
    subprocess.run(command, check=True)
    return library


@functools.cache
def other_library() -> Path:
    """A library that is no Edge TPU runtime."""
    folder = Path(tempfile.mkdtemp(prefix="nas_edge-edgetpu-"))
    (folder / "other.c").write_text("int answer(void) { return 42; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libother.so"), str(folder / "other.c")], check=True)
    return folder / "libother.so"


def compiled_model(channels: int = 4) -> bytes:
    """A model as the compiler leaves it: one operator, which only an Edge TPU knows."""
    return unary_model(OP.CUSTOM, (1, channels), T.INT8, custom_code=CUSTOM_OPERATOR)


def plug_in(patch: pytest.MonkeyPatch, behaves: str = "") -> None:
    """Makes workers use the stand-in; `behaves` is described in delegate.c."""
    patch.setenv(LIBRARY_VARIABLE, str(stand_in_library()))
    patch.setenv("EDGETPU_STAND_IN", behaves)


def install_compiler(patch: pytest.MonkeyPatch, folder: Path, log: str, in_file: bool = False) -> Path:
    """Puts a compiler on PATH that prints a log of `transcripts`; returns the file that gets a line per model.

    With `in_file` its log file alone says what became of a model.
    """
    calls = folder / "calls"
    script = folder / PROGRAM
    root = Path(__file__).parents[3]
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        f"from tests.support.edgetpu.stand_in_compiler import main\nmain({log!r}, {str(calls)!r}, {in_file})\n"
    )
    script.chmod(0o755)
    patch.setenv("PATH", str(folder), prepend=os.pathsep)
    return calls
