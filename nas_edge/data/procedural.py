"""`procedural[:NAME=VALUE,...]`: images drawn by rule, hard enough that networks differ; see `rendering.py`.

They are drawn once, by as many processes as there are processors, and kept as an .npz file in the user's cache, below
XDG_CACHE_HOME, which may be removed at any time. A file is in place as a whole or not at all, so any number of
processes may draw the same images at once; one that is damaged is drawn again. Of the files only the latest are kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, ValidationError

from nas_edge.data import rendering
from nas_edge.data.arrays import load_npz
from nas_edge.data.dataset import Dataset
from nas_edge.data.examined import cache_folder
from nas_edge.data.rendering import RENDERING, TARGETS, Part, Rules
from nas_edge.data.targets import CLASSES, TargetKind
from nas_edge.data.threads import usable_processors
from nas_edge.errors import DataError, NasEdgeError
from nas_edge.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

# What kept files may take together; the one that is asked for is kept whatever it takes.
_MAX_CACHE_BYTES = 2_000_000_000

_MAX_IMAGES = 1_000_000

# What a file is called while it is drawn, and how long after its last change nobody draws it any more.
_UNFINISHED, _SURELY_STOPPED_S = ".part", 86_400.0


class DrawnSettings(Settings):
    """Settings after `procedural:` for all kinds of examples."""

    classes: int = Field(16, ge=2)
    difficulty: float = Field(0.5, ge=0, le=1)
    train: int = Field(10_000, ge=2, le=_MAX_IMAGES, description="examples to train with and to score on")
    test: int = Field(10_000, ge=2, le=_MAX_IMAGES, description="examples to test with")
    seed: int = Field(
        0, ge=0, lt=2**31, description="of the examples; another seed gives other examples of the same classes"
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `size=32,classes=10`.

        Raises:
            DataError: for a setting that does not exist, or a value out of range.
        """
        given: dict[str, str] = {}
        for setting in filter(None, text.split(",")):
            name, separator, value = setting.partition("=")
            if not separator or name in given:
                raise DataError(
                    "procedural: takes settings, each once", expected="NAME=VALUE,...", received=repr(setting)
                )
            if name not in cls.model_fields:
                raise DataError(
                    f"procedural: has no setting {name!r}", expected=f"one of {', '.join(cls.model_fields)}"
                )
            given[name] = value
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise DataError(f"procedural: {name}: {first['msg']}", received=repr(given[name])) from None
        if min(settings.train, settings.test) < settings.classes:
            raise DataError(
                "procedural: every class must be in both parts",
                expected=f"as many examples as classes, {settings.classes}, or more",
                received=text,
            )
        return settings


class ProceduralSettings(DrawnSettings):
    """Settings of images."""

    size: int = Field(48, ge=16, le=512, description="side of the square images, pixels")
    classes: int = Field(16, ge=2, le=rendering.MOST_CLASSES)
    difficulty: float = Field(0.5, ge=0, le=1, description="distortion, clutter, occlusion, noise; low contrast")
    figures: int = Field(
        1, ge=1, le=8, description="largest number per image; with several, targets are masks and boxes only"
    )

    @property
    def rules(self) -> Rules:
        """What determines every image."""
        return Rules(self.size, self.classes, self.difficulty, self.seed, self.figures)

    @property
    def parts(self) -> dict[Part, int]:
        """Numbers of images."""
        return {"train": self.train, "test": self.test}


class ProceduralDataset(Dataset):
    """Images drawn by rule; a run records by which version of the rules."""

    def to_json(self) -> dict[str, Any]:
        """See `Dataset`."""
        return {**super().to_json(), "rendering": RENDERING}


def load_procedural(text: str, processes: int | None = None, kind: TargetKind = CLASSES) -> Dataset:
    """Draws the images, or opens those that are kept.

    Args:
        text: settings, see `ProceduralSettings`; "" for their defaults.
        processes: that draw; None for one per processor. The images are the same.
        kind: of the targets; see `rendering.TARGETS`. The images are the same.

    Raises:
        DataError: when there are no such images, or they cannot be kept.
    """
    settings = ProceduralSettings.parse(text)
    if settings.figures > 1 and TARGETS[kind.name].of_one:
        raise DataError(f"procedural: images of several figures have no {kind.name}", expected="figures=1")
    file = _file(settings, kind)
    with suppress(DataError):  # there is none, or it is damaged
        return _opened(file, kind)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _check_room(settings, file.parent)
        descriptor, temporary = tempfile.mkstemp(_UNFINISHED, f"{file.stem}-", file.parent)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                _draw(settings, kind, raw, processes or usable_processors())
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
        _make_room(file)
    except OSError as error:
        raise DataError(
            f"cannot keep the images of procedural data in {file.parent}: {error.strerror or error}",
            fix="let XDG_CACHE_HOME name a folder that can be written",
        ) from error
    return _opened(file, kind)


