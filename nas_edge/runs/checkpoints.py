"""Checkpoints: the whole state of a search at a step, in one NPZ file each.

    checkpoints/00000040-3fa9c1d2e4b5a697.npz      step, then the beginning of the file's SHA-256

The entry `state` holds JSON as UTF-8 bytes, all others are arrays. The last two files are kept, so that one that was
damaged costs the steps since the one before, not the run.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_edge.errors import RunError
from nas_edge.runs.files import FILES, Files, writing

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = 1
KEPT = 2
_NAME = re.compile(r"(\d{8,})-([0-9a-f]{16})\.npz")


@dataclass(frozen=True)
class Checkpoint:
    """A search at a step.

    Attributes:
        step: steps done.
        state: JSON values.
        arrays: weights and the like, by name.
    """

    step: int
    state: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray[Any, Any]]


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where; made with the first.
        files: how to write.
    """

    def __init__(self, folder: Path, files: Files = FILES) -> None:
        self.folder, self._files = folder, files

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then removes those before the last `KEPT`.

        Raises:
            RunError: when it cannot be written; the earlier ones are still there.
        """
        import numpy as np

        state = {"schema_version": SCHEMA_VERSION, "step": checkpoint.step, **checkpoint.state}
        text = json.dumps(state, separators=(",", ":"), allow_nan=False)
        buffer = io.BytesIO()
        np.savez(buffer, state=np.frombuffer(text.encode(), np.uint8), **checkpoint.arrays)  # type: ignore[arg-type]
        content = buffer.getvalue()
        path = self.folder / f"{checkpoint.step:08d}-{_checksum(content)}.npz"
        self._files.write_whole(path, content)
        others = [other for other in self._newest_first() if other != path]
        kept = [other for other in others if _step(other) != checkpoint.step][: KEPT - 1]
        with writing(self.folder):
            for other in [other for other in others if other not in kept] + list(self.folder.glob("*.tmp")):
                self._files.remove(other)

    def load(self, say: Callable[[str], object]) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None when none was written yet.

        Args:
            say: is told of those that are damaged.

        Raises:
            RunError: when all are damaged, or one was written by another version.
        """
        paths = self._newest_first()
        for path in paths:
            checkpoint = _read(path)
            if checkpoint is not None:
                return checkpoint
            say(f"checkpoint {path} is damaged; continuing from the one before")
        if paths:
            raise RunError(
                f"every checkpoint in {self.folder} is damaged. Restore one from a copy; or remove them to do the "
                "search's steps again from the first, with the latencies that are in the journal"
            )
        return None

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint, unchecked; None when there is none."""
        return next(map(_step, self._newest_first()), None)

    def _newest_first(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), key=_step, reverse=True)


def _read(path: Path) -> Checkpoint | None:
    """A checkpoint, or None when its checksum does not fit."""
    import numpy as np

    match = _NAME.fullmatch(path.name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    if match is None or match[2] != _checksum(content):
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    state = json.loads(arrays.pop("state").tobytes())
    version = state.pop("schema_version")
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by another version: schema {version}, expected {SCHEMA_VERSION}; "
            "continue the run with the nas_edge that started it"
        )
    return Checkpoint(state.pop("step"), state, arrays)


def _step(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
