"""The worker agent over channels that are no pipes of its own: as a board's agent will use it, unchanged."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import device_agents.worker
from device_agents.api import BenchmarkSpec
from device_agents.errors import DeviceUnavailableError, ProtocolError, SpecError
from device_agents.results import read_capacities, read_device_info
from device_agents.worker.frames import PROTOCOL_VERSION
from device_agents.worker.system import allowed_cores, cpu_capacities
from device_agents.worker_agent import WorkerAgent
from device_agents.worker_link import WorkerChannel, WorkerLink
from device_agents.worker_process import ProcessChannel
from nas_edge.testing import check_device_agent
from tests.support import models

PARENT = Path(device_agents.worker.__file__).parent.parent
identify = partial(read_device_info, address="board:1", kind="board")

# Stands for a client that reaches a board: passes stdin and stdout on to the worker it starts, and its exit code back.
RELAY = """
import os, subprocess, sys, threading

worker = subprocess.Popen([sys.executable, "-m", "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

def forward():
    while data := os.read(0, 65536):
        worker.stdin.write(data)
        worker.stdin.flush()
    worker.stdin.close()

threading.Thread(target=forward, daemon=True).start()
while data := worker.stdout.read1(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
os._exit(worker.wait() % 256)
"""


class SocketChannel(WorkerChannel):
    """A worker whose stdin and stdout are one socket; `cut` ends the way to it, not the worker."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "worker"], cwd=PARENT, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL
        )
        theirs.close()
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True
        self._socket.shutdown(socket.SHUT_RDWR)

    def read(self, count: int) -> bytes:
        data = self._socket.recv(count)
        if not data and self.is_cut:
            raise DeviceUnavailableError("The way to the board is lost")
        return data

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def wait(self, timeout_s: float) -> int | None:
        return None if self.is_cut else self._worker.wait(timeout_s)

    def kill(self) -> None:
        self._worker.kill()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._worker.wait()
        self._socket.close()

    @property
    def alive(self) -> bool:
        return self._worker.poll() is None and not self.is_cut

    @property
    def log(self) -> str:
        return ""

    def send_signal(self, sent: signal.Signals) -> None:
        self._worker.send_signal(sent)


def relayed() -> ProcessChannel:
    return ProcessChannel([sys.executable, "-c", RELAY], PARENT)


@pytest.mark.parametrize("start", [SocketChannel, relayed])
def test_a_worker_that_was_started_elsewhere_keeps_an_agents_promises(start: Any) -> None:
    check_device_agent(lambda: WorkerAgent(start, identify))


def test_the_device_is_what_its_worker_says(agent: WorkerAgent) -> None:
    with WorkerAgent(relayed, identify) as board:
        info, here = board.info(), agent.info()
    assert (info.address, info.kind, info.measures_on_host) == ("board:1", "board", False)
    assert (info.model, info.soc, info.cores, info.os) == (here.model, here.soc, here.cores, here.os)
    assert (info.runtime, info.runtime_version) == (here.runtime, here.runtime_version)


def test_what_only_the_worker_can_tell_is_asked_of_it() -> None:
    with WorkerAgent(relayed, identify) as board:
        capacities = cpu_capacities(allowed_cores() or ())
        if len(set(capacities.values())) < 2:
            with pytest.raises(SpecError, match="has no big cores"):
                board.cores("big")
        else:
            assert set(board.cores("big")) | set(board.cores("little")) <= set(capacities)


def test_a_worker_that_hangs_far_away_is_replaced_and_its_candidate_measured_again(spec: BenchmarkSpec) -> None:
    channels: list[SocketChannel] = []

    def start() -> SocketChannel:
        channels.append(SocketChannel())
        return channels[-1]

    with WorkerAgent(start, identify) as board:
        board.info()
        channels[0].send_signal(signal.SIGSTOP)
        # One that hangs again would be the candidate's fault; this one did not.
        assert board.measure(models.conv_model(), spec.replace(timeout_s=5)).samples_ms
        assert board.measure(models.conv_model(), spec).samples_ms
    assert len(channels) == 2


def test_a_lost_way_is_no_candidates_fault(spec: BenchmarkSpec) -> None:
    channels: list[SocketChannel] = []

    def start() -> SocketChannel:
        channels.append(SocketChannel())
        return channels[-1]

    with WorkerAgent(start, identify) as board:
        board.info()
        (channel,) = channels
        original = channel.write

        def cut_while_sending(data: bytes) -> None:
            original(data[:100])
            channel.cut()

        channel.write = cut_while_sending  # type: ignore[method-assign]
        with pytest.raises(DeviceUnavailableError, match="way to the board is lost"):
            board.measure(models.conv_model(), spec)
        assert board.measure(models.conv_model(), spec).samples_ms, "the next candidate gets a new worker"


def test_a_worker_of_another_version_is_refused() -> None:
    class Other(SocketChannel):
        def read(self, count: int) -> bytes:
            data = super().read(count)
            return data.replace(b'"protocol":%d' % PROTOCOL_VERSION, b'"protocol":%d' % (PROTOCOL_VERSION - 1))

    with pytest.raises(DeviceUnavailableError, match="copy the present worker folder"):
        WorkerLink(Other())


GOOD = {"runtime": "tflite_runtime", "runtime_version": "2.11", "device": {"model": "Pi", "soc": "aarch64", "cores": 4}}
GOOD["device"] |= {"memory_bytes": None, "os": "Linux 5.10", "capacities": {"0": 446, "1": 1024}}  # type: ignore[operator]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": 3},
        {"cores": 0},
        {"cores": True},
        {"cores": None},
        {"memory_bytes": -1},
        {"os": None},
        {"capacities": {"x": 1}},
        {"capacities": {"1": "fast"}},
        {"capacities": [1]},
    ],
)
def test_what_a_device_says_of_itself_is_not_trusted(changes: dict[str, Any]) -> None:
    assert identify(GOOD).cores == 4
    assert read_capacities(GOOD) == {0: 446, 1: 1024}
    hello = {**GOOD, "device": {**GOOD["device"], **changes}}  # type: ignore[dict-item]
    with pytest.raises(ProtocolError):
        (read_capacities if "capacities" in changes else identify)(hello)
