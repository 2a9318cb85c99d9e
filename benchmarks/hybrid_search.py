"""Claim: `--latency hybrid` ends where measuring every candidate does, with at most a fifth of the measurements.

Each search is made twice with the same seed, once with every candidate measured and once with `hybrid`, by the
product's own method, finalists and selection. The difference is that of the rewards of what is selected, at its true
quality and latency; its 95% interval over the seeds (Student's t) has to be above -0.005. Measurements are counted with
those of the selection; an architecture that comes again counts once, as the cache has it.

    table  NAS-Bench-201 in `NAS_EDGE_DATA` with latencies of a Pixel 3 and a Pixel 2; TuNAS's policy, 2,000 trials
    host   `proxylessnas` at 32 pixels, timed on this machine. The quality is a stand-in, which grows with the logarithm
           of multiply-adds and has an effect of each choice, drawn at random: nothing is trained. What was selected is
           measured once more, side by side

    python -m benchmarks.hybrid_search [--quick] [--part table|host] [--controller NAME] [--steps N] [--seeds N]

`--quick` makes two short searches of one table, and with `--part host` one on this machine, timed in a hurry. A
controller that models latencies itself, `surrogate`, may be named; the claim is of the default of one-shot searches.
There is a verdict only of both parts, by that controller, with all steps and seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks.search_tables import Problem
from benchmarks.two_parts import verdict
from device_agents.api import PRESETS
from device_agents.host import HostAgent, pick_cores
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.cache import CachedSource
from nas_edge.latency.column import open_column
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.hybrid import HybridSettings, HybridSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import Candidate, LatencySource, SourceWrapper
from nas_edge.networks.analysis import analyze
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.quality.source import FunctionQuality, Quality
from nas_edge.rewards import Objective, absolute
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.finalists import FinalistsSettings, find_finalists
from nas_edge.search.loop import SearchLoop
from nas_edge.search.methods import SearchContext, make_controller, make_search
from nas_edge.search.multi_trial import MultiTrialSearch, MultiTrialSettings
from nas_edge.search.selection import select
from nas_edge.search.trials import Trial
from nas_edge.seeds import generator
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.spaces.table import TableSpaceSettings, table_space
from nas_edge.tasks.tabular import Tabular, TabularSettings

SEEDS, STEPS, SAMPLES = 10, 2_000, 1
HOST_SEEDS, HOST_STEPS, HOST_SAMPLES = 3, 100, 4
QUICK_SEEDS, QUICK_STEPS = 2, 500
QUICK_HOST_SEEDS, QUICK_HOST_STEPS = 1, 5
HURRIED = {"max_risk": 1.0, "patience_s": 0.0, "max_duration_s": 0.1}
CONTROLLER = "reinforce"
TARGET_DIFFERENCE, TARGET_SHARE = -0.005, 0.20
BETA = -0.10
_EFFECT = 0.003


class Counting(SourceWrapper):
    """Counts what is measured."""

    def __init__(self, source: LatencySource) -> None:
        super().__init__(source)
        self.count = 0

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`."""
        self.count += 1
        return self._source.submit(candidate)


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        winner: of the selection.
        measurements: of the search and the selection.
        predicted: trials of the search whose latency was predicted.
        trials: of the search.
    """

    winner: Trial
    measurements: int
    predicted: int
    trials: int


def searched(
    space: SearchSpace,
    settings: MultiTrialSettings,
    quality: FunctionQuality | None,
    objective: Objective,
    measuring: LatencySource,
    anew: LatencySource,
    seed: int,
) -> Found:
    """A search to its end.

    Args:
        space: where.
        settings: of the search.
        quality: in place of that of the settings; None for that.
        objective: the target.
        measuring: where latencies come from.
        anew: where those of finalists do.
        seed: of everything random.
    """
    context = SearchContext(space, Tabular(TabularSettings()), None, measuring, (objective,), seed)
    loop: SearchLoop
    if quality is None:
        loop = make_search(settings, context)
    else:
        evaluator = Evaluator(space, quality, measuring, (objective,), absolute)
        loop = MultiTrialSearch(make_controller(settings, context), evaluator, generator(seed, "controller"), settings)
    trials: list[Trial] = []
    loop.run(lambda report: trials.extend(report.trials))
    counted = anew = Counting(anew)
    loop.evaluator.latency = anew
    finalists = find_finalists(
        loop, trials, objective.target, FinalistsSettings(sampled=256), generator(seed, "finalists")
    )
    winner = select(space, loop.controller, loop.evaluate_all, None, finalists=finalists).winner
    measured = {trial.architecture for trial in trials if trial.latency and trial.latency.kind.value != "predicted"}
    predicted = sum(trial.latency is not None and trial.latency.kind.value == "predicted" for trial in trials)
    return Found(winner, len(measured) + counted.count, predicted, len(trials))


@dataclass(frozen=True)
class Pair:
    """Both searches with one seed.

    Attributes:
        difference: of the reward of `hybrid`'s winner to that of the other's.
        share: of the measurements.
        predicted: share of the trials whose latency was predicted.
    """

    difference: float
    share: float
    predicted: float


def _settings(steps: int, samples: int, controller: str, column: str, scale: float = 1.0) -> MultiTrialSettings:
    quality = {"source": "column", "column": column, "scale": scale}
    given = {"steps": steps, "samples_per_step": samples, "controller": controller, "quality": quality}
    return MultiTrialSettings.model_validate(given)


def table_pair(problem: Problem, controller: str, steps: int, seed: int) -> Pair:
    """Both searches of a table."""
    space = table_space(TableSpaceSettings(file=problem.file, decisions=problem.decisions))
    settings = _settings(steps, SAMPLES, controller, problem.quality_column, problem.quality_scale)
    column = open_column(problem.latency_column, space)
    measuring = [column, HybridSource(column, space, HybridSettings())]
    every, hybrid = (searched(space, settings, None, problem.objective, one, column, seed) for one in measuring)
    difference = (hybrid.winner.reward or 0.0) - (every.winner.reward or 0.0)
    return Pair(difference, hybrid.measurements / every.measurements, hybrid.predicted / hybrid.trials)


def host_pair(controller: str, steps: int, seed: int, folder: Path, measuring: Mapping[str, Any]) -> Pair:
    """Both searches on this machine."""
    space = find_space("proxylessnas")(32, 0.5, 10, 3)
    rng = generator(seed, "stand-in quality")
    effects = [rng.normal(0.0, _EFFECT, len(decision.choices)) for decision in space.decisions]

    def quality(candidate: Candidate) -> Quality:
        assert candidate.architecture is not None
        active = space.active(candidate.architecture)
        choices = zip(effects, candidate.architecture.choices, active, strict=True)
        of_choices = sum(float(row[choice]) for row, choice, reached in choices if reached)
        return Quality(0.5 + 0.05 * math.log(analyze(candidate.network).macs / 1e6) + of_choices)

    spec = PRESETS["search"].replace(cores=pick_cores(threads=1), **measuring)
    stand_in = FunctionQuality("a stand-in", quality)
    with DeviceSource([HostAgent()], "int8", spec) as device:
        middle = space.canonical(space.sample(generator(0, "target")))
        target = device.submit(Candidate(space.build(middle), middle)).result()
        objective = Objective("latency_ms", target.best_ms or 1.0, BETA)
        found = []
        for name in ("every", "hybrid"):
            with CachedSource(
                RetryingSource(_Borrowed(device)), folder / f"{name}-{seed}.sqlite", device.key
            ) as cached:
                source = cached if name == "every" else HybridSource(cached, space, HybridSettings())
                settings = _settings(steps, HOST_SAMPLES, controller, "none")
                found.append(searched(space, settings, stand_in, objective, source, RetryingSource(device), seed))
        every, hybrid = found
        winners = [space.build(one.winner.architecture).needed_network() for one in found]
        again = spec if measuring else PRESETS["rapid"].replace(cores=spec.cores)
        measured = device.measure_files([(tflite_model(network, "int8"), again) for network in winners])
    rewards = [
        absolute(one.winner.quality or 0.0, {"latency_ms": measurement.best_ms or math.inf}, [objective])
        for one, measurement in zip(found, measured, strict=True)
    ]
    share = hybrid.measurements / every.measurements
    return Pair(rewards[1] - rewards[0], share, hybrid.predicted / hybrid.trials)


class _Borrowed(SourceWrapper):
    """A source that goes on after what is around it was closed."""

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """As the source."""
        return self._source.submit(candidate)

    def close(self) -> None:
        """Leaves it open."""


def figures_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Means over the seeds, with the interval of the difference, which one seed does not have."""
    differences = np.array([pair.difference for pair in pairs])
    mean, share = float(differences.mean()), float(np.mean([pair.share for pair in pairs]))
    found = {
        "difference": round(mean, 5),
        "measurements": round(share, 4),
        "predicted": round(float(np.mean([pair.predicted for pair in pairs])), 4),
    }
    if len(pairs) < 2:
        return {**found, "interval": None, "pass": None, "reason": "one seed has no interval"}
    half = float(student.ppf(0.975, len(pairs) - 1)) * float(differences.std(ddof=1)) / math.sqrt(len(pairs))
    return {
        **found,
        "interval": [round(mean - half, 5), round(mean + half, 5)],
        "pass": mean - half > TARGET_DIFFERENCE and share <= TARGET_SHARE,
    }


