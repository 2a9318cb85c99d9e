"""Claim: a latency that is not flagged repeats, and a disturbed one is flagged.

Quiet part: one model is measured 20 times while another program works on the other core.
At least 90% of the medians lie within 5% of their median, or are flagged. If more than half are
flagged, the machine is too busy to show anything and "pass" is null.

Loaded part: a program takes the measured core itself for a while during the timing. At
least 95% of these measurements are flagged, so that they would be measured again.

    python -m benchmarks.measurement_repeatability [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from device_agents.api import BenchmarkSpec, Measurement
from device_agents.host import HostAgent, pick_cores
from device_agents.probe_models import compute_model
from device_agents.worker.probes import allowed_cores

REPEATS = 20
TOLERANCE = 0.05
TARGET_REPEATABLE = 0.90
TARGET_DETECTED = 0.95
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
    cases = 30 if parser.parse_args().quick else 200
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
    spec = BenchmarkSpec(cores=cores, min_duration_s=0.3, max_duration_s=0.6, max_attempts=1)
    with HostAgent() as agent:
        quiet = measure_quiet(agent, spec.replace(max_attempts=2))
        loaded = measure_loaded(agent, spec, cases)
    figures = summarize(quiet, loaded)
    print_table(figures)
    print(json.dumps(figures))


def measure_quiet(agent: HostAgent, spec: BenchmarkSpec) -> list[Measurement]:
    """Measures one model repeatedly while other work goes on on another core."""
    other = next(core for core in allowed_cores() or () if core not in (spec.cores or ()))
    model = compute_model()
    with burner(other) as burn:
        measurements = []
        for _ in range(REPEATS):
            burn(LOAD_S)
            measurements.append(agent.measure(model, spec))
        return measurements


def measure_loaded(agent: HostAgent, spec: BenchmarkSpec, cases: int) -> list[Measurement]:
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
    process = subprocess.Popen(
        [sys.executable, "-c", BURN, str(core)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield Burn(process)
    finally:
        process.kill()
        process.communicate()


class Burn:
    """Asks the burning process for load."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, seconds: float) -> None:
        """Asks for so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()


def summarize(quiet: list[Measurement], loaded: list[Measurement]) -> dict[str, object]:
    """Returns the figures of both parts."""
    medians = [m.statistics.median_ms for m in quiet if m.statistics]
    centre = statistics.median(medians)
    trusted = [m.latency_ms for m in quiet if m.latency_ms is not None]
    strays = sum(abs(latency_ms / centre - 1) > TOLERANCE for latency_ms in trusted)
    repeatable = 1 - strays / len(quiet)
    detected = sum(not m.ok for m in loaded) / len(loaded)
    # Flagging everything would meet both targets and show nothing.
    conclusive = len(trusted) >= len(quiet) / 2
    met = repeatable >= TARGET_REPEATABLE and detected >= TARGET_DETECTED
    return {
        "benchmark": "measurement_repeatability",
        "quiet_measurements": len(quiet),
        "quiet_median_ms": centre,
        "quiet_largest_deviation": max(abs(m / centre - 1) for m in medians),
        "quiet_flagged": 1 - len(trusted) / len(quiet),
        "quiet_attempts": sum(m.attempts for m in quiet) / len(quiet),
        "repeatable_or_flagged": repeatable,
        "loaded_measurements": len(loaded),
        "loaded_median_ms": statistics.median(m.statistics.median_ms for m in loaded if m.statistics),
        "loaded_detected": detected,
        "targets": {"repeatable_or_flagged": TARGET_REPEATABLE, "loaded_detected": TARGET_DETECTED},
        "conclusive": conclusive,
        "pass": met if conclusive else None,
    }


def print_table(figures: dict[str, object]) -> None:
    """Prints one figure a line."""
    for name, value in figures.items():
        print(f"{name:26} {value:.4g}" if isinstance(value, float) else f"{name:26} {value}")


if __name__ == "__main__":
    main()
