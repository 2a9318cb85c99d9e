"""Claim: on a disturbed machine a model of it is nearer to the truth than measurements that take as long.

While a program streams memory, on and off in a random two-state pattern (`benchmarks.measurement_truth`), networks of a
space are measured in visits, and a model is fitted to them. It predicts networks that it was not fitted to, whose true
latencies come from blocks without the program, before and after. Each of these is also measured once while it streams,
all in one go, for as long as a network of the fit took with everything: the mean error of the model is to be at most
half of that of these measurements.

Beside it: the error of what the same networks have by the median of all their visits. Networks of which the blocks
differ by more than 2% are left out; where these are more than half, or the program slows too little, nothing is
concluded.

    python -m benchmarks.latency_noise [--quick]

`--quick` fits to a dozen networks, on which nothing is concluded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.timed_networks import (
    SLOWED_SHARE,
    Case,
    Place,
    disturbing_place,
    reference_file,
    share_slowed,
    truth_ms_of,
)
from device_agents.api import PRESETS, BenchmarkSpec
from device_agents.host import HostAgent, pick_cores
from device_agents.probe_watch import Probe
from device_agents.visiting import VisitingAgent, builtin_probes
from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.models.choosing import choose_model
from nas_edge.latency.models.subject import Observation, subject_of_architecture
from nas_edge.latency_fitting.sampling import Sampler
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.seeds import generator
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, NetworkSpace

TARGET = 0.5
MAX_TRUTH_DIFFERENCE = 0.02
QUIET_SHARE, STAYING = 0.4, 0.4
PRECISION = "float32"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        fitted: networks that the model is fitted to.
        held_out: networks that it predicts.
        rounds: visits to each of these in a block without the program.
        together: networks that share rounds of visits.
        max_duration_s: of one measurement; None for that of a search.
    """

    fitted: int = 120
    held_out: int = 24
    rounds: int = 12
    together: int = 8
    max_duration_s: float | None = None


QUICK = Effort(fitted=16, held_out=5, rounds=5, max_duration_s=0.4)


def figures_of(effort: Effort) -> dict[str, Any]:
    """The figures on this machine, and whether they are as claimed; None where nothing can be concluded."""
    cores = pick_cores(threads=1)
    if cores is None:
        return {"pass": None, "reason": "needs two cores and a system that can pin"}
    spec = PRESETS["search"].replace(cores=cores, patience_s=0.0)
    if effort.max_duration_s is not None:
        spec = spec.replace(max_duration_s=effort.max_duration_s, max_risk=1.0)
    space = find_space("proxylessnas")(64, 0.75, 1001, 3)
    rng = generator(0, "latency noise")
    held_out = [space.canonical(space.sample(rng)) for _ in range(effort.held_out)]
    cases = [Case(str(one), _file(space, one)) for one in held_out]
    with HostAgent() as host:
        place, slowdowns = disturbing_place(host, cases[:6], spec)
        before = truth_ms_of(host, cases, spec, effort.rounds)
        observations, each_s, singles_ms, medians_ms = _measured_under(host, place, space, cases, spec, effort)
        after = truth_ms_of(host, cases, spec, effort.rounds)
    agreeing = [i for i in range(len(cases)) if abs(before[i] / after[i] - 1) <= MAX_TRUTH_DIFFERENCE]
    figures: dict[str, Any] = {
        "interference": place.name,
        "slowed": share_slowed(slowdowns),
        "fitted": len(observations),
        "held_out": len(agreeing),
        "device_s": round(each_s, 2),
    }
    try:
        model = choose_model(observations).model
    except ConfigError as error:
        return {**figures, "pass": None, "reason": str(error)}
    predicted_ms = model.predict([subject_of_architecture(space, one) for one in held_out]).latency_ms.tolist()
    truths_ms = [(first + second) / 2 for first, second in zip(before, after, strict=True)]
    known = agreeing or list(range(len(cases)))

    def error_of(latencies_ms: Sequence[float]) -> float:
        return statistics.fmean(abs(latencies_ms[i] / truths_ms[i] - 1) for i in known)

    errors = {"model": error_of(predicted_ms), "single": error_of(singles_ms), "medians": error_of(medians_ms)}
    figures |= {f"error_of_{name}": round(error, 4) for name, error in errors.items()}
    figures |= {"kind": model.kind, "ratio": round(errors["model"] / errors["single"], 3)}
    if share_slowed(slowdowns) < SLOWED_SHARE:
        return {**figures, "pass": None, "reason": "the program does not slow enough of the networks on this machine"}
    if len(agreeing) < len(cases) / 2:
        return {**figures, "pass": None, "reason": "the machine is not quiet without the program: the blocks differ"}
    return {**figures, "pass": errors["model"] <= TARGET * errors["single"]}


def _measured_under(
    host: HostAgent, place: Place, space: NetworkSpace, cases: Sequence[Case], spec: BenchmarkSpec, effort: Effort
) -> tuple[list[Observation], float, list[float], list[float]]:
    """What is measured while the program streams.

    Returns:
        Observations to fit to, seconds per network, and of each held-out network the latency in ms in one go, and
        the median of its visits.
    """
    agent = VisitingAgent(host, probes=[*builtin_probes(), Probe("reference", reference_file())])
    agent.watch_probes(spec, effort.rounds)
    sampler = Sampler(space, 0, 4 * effort.fitted)
    observations: list[Observation] = []
    count, started_s = 0, time.perf_counter()
    with place.streaming() as interference:
        interference.start(QUIET_SHARE, STAYING, seed=1)
        while count < effort.fitted:
            some = sampler.fitted(min(effort.together, effort.fitted - count), observations)
            found = agent.measure_all([(_file(space, one), spec) for one in some])
            answers = [LatencyAnswer.measured(measurement) for measurement in found]
            observations += [
                Observation.of(sampler.subject(one), answer)
                for one, answer in zip(some, answers, strict=True)
                if answer.ok
            ]
            count += len(some)
            print(f"{count} networks, {len(observations)} with a latency to rely on", flush=True)
        each_s = (time.perf_counter() - started_s) / count
        in_one_go = spec.replace(min_runs=5, min_duration_s=each_s, max_duration_s=each_s)
        singles = host.measure_all([(case.model, in_one_go) for case in cases])
        visits = agent.measure_all([(case.model, spec) for case in cases])
        interference.stop()
    time.sleep(0.1)
    singles_ms = [statistics.median(one.samples_ms) for one in singles]
    return observations, each_s, singles_ms, [statistics.median(one.samples_ms) for one in visits]


def _file(space: NetworkSpace, architecture: Architecture) -> bytes:
    return tflite_model(space.build(architecture).needed_network(), PRECISION)


def main() -> int:
    """Prints the figures, the last line as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    figures = figures_of(QUICK if quick else Effort())
    if quick:
        figures = {**figures, "pass": None, "reason": "too few networks to conclude anything"}
    print(json.dumps({"benchmark": "latency_noise", **figures, "target": {"ratio": TARGET}}))
    return 1 if figures["pass"] is False else 0


if __name__ == "__main__":
    raise SystemExit(main())