def problems() -> list[Problem]:
    """The tables of NAS-Bench-201."""
    file = str(Path(os.environ.get("NAS_EDGE_DATA", "../shared/data")) / "nasbench201/nasbench201.csv")
    decisions = tuple(f"op_{place}" for place in range(6))
    targets = (("pixel3_ms", 5.0), ("pixel3_ms", 10.0), ("pixel2_ms", 14.0))
    return [Problem(file, decisions, "cifar100_test", 0.01, latency, target_ms) for latency, target_ms in targets]


def table_figures(quick: bool, controller: str, steps: int, seeds: int) -> dict[str, Any]:
    """The table part."""
    asked = problems()[1:2] if quick else problems()
    if not Path(asked[0].file).is_file():
        return {"pass": None, "reason": f"{asked[0].file} is not there"}
    rows: dict[str, Any] = {}
    with ProcessPoolExecutor(2) as processes:
        for problem in asked:
            pairs = list(processes.map(partial(table_pair, problem, controller, steps), range(seeds)))
            rows[problem.name] = figures_of(pairs)
            print(problem.name, json.dumps(rows[problem.name]), flush=True)
    if seeds < 2:
        return {**rows, "pass": None, "reason": "one seed has no interval"}
    return {**rows, "pass": all(row["pass"] for row in rows.values())}


