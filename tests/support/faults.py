"""A file layer that fails at a chosen call, and a small search to run on it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import pytest

from device_agents.api import Measurement
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.latency.pooled import PooledLatency, PooledSettings
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.rewards import Objective
from nas_edge.runs.checkpoints import Checkpoints
from nas_edge.runs.files import FILES, Files
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.journal import Journal
from nas_edge.search.one_shot import OneShotSearch, OneShotSettings
from nas_edge.stages.recorded import RecordedSearch
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import Supernet
from nas_edge.training.rmsprop import RMSProp
from nas_edge.training.schedules import CosineWithWarmup
from tests.support.batches import SeededBatches
from tests.support.searches import one_shot_search
from tests.support.sources import FunctionSource, timed
from tests.support.spaces import tiny_space
from tests.support.tasks import CLASSIFICATION, OPTIMIZATION

SPACE = tiny_space()


class Killed(BaseException):
    """The process died: nothing it would still have written is written."""


class FaultyFiles(Files):
    """Does its work until call number `at`, and then fails, in that call and all later ones.

    Args:
        at: from 0.
        fault: what is raised.
        partly: whether the failing call, if it writes, writes half of it before.
    """

    def __init__(self, at: int, fault: Callable[[], BaseException], partly: bool = False) -> None:
        self.at, self.fault, self.partly, self.calls = at, fault, partly, 0

    def _call(self, do: Callable[[], None], half: Callable[[], None] | None = None) -> None:
        number, self.calls = self.calls, self.calls + 1
        if number < self.at:
            do()
            return
        if number == self.at and self.partly and half is not None:
            half()
        raise self.fault()

    def make_folder(self, path: Path) -> None:
        self._call(lambda: FILES.make_folder(path))

    def write(self, path: Path, content: bytes) -> None:
        self._call(lambda: FILES.write(path, content), lambda: FILES.write(path, content[: len(content) // 2]))

    def append(self, file: IO[bytes], content: bytes) -> None:
        self._call(lambda: FILES.append(file, content), lambda: FILES.append(file, content[: len(content) // 2]))

    def truncate(self, file: IO[bytes], size: int) -> None:
        self._call(lambda: FILES.truncate(file, size))

    def sync(self, file: IO[bytes]) -> None:
        self._call(lambda: FILES.sync(file))

    def replace(self, temporary: Path, path: Path) -> None:
        self._call(lambda: FILES.replace(temporary, path))

    def sync_folder(self, path: Path) -> None:
        self._call(lambda: FILES.sync_folder(path))

    def remove(self, path: Path) -> None:
        self._call(lambda: FILES.remove(path))


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def read_only() -> OSError:
    return OSError(errno.EROFS, "Read-only file system")


def permission_lost() -> OSError:
    return OSError(errno.EACCES, "Permission denied")


class Bench:
    """Makes the same search again and again around one supernet, compiled once.

    Making a `SharedWeights` takes seconds, most of them compiling, so each search starts by putting the first one's
    numbers back.
    """

    def __init__(self) -> None:
        self.shared = SharedWeights(
            Supernet(SPACE, seed=3), RMSProp(CosineWithWarmup(0.05, 24, 4)), CLASSIFICATION, OPTIMIZATION
        )
        self._start = self.shared.arrays()
        self._journal: Journal | None = None

    def measure(self, candidate: Candidate) -> Measurement:
        return timed(analyze(candidate.network).macs / 1e5)

    def loop(
        self,
        source: LatencySource | None = None,
        seed: int = 5,
        pooled: PooledSettings | None = None,
        attends_delay: bool = False,
        **settings: Any,
    ) -> OneShotSearch:
        self.shared.restore(self._start)
        config = OneShotSettings(**{"steps": 9, "delay_fraction": 0.25, "samples_per_step": 2, **settings})
        return one_shot_search(
            self.shared,
            CategoricalController(
                SPACE,
                config.steps,
                base_learning_rate=0.05,
                delay_steps=config.delay_steps,
                accumulate_during_delay=attends_delay,
            ),
            source or FunctionSource(self.measure),
            [Objective("latency_ms", 1.0)],
            SeededBatches(1),
            SeededBatches(2),
            np.random.default_rng(seed),
            config,
            None if pooled is None else PooledLatency(SPACE, pooled),
        )

    def recorded(
        self,
        folder: Path,
        loop: OneShotSearch,
        files: Files = FILES,
        say: Callable[[str], object] = lambda _: None,
        checkpoint_steps: int = 3,
    ) -> RecordedSearch:
        """The search on a folder, new or continued."""
        folder.mkdir(exist_ok=True)
        self.close()
        self._journal = Journal(folder / "journal.jsonl", say, files)
        return RecordedSearch(loop, self._journal, Checkpoints(folder / "checkpoints", files), checkpoint_steps, say)

    def close(self) -> None:
        """Closes the last search's journal, as the death of its process would have."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def outcome(self, folder: Path, search: RecordedSearch) -> tuple[Any, ...]:
        """All that two searches must agree in to count as the same, journal file included."""
        arrays = {name: array.tobytes() for name, array in self.shared.arrays().items()}
        return (
            (folder / "journal.jsonl").read_bytes(),
            max(path.name for path in (folder / "checkpoints").iterdir()),  # the name holds the checksum
            [trial.reward for trial in search.trials],
            str(search.loop.controller.most_likely()),
            arrays,
        )


def adam_weights() -> SharedWeights:
    """Shared weights whose optimiser does not fit those of `Bench`."""
    return SharedWeights(Supernet(SPACE, seed=3), keras.optimizers.Adam(0.01), CLASSIFICATION, OPTIMIZATION)


class Stop(StopSignals):
    """A request to stop after so many steps, without a signal."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def count(self, _: object) -> None:
        self._left -= 1
        self.requested = self._left <= 1


def continued(bench: Bench, folder: Path, **settings: Any) -> Any:
    """The outcome after continuing, during which nothing needs to be said."""
    search = bench.recorded(folder, bench.loop(**settings), say=pytest.fail)
    search.run()
    return bench.outcome(folder, search)
