"""Claim: two sessions on one machine say the same, also where it is disturbed in one of them.

Ten networks are measured in two sessions that share nothing but the floors of the probes: one without interference, one
while a program streams memory in a random two-state pattern (see `benchmarks.interference`). In each session every
network is measured several times, and the median of its quiet latencies is what the session says. For at least 90% of
the networks the two differ by at most 5%; one without an answer in a session counts as differing.

Beside it, what the medians of all runs, the usual latency, say. `--apart-s` waits between the sessions. Where blocks
without the program, before and after, differ by more than 2% for most networks, or fewer than 5% of the probes' visits
are quiet without it, nothing is concluded.

    python -m benchmarks.measurement_sessions [--quick] [--apart-s SECONDS]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.timed_networks import (
    SLOWED_SHARE,
    Case,
    disturbing_place,
    reference_file,
    share_slowed,
    timed_networks,
    truth_ms_of,
)
from device_agents.api import PRESETS, BenchmarkSpec, Measurement
from device_agents.floors import FloorStore
from device_agents.host import HostAgent, pick_cores
from device_agents.probe_watch import Probe
from device_agents.visiting import VisitingAgent, builtin_probes

TOLERANCE, TARGET = 0.05, 0.90
MAX_TRUTH_DIFFERENCE = 0.02
FEWEST_QUIET = 0.05
QUIET_SHARE, STAYING = 0.4, 0.4


def main() -> None:
    """Runs both sessions and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="one measurement of each in a session, under 60 s")
    parser.add_argument("--apart-s", type=float, default=0.0, metavar="SECONDS", help="wait between the sessions")
    options = parser.parse_args()
    cores = pick_cores(threads=1)
    figures: dict[str, object] = {"benchmark": "measurement_sessions"}
    if cores is None:
        print(json.dumps({**figures, "pass": None, "reason": "needs two cores and a system that can pin"}))
        return
    spec = PRESETS["search"].replace(cores=cores, patience_s=0.0)
    cases, repeats, rounds = timed_networks(), 1 if options.quick else 3, 8 if options.quick else 16
    with tempfile.TemporaryDirectory() as folder, HostAgent() as host:
        floors = FloorStore(Path(folder) / "floors.json")
        place, slowdowns = disturbing_place(host, cases, spec)
        before = truth_ms_of(host, cases, spec, rounds)
        undisturbed, quiet_share = _session(cases, spec, floors, repeats)
        time.sleep(options.apart_s)
        with place.streaming() as interference:
            interference.start(QUIET_SHARE, STAYING, seed=1)
            disturbed, _ = _session(cases, spec, floors, repeats)
            interference.stop()
        time.sleep(0.1)
        after = truth_ms_of(host, cases, spec, rounds)
    quiet = [_ratio(a, b, "latency_ms") for a, b in zip(undisturbed, disturbed, strict=True)]
    usual = [_ratio(a, b, "median_ms") for a, b in zip(undisturbed, disturbed, strict=True)]
    for case, ratio, of_medians in zip(cases, quiet, usual, strict=True):
        print(
            f"{case.name:40s} quiet latencies x{ratio or float('nan'):.3f}   medians x{of_medians or float('nan'):.3f}"
        )
    alike = _share_alike(quiet)
    moved = sum(abs(a / b - 1) > MAX_TRUTH_DIFFERENCE for a, b in zip(before, after, strict=True)) / len(cases)
    passed: bool | None = alike >= TARGET
    reason = {}
    if not passed and moved > 0.5:
        passed = None
        reason = {"reason": "the machine is not quiet without the program: the blocks differ"}
    if not passed and quiet_share < FEWEST_QUIET:
        passed = None
        reason = {"reason": f"without the program {quiet_share:.0%} of the probes' visits are quiet"}
    if share_slowed(slowdowns) < SLOWED_SHARE:
        passed = None
        reason = {"reason": "the program does not slow enough of the networks on this machine"}
    figures |= {
        "interference": place.name,
        "slowed": share_slowed(slowdowns),
        "apart_s": options.apart_s,
        "networks": len(cases),
        "alike": alike,
        "alike_by_medians": _share_alike(usual),
        "blocks_differing": moved,
        "quiet_share": quiet_share,
        "verdicts": [
            dict(Counter(str(m.verdict) for found in session for m in found)) for session in (undisturbed, disturbed)
        ],
        "targets": {"alike": TARGET, "tolerance": TOLERANCE},
        **reason,
        "pass": passed,
    }
    print(json.dumps(figures))


def _session(
    cases: Sequence[Case], spec: BenchmarkSpec, floors: FloorStore, repeats: int
) -> tuple[list[list[Measurement]], float]:
    """Returns the measurements of each network in a session of its own, and the share of the probes' quiet visits."""
    probes = [*builtin_probes(), Probe("reference", reference_file())]
    with VisitingAgent(HostAgent(), probes=probes, floors=floors) as agent:
        rows = [agent.measure_all([(case.model, spec) for case in cases]) for _ in range(repeats)]
        quiet_share = min((state.quiet_share for state in agent.probe_states()), default=1.0)
    return [list(column) for column in zip(*rows, strict=True)], quiet_share


def _ratio(one: Sequence[Measurement], other: Sequence[Measurement], of: str) -> float | None:
    """Returns what one session says over what the other does, None where one of them has no answer."""
    values = [[value for m in found if (value := _value(m, of)) is not None] for found in (one, other)]
    return statistics.median(values[1]) / statistics.median(values[0]) if all(values) else None


def _value(measurement: Measurement, of: str) -> float | None:
    if of == "latency_ms":
        return measurement.latency_ms
    return statistics.median(measurement.samples_ms) if measurement.samples_ms else None


def _share_alike(ratios: Sequence[float | None]) -> float:
    return sum(ratio is not None and abs(ratio - 1) <= TOLERANCE for ratio in ratios) / len(ratios)


if __name__ == "__main__":
    main()
