"""Results of a benchmark that takes long, kept as they come in: one that was stopped goes on where it was.

A full form keeps them in `build/benchmarks/NAME`, a line of a file each, by a text of all the settings that it depends
on. The program itself is not part of that text: delete the folder after changing what is measured.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BUILD = Path("build/benchmarks")


class KeptResults:
    """What was found out, by a text of all that it depends on.

    Args:
        file: keeps it, a line each; None for memory alone.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file is not None and file.exists() else []
        # A line that a stop cut off is found out again.
        self._known: dict[str, Any] = dict(filter(None, map(_read, lines)))

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def keep(self, key: str, value: Any) -> Any:
        """Keeps a result; returns it as JSON values."""
        self._known[key] = json.loads(json.dumps(value))
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as lines:
                lines.write("\n" * self._is_cut_off() + json.dumps([key, self._known[key]]) + "\n")
        return self._known[key]

    def once(self, key: str, find_out: Callable[[], Any]) -> Any:
        """What is known, or else what is found out now: JSON values."""
        return self._known[key] if key in self._known else self.keep(key, find_out())

    def all(self, jobs: Mapping[str, Sequence[Any]], start: Callable[[], None] | None = None) -> None:
        """Finds out all that is not known, in one process per core, and prints a line for each result.

        Args:
            jobs: by key, a function of a module and its arguments, those that take long first; what it returns is kept.
            start: called first in each process.
        """
        missing = {key: given for key, given in jobs.items() if key not in self}
        done = len(jobs) - len(missing)
        if done:
            print(f"{done} of {len(jobs)} results are kept from before", flush=True)
        if not missing:
            return
        began_s = time.monotonic()
        with ProcessPoolExecutor(min(cores(), len(missing)), get_context("spawn"), start) as pool:
            try:
                keys = {pool.submit(*job): key for key, job in missing.items()}
                for number, future in enumerate(as_completed(keys), start=done + 1):
                    value = self.keep(keys[future], future.result())
                    told = f"{value:.4f}" if isinstance(value, float) else "done"
                    took_s = time.monotonic() - began_s
                    print(f"{number}/{len(jobs)} after {took_s / 60:.1f} min: {keys[future][:60]}: {told}", flush=True)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _is_cut_off(self) -> bool:
        assert self._file is not None
        return self._file.exists() and self._file.read_bytes()[-1:] not in (b"", b"\n")


def _read(line: str) -> list[Any] | None:
    """A kept result; None where the line was cut off."""
    try:
        read: list[Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return read


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settings_folder(folder: Path, name: str, settings: Any) -> Path:
    """Where in the folder results with these settings, JSON values, are kept: those with others have another place."""
    digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return folder / f"{name}-{digest[:12]}"


@contextmanager
def kept_folder(name: str, given: Path | None, quick: bool) -> Iterator[Path]:
    """Where a benchmark keeps its results: what was named, else a folder in `build`; a quick form keeps none."""
    if given is None and quick:
        with TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = given or BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
