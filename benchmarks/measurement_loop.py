"""Claim: while candidates are measured, the device is visiting them or its probes 90% of the time.

Different random candidates of `mobilenet-v3-like` at 224 px, int8, are measured on this machine with the settings of a
search, from the architecture to the judged measurement:

* pipelined, as a search does it: several are measured together in rounds, and meanwhile the next are written;
* one after another: a candidate is written, then measured, then the next one is written;
* with the converter instead of the direct writer (full mode only): two candidates are built and converted, and the
  time that takes says what share would be left.

The two orders alternate in groups of candidates, so that other programs on this machine disturb both alike. The
device's share is the time in visits, those of probes included, over wall time; starting the worker and finding the
floors of the probes, once per session, is reported apart. Where fewer than 5% of the probes' visits are quiet, nothing
is concluded.

Run `python -m benchmarks.measurement_loop [--quick]`; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from device_agents.api import PRESETS, BenchmarkSpec, Measurement, MeasureRequest
from device_agents.host import HostAgent, pick_cores
from device_agents.pool import DevicePool
from device_agents.visiting import VisitingAgent
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces import find_space

SPACE = "mobilenet-v3-like"
INPUT_SIZE = 224
TARGET_BUSY_SHARE = 0.90
GROUP = 10
FEWEST_QUIET = 0.05


@dataclass
class Tally:
    """What measuring some candidates took.

    Attributes:
        wall_s: time from the first to the last.
        busy_s: time in which the device ran a model.
        measurements: theirs.
    """

    wall_s: float = 0.0
    busy_s: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)

    @property
    def busy_share(self) -> float:
        """Its share of the wall time."""
        return self.busy_s / self.wall_s

    @property
    def overhead_ms(self) -> float:
        """Time per candidate in which the device did neither."""
        return (self.wall_s - self.busy_s) / len(self.measurements) * 1e3

    def describe(self) -> str:
        """One line."""
        verdicts = ", ".join(f"{n} {v}" for v, n in Counter(str(m.verdict) for m in self.measurements).most_common())
        return (
            f"{len(self.measurements)} candidates in {self.wall_s:.1f} s, device busy {self.busy_share:.1%}, "
            f"{self.overhead_ms:.0f} ms lost per candidate ({verdicts})"
        )


def candidates(count: int) -> list[NetworkSpec]:
    """So many different networks of the space."""
    space = find_space(SPACE)(INPUT_SIZE, 1.0, 1001, 3)
    rng = np.random.default_rng(0)
    found: dict[str, NetworkSpec] = {}
    while len(found) < count:
        network = space.decode(space.canonical(space.sample(rng)))
        found.setdefault(network.fingerprint, network)
    return list(found.values())


class CountingAgent(HostAgent):
    """This machine; `busy_s` is the time in which it ran a model, a probe or a candidate."""

    busy_s = 0.0

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`."""
        found = super().measure_all(requests)
        self.busy_s += sum(measurement.busy_s for measurement in found)
        return found


@contextmanager
def counted(agent: CountingAgent, tally: Tally) -> Iterator[None]:
    """Adds what the block takes to a tally."""
    start_s, busy_s = time.perf_counter(), agent.busy_s
    yield
    tally.wall_s += time.perf_counter() - start_s
    tally.busy_s += agent.busy_s - busy_s


def measure_pipelined(pool: DevicePool, networks: Sequence[NetworkSpec], spec: BenchmarkSpec, tally: Tally) -> None:
    """Submits all, as `nas_edge.latency.device` does."""
    futures = [pool.submit(partial(tflite_model, network, "int8"), spec) for network in networks]
    tally.measurements += [future.result() for future in futures]


def measure_in_turn(pool: DevicePool, networks: Sequence[NetworkSpec], spec: BenchmarkSpec, tally: Tally) -> None:
    """Writes a candidate, measures it, and only then writes the next."""
    for network in networks:
        tally.measurements.append(pool.submit(tflite_model(network, "int8"), spec).result())


def conversion_s(networks: Sequence[NetworkSpec]) -> float:
    """Median time of building a candidate in Keras and converting it, in s."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from benchmarks.lowering_speed import convert
    from nas_edge.networks.keras_model import keras_model

    times_s = []
    for network in networks:
        start_s = time.perf_counter()
        convert(keras_model(network, batch_size=1), "int8")
        times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s)


def main() -> int:
    """Runs the benchmark; the exit status is 0 when the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer candidates and no conversion, under a minute")
    quick = parser.parse_args().quick
    # Twice as many in the pipelined order, which the claim is about.
    pipelined_count, in_turn_count = (15, 8) if quick else (100, 50)

    networks = candidates(pipelined_count)
    spec = PRESETS["search"].replace(cores=pick_cores(threads=1), patience_s=0.0)
    host = CountingAgent()
    agent = VisitingAgent(host)
    pipelined, in_turn = Tally(), Tally()
    with DevicePool([agent]) as pool:
        start_s = time.perf_counter()
        first = pool.submit(tflite_model(networks[0], "int8"), spec).result()
        start_up_s = time.perf_counter() - start_s - first.busy_s
        for at in range(0, pipelined_count, GROUP):
            with counted(host, pipelined):
                measure_pipelined(pool, networks[at : at + GROUP], spec, pipelined)
            if len(in_turn.measurements) < in_turn_count:
                with counted(host, in_turn):
                    measure_in_turn(pool, networks[at : at + GROUP], spec, in_turn)
        quiet_share = min((state.quiet_share for state in agent.probe_states()), default=1.0)
    converting_s = None if quick else conversion_s(networks[:2])

    print(f"pipelined:   {pipelined.describe()}")
    print(f"in turn:     {in_turn.describe()}")
    busy_s = pipelined.busy_s / pipelined_count
    converter_share = None
    if converting_s is not None:
        converter_share = busy_s / (busy_s + pipelined.overhead_ms / 1e3 + converting_s)
        print(f"converter:   {converting_s:.1f} s per candidate would leave the device busy {converter_share:.1%}")
    print(f"worker:      started in {start_up_s:.2f} s, once per session")
    passed: bool | None = pipelined.busy_share >= TARGET_BUSY_SHARE
    reason = {}
    if not passed and quiet_share < FEWEST_QUIET:
        passed = None
        reason = {"reason": f"{quiet_share:.0%} of the probes' visits are quiet: the machine is too busy to tell"}
    figures = {
        "benchmark": "measurement_loop",
        "candidates": pipelined_count,
        "busy_share": pipelined.busy_share,
        "overhead_ms": pipelined.overhead_ms,
        "busy_ms": busy_s * 1e3,
        "visits": sum(len(m.visits) for m in pipelined.measurements) / pipelined_count,
        "candidate_ms": pipelined.wall_s / pipelined_count * 1e3,
        "quiet_share": quiet_share,
        "ok": sum(m.ok for m in pipelined.measurements),
        "in_turn_busy_share": in_turn.busy_share,
        "in_turn_overhead_ms": in_turn.overhead_ms,
        "converter_s": converting_s,
        "converter_busy_share": converter_share,
        "start_up_s": start_up_s,
        "target": {"busy_share": TARGET_BUSY_SHARE},
        **reason,
        "pass": passed,
    }
    print(json.dumps(figures))
    return 1 if passed is False else 0


if __name__ == "__main__":
    sys.exit(main())
