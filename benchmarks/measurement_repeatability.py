"""Claim: a latency that is not flagged repeats, whatever else the machine does meanwhile.

Quiet part: one model is measured 20 times while another program works on the other core. At least 90% of the latencies
lie within 5% of their median, or are flagged.

Loaded part: a program takes the measured core itself for a while during the measurement. At least 95% of these
latencies are within 5% of that median (`corrected`: 10%), or are flagged, so that they would be measured again.

Flagging everything would meet both and show nothing: where more than half are flagged, "pass" is null if fewer than 5%
of the probes' visits are quiet, and false otherwise.

    python -m benchmarks.measurement_repeatability [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.interference import obeying
from device_agents.api import PRESETS, BenchmarkSpec, DeviceAgent, Measurement, Verdict
from device_agents.host import HostAgent, pick_cores
from device_agents.probe_models import compute_model
from device_agents.visiting import VisitingAgent
from device_agents.worker.system import allowed_cores

REPEATS = 20
TOLERANCE = 0.05
TARGET_REPEATABLE = 0.90
TARGET_TRUE_OR_FLAGGED = 0.95
CORRECTED_TOLERANCE = 0.10
FEWEST_QUIET = 0.05
LOAD_S = 0.2
LATEST_LOAD_START_S = 0.15
# Pinned, then busy until stdin says otherwise or the time is over.
BURN = """
import os, sys, time
os.sched_setaffinity(0, [int(sys.argv[1])])
print("ready", flush=True)
for line in sys.stdin:
    end = time.perf_counter() + float(line)
    while time.perf_counter() < end:
        sum(i * i for i in range(1000))
"""


def main() -> None:
    """Runs both parts and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer loaded cases, under 60 s")
    cases = 20 if parser.parse_args().quick else 200
    cores = pick_cores(threads=1)
    if cores is None:
        print(
            json.dumps(
                {
                    "benchmark": "measurement_repeatability",
                    "pass": None,
                    "reason": "needs two cores and a system that can pin",
                }
            )
        )
        return
    spec = PRESETS["search"].replace(cores=cores, patience_s=0.0)
    with VisitingAgent(HostAgent()) as agent:
        quiet = measure_quiet(agent, spec)
        loaded = measure_loaded(agent, spec, cases)
        quiet_share = min((state.quiet_share for state in agent.probe_states()), default=1.0)
    figures = summarize(quiet, loaded, quiet_share)
    print_table(figures)
    print(json.dumps(figures))


def measure_quiet(agent: DeviceAgent, spec: BenchmarkSpec) -> list[Measurement]:
    """Measures one model repeatedly while other work goes on on another core."""
    other = next(core for core in allowed_cores() or () if core not in (spec.cores or ()))
    model = compute_model()
    with burner(other) as burn:
        measurements = []
        for _ in range(REPEATS):
            burn(LOAD_S)
            measurements.append(agent.measure(model, spec))
        return measurements


def measure_loaded(agent: DeviceAgent, spec: BenchmarkSpec, cases: int) -> list[Measurement]:
    """Measures one model while the measured core is taken for a part of the timing."""
    assert spec.cores is not None
    rng = random.Random(0)
    model = compute_model()
    measurements = []
    with burner(spec.cores[0]) as burn:
        for _ in range(cases):
            delay_s = rng.uniform(0.03, LATEST_LOAD_START_S)
            threading.Timer(delay_s, burn, [LOAD_S]).start()
            measurements.append(agent.measure(model, spec))
            time.sleep(LOAD_S)  # the load must not reach the next one
    return measurements


@contextmanager
def burner(core: int) -> Iterator[Burn]:
    """Yields a function that keeps a core busy for so many seconds, without waiting."""
    with obeying(BURN, core) as process:
        yield Burn(process)


class Burn:
    """Asks the burning process for load."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, seconds: float) -> None:
        """Asks for so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()


def summarize(quiet: list[Measurement], loaded: list[Measurement], quiet_share: float) -> dict[str, object]:
    """Returns the figures of both parts."""
    trusted = [m for m in quiet if m.latency_ms is not None]
    centre = statistics.median([m.best_ms for m in trusted or quiet if m.best_ms is not None])
    repeatable = sum(_is_true_or_flagged(m, centre) for m in quiet) / len(quiet)
    held = sum(_is_true_or_flagged(m, centre) for m in loaded) / len(loaded)
    flagged = sum(not m.ok for m in (*quiet, *loaded)) / (len(quiet) + len(loaded))
    met = repeatable >= TARGET_REPEATABLE and held >= TARGET_TRUE_OR_FLAGGED and flagged <= 0.5
    inconclusive = not met and flagged > 0.5 and quiet_share < FEWEST_QUIET
    reason = {"reason": f"{quiet_share:.0%} of the probes' visits are quiet"} if inconclusive else {}
    return {
        "benchmark": "measurement_repeatability",
        "quiet_measurements": len(quiet),
        "quiet_latency_ms": centre,
        "quiet_visits": sum(len(m.visits) for m in quiet) / len(quiet),
        "repeatable_or_flagged": repeatable,
        "loaded_measurements": len(loaded),
        "loaded_visits": sum(len(m.visits) for m in loaded) / len(loaded),
        "loaded_true_or_flagged": held,
        "flagged": flagged,
        "quiet_share": quiet_share,
        "targets": {
            "repeatable_or_flagged": TARGET_REPEATABLE,
            "loaded_true_or_flagged": TARGET_TRUE_OR_FLAGGED,
            "flagged": 0.5,
        },
        **reason,
        "pass": None if inconclusive else met,
    }


def _is_true_or_flagged(measurement: Measurement, truth_ms: float) -> bool:
    tolerance = CORRECTED_TOLERANCE if measurement.verdict is Verdict.CORRECTED else TOLERANCE
    return measurement.latency_ms is None or abs(measurement.latency_ms / truth_ms - 1) <= tolerance


def print_table(figures: dict[str, object]) -> None:
    """Prints one figure a line."""
    for name, value in figures.items():
        print(f"{name:26} {value:.4g}" if isinstance(value, float) else f"{name:26} {value}")


if __name__ == "__main__":
    main()
