"""What is known of files that were examined before, so that a large data set is not examined again at every start.

One SQLite file per folder in the user's cache, below XDG_CACHE_HOME; it may be removed at any time. A file counts as
known as long as its size and its time of modification are what they were.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

# Of a file changed this recently, a second change might leave the time as it is.
_SETTLED_NS = 2_000_000_000

_TABLE = (
    "CREATE TABLE IF NOT EXISTS files (folder TEXT, name TEXT, size INTEGER, mtime_ns INTEGER, found BLOB, "
    "PRIMARY KEY (folder, name)) WITHOUT ROWID"
)


class Stamp(NamedTuple):
    """What tells a file from a changed one.

    Attributes:
        size: in bytes.
        mtime_ns: when it was modified.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        """That of a file."""
        return cls(found.st_size, found.st_mtime_ns)


class Examined:
    """Findings about the files of a data set. Whatever is wrong with the cache, files are examined anew.

    Args:
        folder: of the data set.
        examiner: names what is looked for, with its version; findings of another do not count.
    """

    def __init__(self, folder: Path, examiner: str) -> None:
        name = hashlib.sha256(os.fsencode(f"{examiner}\n{folder.absolute()}")).hexdigest()[:24]
        self._file = cache_folder() / "examined" / f"{name}.sqlite"

    def known(self, folder: str) -> dict[str, tuple[Stamp, bytes]]:
        """What was found of the files of a sub-folder, by name."""
        rows: list[tuple[str, int, int, bytes]] = []
        if self._file.exists():
            with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(self._file)) as database:
                query = "SELECT name, size, mtime_ns, found FROM files WHERE folder = ?"
                rows = database.execute(query, (folder,)).fetchall()
        return {name: (Stamp(size, mtime_ns), found) for name, size, mtime_ns, found in rows}

    def keep(self, folder: str, found: Mapping[str, tuple[Stamp, bytes]], gone: Iterable[str] = ()) -> None:
        """Remembers what was found of files of a sub-folder, and forgets others."""
        latest_ns = time.time_ns() - _SETTLED_NS
        rows = [
            (folder, name, stamp.size, stamp.mtime_ns, content)
            for name, (stamp, content) in found.items()
            if stamp.mtime_ns < latest_ns and _is_text(name)
        ]
        with suppress(sqlite3.Error, OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file)) as database, database:
                database.execute(_TABLE)
                database.executemany("DELETE FROM files WHERE folder = ? AND name = ?", [(folder, n) for n in gone])
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nas_edge"


def _is_text(name: str) -> bool:
    """Whether SQLite can hold it: a file's name may be any bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