def _opened(file: Path, kind: TargetKind) -> Dataset:
    """Maps a file, after comparing its checksums."""
    found = load_npz(file, skip_bad=False, kind=kind)
    with suppress(OSError):
        os.utime(file)  # so that what is used is kept longest
    return ProceduralDataset(found.images, found.labels, found.class_names, found.test_start)


def _file(settings: ProceduralSettings, kind: TargetKind = CLASSES) -> Path:
    targets = {} if kind is CLASSES else {"targets": kind.name}  # those of classes came first
    later: set[str] = {"figures"} if settings.figures == 1 else set()  # so did images of one figure
    key = json.dumps({**settings.model_dump(exclude=later), "rendering": RENDERING, **targets}, sort_keys=True)
    return cache_folder() / "procedural" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def _check_room(settings: ProceduralSettings, folder: Path) -> None:
    needed, free = sum(settings.parts.values()) * settings.size**2 * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"no room in {folder} for the images of procedural data",
            expected=f"{needed / 1e6:.0f} MB",
            received=f"{free / 1e6:.0f} MB",
            fix="ask for fewer or smaller images, or let XDG_CACHE_HOME name another folder",
        )


def _draw(settings: ProceduralSettings, kind: TargetKind, raw: IO[bytes], processes: int) -> None:
    """Writes the .npz file, an image after the other, so that memory grows with the number of targets only."""
    rules, targets = settings.rules, TARGETS[kind.name]
    with zipfile.ZipFile(raw, "w") as archive:
        for part, count in settings.parts.items():
            shape = (count, rules.size, rules.size, 3)
            with archive.open(f"x_{part}.npy", "w", force_zip64=True) as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                found = []
                for pixels, answers in _rendered(rules, part, count, processes, kind.name):
                    member.write(pixels)
                    found.append(answers)
            y = np.frombuffer(b"".join(found), targets.dtype).reshape(count, *targets.shape(rules))
            with archive.open(f"y_{part}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, y)
        with archive.open(f"{kind.names}.npy", "w") as member:
            np.lib.format.write_array(member, np.array(targets.names(rules)))


def _rendered(rules: Rules, part: Part, images: int, processes: int, kind: str) -> Iterator[tuple[bytes, bytes]]:
    """The pixels and targets of images, block after block, drawn by processes in turns.

    They are programs of their own rather than of `multiprocessing`: the caller may have threads, which a fork does not
    survive, and no `if __name__ == "__main__"`, without which a spawned process starts it again.
    """
    blocks = list(rendering.blocks(images))
    processes = max(1, min(processes, len(blocks)))
    # Images are small: threads of a linear algebra library would only wait for each other.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    targets = TARGETS[kind]
    bytes_each = rules.size**2 * 3, np.dtype(targets.dtype).itemsize * math.prod(targets.shape(rules))
    with ExitStack() as started:
        pipes = []
        for share in range(processes):
            command = rendering.command(rules, part, images, share, processes, kind)
            process = started.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
            started.callback(process.kill)  # of effect when this one stops early
            assert process.stdout is not None
            pipes.append(process.stdout)
        for number, block in enumerate(blocks):
            pixels, answers = (pipes[number % processes].read(len(block) * one) for one in bytes_each)
            if len(answers) < len(block) * bytes_each[1]:
                raise NasEdgeError("a process that draws images of procedural data ended early", fix="try again")
            yield pixels, answers


def _make_room(file: Path) -> None:
    """Removes the files that were used longest ago, as far as they take too much, and so what stopped drawing left."""
    latest_s = time.time() - _SURELY_STOPPED_S
    with suppress(OSError):
        found = [(path, path.stat()) for path in file.parent.iterdir() if path != file]
        size = file.stat().st_size + sum(stat.st_size for _, stat in found)
        for path, stat in sorted(found, key=lambda one: one[1].st_mtime):
            is_drawn = path.suffix == _UNFINISHED and stat.st_mtime > latest_s
            if size > _MAX_CACHE_BYTES and not is_drawn:
                path.unlink(missing_ok=True)
                size -= stat.st_size