def host_figures(controller: str, steps: int, seeds: int, folder: Path, measuring: Mapping[str, Any]) -> dict[str, Any]:
    """The host part."""
    pairs = []
    for seed in range(seeds):
        pairs.append(host_pair(controller, steps, seed, folder, measuring))
        print(f"host, seed {seed}: {pairs[-1]}", flush=True)
    return figures_of(pairs)


def main() -> int:
    """Prints the figures, the last line as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=("table", "host"))
    parser.add_argument("--controller", default=CONTROLLER)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int)
    given = parser.parse_args()
    parts: dict[str, dict[str, Any]] = {}
    if given.part != "host":
        steps, seeds = (QUICK_STEPS, QUICK_SEEDS) if given.quick else (STEPS, SEEDS)
        parts["table"] = table_figures(given.quick, given.controller, given.steps or steps, given.seeds or seeds)
    if given.part == "host" or not (given.quick or given.part):
        steps, seeds = (QUICK_HOST_STEPS, QUICK_HOST_SEEDS) if given.quick else (HOST_STEPS, HOST_SEEDS)
        measuring = HURRIED if given.quick else {}
        with tempfile.TemporaryDirectory() as folder:
            parts["host"] = host_figures(
                given.controller, given.steps or steps, given.seeds or seeds, Path(folder), measuring
            )
    target = {"difference": TARGET_DIFFERENCE, "measurements": TARGET_SHARE}
    short = given.quick or (given.steps or STEPS) < STEPS or (given.seeds or SEEDS) < SEEDS
    partial = "short searches, or too few seeds" if short else None
    if given.controller != CONTROLLER:
        partial = f"the claim is of the controller {CONTROLLER}"
    found = verdict(parts, partial)
    figures = {"benchmark": "hybrid_search", "controller": given.controller, **parts, "target": target, **found}
    print(json.dumps(figures))
    return 1 if found["pass"] is False else 0


if __name__ == "__main__":
    raise SystemExit(main())
