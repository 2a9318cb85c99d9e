"""Claim: a board reached over SSH is busy measuring at least 85% of the time, and a candidate costs at most 50 ms more.

Different random candidates of `mobilenet-v3-like` at 224 px, int8, are measured through OpenSSH's real server on
loopback, as a search does it: several in rounds of visits, while the next are written. The busy share is the time in
visits, those of probes included, over wall time. Connecting, copying the worker and finding the probes' floors, once a
session, are reported apart.

For comparison, in groups that alternate with it, the same through the worker of this machine. Then single visits, to
one candidate at a time: what one takes beyond loading and running the model, sending it included, over both ways.

The board is this machine, so the link's latency is that of loopback. What is shown is our part.

Run `python -m benchmarks.ssh_overhead [--quick]`; the last line is JSON. "pass" is null where there is no server.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from benchmarks.measurement_loop import GROUP, Tally, candidates
from device_agents.api import PRESETS, BenchmarkSpec, Measurement, MeasureRequest
from device_agents.host import HostAgent, pick_cores
from device_agents.pool import DevicePool
from device_agents.quiet import VisitSettings
from device_agents.ssh.address import read_address
from device_agents.ssh.agent import SshAgent
from device_agents.visiting import VisitingAgent
from device_agents.worker_agent import WorkerAgent
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.tflite_model import tflite_model
from tests.support.ssh import SshServer, start_server

TARGET_BUSY_SHARE, TARGET_OVERHEAD_MS = 0.85, 50.0


class Counting(WorkerAgent):
    """`busy_s` is the time in which it ran a model, a probe or a candidate."""

    busy_s = 0.0

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`."""
        found = super().measure_all(requests)
        self.busy_s += sum(measurement.busy_s for measurement in found)
        return found


class CountingBoard(Counting, SshAgent):
    """A board."""


class CountingHost(Counting, HostAgent):
    """This machine."""


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 candidates instead of 100, under a minute")
    quick = parser.parse_args().quick
    figures: dict[str, object] = {"benchmark": "ssh_overhead"}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        home = Path(name) / "home"
        home.mkdir()
        patch.setenv("HOME", str(home))
        (Path(name) / "server").mkdir()
        try:
            server = start_server(Path(name) / "server", home, patch)
        except pytest.skip.Exception as why:
            print(json.dumps({**figures, "pass": None, "reason": str(why)}))
            return
        try:
            figures |= compare(server, 10 if quick else 100)
        finally:
            server.close()
    passed = figures["busy_share"] >= TARGET_BUSY_SHARE and figures["overhead_ms"] <= TARGET_OVERHEAD_MS  # type: ignore[operator]
    targets = {"busy_share": TARGET_BUSY_SHARE, "overhead_ms": TARGET_OVERHEAD_MS}
    print(json.dumps({**figures, "targets": targets, "pass": passed}))
    sys.exit(0 if passed else 1)


def compare(server: SshServer, count: int) -> dict[str, object]:
    """Returns the figures of both ways."""
    networks = candidates(count)
    # How quiet the machine is, is not asked here.
    spec = PRESETS["search"].replace(cores=pick_cores(threads=1), max_risk=1.0, patience_s=0.0)
    with ExitStack() as stack:
        ways: dict[str, Counting] = {"ssh": CountingBoard(read_address(server.address[4:])), "host": CountingHost()}
        pools = {name: stack.enter_context(DevicePool([VisitingAgent(agent)])) for name, agent in ways.items()}
        start_s = {}
        for name, pool in pools.items():
            began_s = time.perf_counter()
            pool.submit(tflite_model(networks[0], "int8"), spec).result()
            start_s[name] = time.perf_counter() - began_s
        tallies = {name: Tally() for name in ways}
        for at in range(0, count, GROUP):
            for name, pool in pools.items():
                _measure(pool, ways[name], networks[at : at + GROUP], spec, tallies[name])
    for name, tally in tallies.items():
        print(f"{name}: {tally.describe()}, {start_s[name]:.1f} s to start")
    overhead_ms = _overheads_ms(server, networks, spec)
    for name, values in overhead_ms.items():
        print(f"{name}: a visit takes {statistics.median(values):.1f} ms beyond loading and running the model")
    return {
        "candidates": count,
        "busy_share": tallies["ssh"].busy_share,
        "host_busy_share": tallies["host"].busy_share,
        "overhead_ms": statistics.median(overhead_ms["ssh"]),
        "host_overhead_ms": statistics.median(overhead_ms["host"]),
        "start_s": start_s["ssh"],
        "answered": sum(m.best_ms is not None for m in tallies["ssh"].measurements),
    }


def _measure(
    pool: DevicePool, way: Counting, networks: Sequence[NetworkSpec], spec: BenchmarkSpec, tally: Tally
) -> None:
    began_s, busy_s = time.perf_counter(), way.busy_s
    futures = [pool.submit(partial(tflite_model, network, "int8"), spec) for network in networks]
    tally.measurements += [future.result() for future in futures]
    tally.wall_s += time.perf_counter() - began_s
    tally.busy_s += way.busy_s - busy_s


def _overheads_ms(server: SshServer, networks: Sequence[NetworkSpec], spec: BenchmarkSpec) -> dict[str, list[float]]:
    visit = VisitSettings().of_visit(spec)
    found: dict[str, list[float]] = {"ssh": [], "host": []}
    with SshAgent(read_address(server.address[4:])) as board, HostAgent() as host:
        board.info()
        host.measure_all([(tflite_model(networks[0], "int8"), visit)])
        for network in networks:
            model = tflite_model(network, "int8")
            agents: tuple[tuple[str, WorkerAgent], ...] = (("ssh", board), ("host", host))
            for name, agent in agents:
                began_s = time.perf_counter()
                (one,) = agent.measure_all([(model, visit)])
                found[name].append((time.perf_counter() - began_s - one.busy_s) * 1e3 - (one.init_ms or 0.0))
    return found


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
