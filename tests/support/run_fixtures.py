"""One small search for all tests of runs, since compiling it takes seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import Bench


@pytest.fixture(scope="session")
def compiled() -> Bench:
    return Bench()


@pytest.fixture
def bench(compiled: Bench) -> Iterator[Bench]:
    yield compiled
    compiled.close()


@pytest.fixture
def whole(bench: Bench, tmp_path: Path) -> Any:
    """What a search comes to that nothing happened to."""
    search = bench.recorded(tmp_path / "whole", bench.loop())
    search.run()
    return bench.outcome(tmp_path / "whole", search)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot mount a small file system: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
