"""Every call by which a run changes its folder, in one small class, so that tests can make any of them fail.

A file that is replaced is written beside its place, flushed to the disk, renamed, and the folder's entry flushed: after
a crash or a power cut it is the old one or the new one, never half of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nas_edge.errors import RunError


class Files:
    """The calls. What fails is an OSError here; `writing` turns it into a RunError."""

    def make_folder(self, path: Path) -> None:
        """Makes a folder and those above it, where they are missing."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Writes a new file and flushes it to the disk."""
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def append(self, file: IO[bytes], content: bytes) -> None:
        """Writes at the end of a file that was opened unbuffered: in one system call, unless the disk is full."""
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]

    def truncate(self, file: IO[bytes], size: int) -> None:
        """Cuts a file off."""
        file.truncate(size)

    def sync(self, file: IO[bytes]) -> None:
        """Flushes a file to the disk."""
        os.fsync(file.fileno())

    def replace(self, temporary: Path, path: Path) -> None:
        """Puts a file in another's place, in one piece."""
        temporary.replace(path)

    def sync_folder(self, path: Path) -> None:
        """Flushes a folder's entries to the disk; Windows has no such call."""
        if os.name != "nt":
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Removes a file, if it is there."""
        path.unlink(missing_ok=True)

    def write_whole(self, path: Path, content: bytes) -> None:
        """Writes a file so that it is there in full or not at all, in place of an earlier one."""
        temporary = path.with_name(path.name + ".tmp")
        with writing(path):
            self.make_folder(path.parent)
            try:
                self.write(temporary, content)
                self.replace(temporary, path)
            except OSError:
                # On a full disk the half-written file would keep what little room is left.
                with suppress(OSError):
                    self.remove(temporary)
                raise
            self.sync_folder(path.parent)


FILES = Files()


def set_aside(path: Path) -> Path:
    """Renames a damaged file, which somebody may still want to look at; returns where it is now.

    Raises:
        RunError: when it cannot be renamed.
    """
    with writing(path):
        aside = next(free for number in range(1, 10**6) if not (free := Path(f"{path}.damaged-{number}")).exists())
        path.replace(aside)
    return aside


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says what failed, and that nothing before it is lost."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. What was written before is whole; once there is room and "
            "permission again, continue the run with nas-edge search --resume RUN"
        ) from error
