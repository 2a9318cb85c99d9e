"""25 faults, each in the middle of a search on real daemons: the search comes to what it would have come to anyway.

It goes on by itself, or stops with one clear error and is resumed once the fault is repaired. Nothing is left on the
phones. The moments are drawn from seeds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.benchmark_model import BLOCKS
from device_agents.android.keys import own_key_file, public_file
from device_agents.android.transport import Completed
from device_agents.api import BenchmarkSpec
from device_agents.errors import DeviceUnavailableError
from device_agents.pool import PoolSettings
from nas_edge.latency.cache import CachedSource
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from tests.support.android.phone import Phone, files_of, start
from tests.support.android.tools import sized_script, write_tool
from tests.support.faults import Bench

# One of each kind; the others go the same way at other moments.
FAULTS = [*range(6), *(pytest.param(number, marks=pytest.mark.slow) for number in range(6, 25))]
STEPS = 5
SPEC = BenchmarkSpec(min_runs=BLOCKS, min_duration_s=0.0, timeout_s=1.5, max_risk=1.0, patience_s=0.0)
POOL = PoolSettings(quarantine_s=2.0, lost_after_s=1.5)
PROMPT_TIMEOUT_S = 0.5


class Strike:
    """What happens to the phone that does a chosen call, or sends the next file from then on.

    Calls are counted over all phones: which of them a candidate goes to is not known before.

    Args:
        at: The call, or the file.
        fault: Is given the phone.
        sending: Whether it is to strike when a file is sent, and files are counted.
    """

    def __init__(self, at: int, fault: Callable[[Target], None], sending: bool) -> None:
        self.files = 0
        self.struck: Target | None = None
        self._at, self._fault, self._sending = at, fault, sending
        self._calls = 0
        self._lock = threading.Lock()

    def count(self, target: Target, sending: bool) -> None:
        with self._lock:
            self._calls += 1
            self.files += sending
            seen = self.files if self._sending else self._calls
            if self.struck is not None or seen < self._at or (self._sending and not sending):
                return
            self.struck = target
        self._fault(target)


class Link(AdbShellTransport):
    """Has its calls counted, which something may happen at."""

    target: Target
    strike: Strike | None = None

    def _run(self, command_line: str, timeout_s: float, file: tuple[bytes, str] | None) -> Completed:
        if self.strike is not None:
            self.strike.count(self.target, sending=file is not None)
        return super()._run(command_line, timeout_s, file)


class Target:
    """A phone that faults are injected into, and the link that the search has to it."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone

    def new_link(self) -> Link:
        link = Link.tcp("127.0.0.1", self.phone.port, PROMPT_TIMEOUT_S)
        assert isinstance(link, Link)
        link.target = self
        return link

    def script(self, text: str) -> str:
        with AdbShellTransport.tcp("127.0.0.1", self.phone.port) as link:
            return link.script(text).output

    # Faults. Those that strike in the middle of a call do so from another thread.

    def kill(self, delay_s: float) -> None:
        threading.Timer(delay_s, self._restart).start()

    def cut(self, delay_s: float) -> None:
        threading.Timer(delay_s, self.phone.order, ["cut"]).start()

    def fill(self, _: float) -> None:
        self.script("cat /dev/zero > /data/local/tmp/fill; :")

    def hang(self, _: float) -> None:
        self.script("touch /data/local/tmp/hang")

    def revoke(self, _: float) -> None:
        self.script("rm /data/misc/adb/adb_keys")
        self.phone.order("cut")

    def restart_during_a_push(self, delay_s: float) -> None:
        self.phone.order("stall")  # so that it has begun and cannot end
        threading.Timer(delay_s, lambda: (self._restart(), self.phone.order("flow"))).start()

    def _restart(self) -> None:
        self.phone.order("kill")
        time.sleep(0.1)
        self.phone.order("start")

    def allow(self) -> None:
        self.phone.order(f"allow {public_file(own_key_file())}")

    def repair(self, fault: str) -> None:
        if fault == "revoke":
            self.allow()
        self.script("rm -f /data/local/tmp/fill /data/local/tmp/hang")


