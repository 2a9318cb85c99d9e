"""25 faults, each in the middle of a search on a board over a real SSH server: no candidate is blamed or lost.

The search goes on by itself, or stops with one clear error and is resumed once the fault is repaired. Nothing runs on
on the board, and nothing is left there but what doctor lists. The moments are drawn from seeds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from device_agents import ssh_connection
from device_agents.api import BenchmarkSpec, Measurement, MeasureRequest, Verdict
from device_agents.errors import DeviceUnavailableError
from device_agents.pool import PoolSettings
from device_agents.ssh import board
from device_agents.ssh.address import BoardAddress, read_address
from device_agents.ssh.agent import SshAgent
from device_agents.ssh.board import worker_program
from device_agents.verdicts import blames_candidate
from nas_edge.latency import device as device_source
from nas_edge.latency.cache import CachedSource
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.networks.graph import NetworkSpec
from nas_edge.search.trials import Trial
from tests.support import models
from tests.support.faults import Bench
from tests.support.ssh import SshServer, serving

KINDS = (
    *("kill", "hang", "cut", "restart", "stall", "clock_jump"),
    *("new_key", "revoke", "no_room", "no_python", "no_runtime"),
)
# While these last, a search on this board alone cannot go on; what it says then.
LASTING = {
    "new_key": "ssh-keygen -R",
    "revoke": "ssh-copy-id",
    "no_room": "free some storage",
    "no_python": "has no Python",
    "no_runtime": "no TFLite runtime; nas-edge devices setup",
}
# Three kinds; the others go the same way, or at other moments.
QUICK = tuple(map(KINDS.index, ("kill", "cut", "new_key")))
FAULTS = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in range(25)]
STEPS = 4
SPEC = BenchmarkSpec(
    min_runs=3,
    min_duration_s=0.03,
    max_duration_s=0.1,
    timeout_s=4.0,
    max_risk=1.0,
    patience_s=0.0,
    max_relative_half_width=100.0,
)
POOL = PoolSettings(quarantine_s=0.5, lost_after_s=3.0)


class StruckAgent(SshAgent):
    """Has something happen to its board while it measures.

    Args:
        address: The board.
        at: In which request to it, from 1 on.
        delay_s: How long after that request was made, in seconds.
        strike: What happens.
    """

    def __init__(self, address: BoardAddress, at: int, delay_s: float, strike: Callable[[], None]) -> None:
        super().__init__(address)
        self._left, self._delay_s, self._strike = at, delay_s, strike
        self.struck: threading.Timer | None = None

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        self._left -= 1
        if self._left == 0:
            self.struck = threading.Timer(self._delay_s, self._strike)
            self.struck.start()
        return super().measure_all(requests)


class Target:
    """A board that faults are injected into."""

    def __init__(self, server: SshServer, folder: Path) -> None:
        self.server = server
        # A Python of its own, which can be taken away.
        self.python = folder / "python"
        self.give_python()
        self.address = read_address(f"{server.address.partition('?')[0][4:]}?python={self.python}")

    def give_python(self, options: str = "") -> None:
        self.python.write_text(f'#!/bin/sh\nexec {sys.executable} {options} "$@"\n')
        self.python.chmod(0o755)

    def kill(self) -> None:
        for pid in self.server.workers():
            os.kill(pid, signal.SIGKILL)

    def hang(self) -> None:
        for pid in self.server.workers():
            os.kill(pid, signal.SIGSTOP)

    def cut(self) -> None:
        self.server.cut()

    def restart(self) -> None:
        self.server.stop()
        time.sleep(0.3)
        self.server.start()

    def stall(self) -> None:
        self.server.signal_sessions(signal.SIGSTOP)
        time.sleep(2.0)
        self.server.signal_sessions(signal.SIGCONT)

    def new_key(self) -> None:
        self.server.change_key()

    def revoke(self) -> None:
        self.server.revoke()
        self.server.cut()

    def no_room(self) -> None:
        shutil.rmtree(self.server.cache)
        self.server.cache.write_text("in the way: as root, no folder is read-only, and no disk of the tests' full")
        self.server.cut()

    def no_python(self) -> None:
        self.python.unlink()
        self.server.cut()

    def no_runtime(self) -> None:
        self.give_python("-I -S")
        self.server.cut()

    def clock_jump(self) -> None:
        """Leaves the lock as it looks once the board's clock has gone forward by a day; the clock is this machine's."""
        for file in Path(board.LOCK).iterdir():
            os.utime(file, (time.time() - 86400,) * 2)
        self.server.cut()

    def repair(self, kind: str) -> None:
        self.server.trust()
        self.server.allow()
        self.give_python()
        if kind == "no_room":
            self.server.cache.unlink()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Target]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(ssh_connection, "KEEPALIVE_S", 0.3)
        with serving(tmp_path_factory.mktemp("ssh"), home) as server:
            yield Target(server, tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def large_enough(network: NetworkSpec, precision: str) -> bytes:
    """A network of the test's space takes less than a microsecond; this one can be timed."""
    return models.conv_model(layers=2, channels=8, side=8 + int(network.fingerprint[:4], 16) % 16)


def search(bench: Bench, folder: Path, agent: SshAgent) -> list[Trial]:
    """Searches, or continues."""
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(device_source, "tflite_model", large_enough))
        device = stack.enter_context(DeviceSource([agent], "int8", SPEC, POOL))
        cached = CachedSource(RetryingSource(device), folder / "measurements.sqlite", device.key)
        stack.callback(cached.close)
        recorded = bench.recorded(folder, bench.loop(cached, steps=STEPS), checkpoint_steps=2)
        recorded.run()
        return list(recorded.trials)


@pytest.mark.parametrize("number", FAULTS)
def test_a_search_answers_every_candidate_once_whatever_happens_to_its_board(
    bench: Bench, target: Target, tmp_path: Path, number: int
) -> None:
    rng = np.random.default_rng([2, number])
    kind = KINDS[number % len(KINDS)]
    # The first requests are for the probes' floors.
    at, delay_s = int(rng.integers(13, 17)), float(rng.uniform(0, 0.1))
    agent = StruckAgent(target.address, at, delay_s, getattr(target, kind))
    said, trials = "", []
    try:
        trials = search(bench, tmp_path / "run", agent)
    except DeviceUnavailableError as error:
        said = str(error)
    assert agent.struck is not None
    agent.struck.join()
    target.repair(kind)
    if said:
        # Only what lasts may stop it, and then with the reason and what to do, in one line.
        assert kind in LASTING, said
        assert LASTING[kind] in said
        assert "\n" not in said
        trials = search(bench, tmp_path / "run", SshAgent(target.address))
    assert [trial.step for trial in trials] == [step for step in range(1, STEPS) for _ in range(2)]
    verdicts = [trial.verdict for trial in trials]
    blamed = [trial.latency for trial in trials if trial.verdict is None or blames_candidate(trial.verdict)]
    assert not blamed
    assert not {Verdict.DEVICE_LOST, Verdict.BENCH_FAILED} & set(verdicts)
    deadline_s = time.monotonic() + 20
    while left := target.server.workers():
        assert time.monotonic() < deadline_s, left
        with SshAgent(target.address) as next_one:  # what could not be ended goes when the next one connects
            next_one.info()
        time.sleep(0.1)
    assert not Path(board.LOCK).exists()
    assert {path.name for path in target.server.cache.iterdir()} <= {worker_program().file, "pid"}