KINDS = ("kill", "cut", "fill", "hang", "revoke", "restart_during_a_push")
# While these last, a search on this phone alone cannot go on.
LASTING = ("fill", "revoke")
# When a model is sent; storage is full then, while later there would be the room that the last model leaves.
IN_A_PUSH = ("fill", "restart_during_a_push")


@pytest.fixture(scope="module")
def targets(overlay: Path) -> Iterator[list[Target]]:
    phones: list[Phone] = []
    try:
        for _ in range(2):
            phones.append(start(overlay, auth=True, data_mib=8))
        targets = [Target(phone) for phone in phones]
        for target in targets:
            target.allow()
        yield targets
    finally:
        for phone in phones:
            phone.close()


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tool(tmp_path_factory.mktemp("tool"), sized_script())


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def search(
    bench: Bench, folder: Path, targets: list[Target], tool: Path, strike: Strike | None = None
) -> tuple[list[Any], int]:
    """Searches, or continues.

    Args:
        strike: What happens meanwhile, once the phones are prepared.

    Returns:
        What two searches must agree in to count as the same, and how often a phone failed.
    """
    links = [target.new_link() for target in targets]
    agents = [AndroidAgent(link, AndroidSettings(tool=tool)) for link in links]
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(DeviceSource(agents, "int8", SPEC, POOL))
        cached = CachedSource(RetryingSource(device), folder / "measurements.sqlite", device.key)
        stack.callback(cached.close)
        for link in links:
            link.strike = strike
        recorded = bench.recorded(folder, bench.loop(cached, steps=STEPS), checkpoint_steps=2)
        recorded.run()
        found = [(trial.step, trial.architecture, trial.latency_ms, trial.reward) for trial in recorded.trials]
        return found, sum(status.faults for status in device.status())


@pytest.fixture(scope="module")
def undisturbed(
    bench: Bench, targets: list[Target], tool: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], int]:
    """What a search that nothing happens to comes to, and how many files it sends to one phone."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    counting = Strike(0, lambda target: None, sending=True)
    found, faults = search(bench, folder, targets[:1], tool, counting)
    assert (len(found), faults) == (2 * (STEPS - 1), 0)
    assert len({latency_ms for _, _, latency_ms, _ in found} - {None}) > 2  # else nothing could be taken for another
    return found, counting.files


@pytest.mark.parametrize("number", FAULTS)
def test_a_search_comes_to_the_same_whatever_happens_to_its_phone(
    bench: Bench, targets: list[Target], tool: Path, undisturbed: tuple[list[Any], int], tmp_path: Path, number: int
) -> None:
    rng = np.random.default_rng([1, number])
    kind, alone = KINDS[number % len(KINDS)], bool(rng.integers(2))
    expected, files = undisturbed
    # From the first candidate on; before comes the anchor model.
    at, delay_s = int(rng.integers(2, files if alone else 4)), float(rng.uniform(0, 0.05))
    used = targets[:1] if alone else targets
    strike = Strike(at, lambda target: getattr(target, kind)(delay_s), kind in IN_A_PUSH)
    said, faults = "", 0
    try:
        found, faults = search(bench, tmp_path / "run", used, tool, strike)
    except DeviceUnavailableError as error:
        said = str(error)
    assert strike.struck is not None
    strike.struck.repair(kind)
    if said:
        # Only what lasts and leaves no other phone may stop it, and then with the reason and what to do.
        assert (kind in LASTING, alone) == (True, True), said
        assert {"fill": "free some storage", "revoke": "Allow"}[kind] in said
        found, faults = search(bench, tmp_path / "run", used, tool)
        assert faults == 0
    elif alone and kind in IN_A_PUSH:  # the others may strike where nobody notices
        assert faults > 0
    assert found == expected
    for target in targets:
        # What a run could not remove, because it had lost the link, goes when the next one connects.
        with AndroidAgent(target.new_link(), AndroidSettings(tool=tool)) as agent:
            agent.info()
        assert files_of(target.phone) == []
        deadline_s = time.monotonic() + 60  # what is being ended may take a moment to be gone
        while "benchmark_model" in (left := target.script("ps -A -o PID,PPID,STAT,ARGS")):
            assert time.monotonic() < deadline_s, left
            time.sleep(0.05)
