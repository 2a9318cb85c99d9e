"""Claim: model-guided search finds the best architecture of a table in 150 evaluations; chance does not in 2,000.

Three searches of a table of results, each with several seeds, by the product's own method and controllers:

    surrogate    the default of multi-trial search: the best reward of the first 150 distinct architectures
    random       the best reward of 2,000 trials
    reinforce    TuNAS's policy after 2,000 trials: the reward of the architecture that is chosen in the end, the most
                 likely one, and the best of 256 finalists (`search.finalists`)

The default tables are those of NAS-Bench-201 in `NAS_EDGE_DATA`, with latencies of a Pixel 3 and a Pixel 2. Any other
may be named; nothing was tuned to these.

    python -m benchmarks.search_tables [--quick]
    python -m benchmarks.search_tables --table results.csv --decisions a,b,c --quality-column accuracy \
        --quality-scale 0.01 --latency-column phone_ms --target-ms 10

The full form takes some minutes; what it has found is kept in `build/benchmarks/search_tables`, unless `--kept` names
another folder, and not repeated. `--quick` takes one seed instead of ten, whose figures say little of the median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.kept_results import KeptResults, kept_folder
from nas_edge.latency.column import open_column
from nas_edge.rewards import REWARDS, Objective
from nas_edge.search.finalists import FinalistsSettings, find_finalists
from nas_edge.search.loop import SearchLoop
from nas_edge.search.methods import SearchContext, make_search
from nas_edge.search.multi_trial import MultiTrialSettings
from nas_edge.search.selection import select
from nas_edge.search.trials import Trial
from nas_edge.seeds import generator
from nas_edge.spaces.table import TableSpace, TableSpaceSettings, table_space
from nas_edge.tasks.tabular import Tabular, TabularSettings

FEW, MANY = 150, 2_000
SEEDS, QUICK_SEEDS = 10, 1
# How far from the best of the table the median over the seeds may be.
TARGET_BEST, TARGET_POLICY = 0.001, 0.006
BETA = -0.10


@dataclass(frozen=True)
class Problem:
    """A table and what is looked for in it.

    Attributes:
        file: CSV, plain or gzip.
        decisions: its columns that are decisions.
        quality_column: of which more is better.
        quality_scale: times that column.
        latency_column: in milliseconds.
        target_ms: latency to meet.
    """

    file: str
    decisions: tuple[str, ...]
    quality_column: str
    quality_scale: float
    latency_column: str
    target_ms: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.quality_column}, {self.latency_column} at {self.target_ms:g} ms"

    def key(self) -> str:
        """Of what is kept: all that the searches depend on, the contents of the table among it."""
        settings = {**asdict(self), "sha256": sha256(Path(self.file).read_bytes()).hexdigest()}
        return f"{self.name}, {FEW} and {MANY} trials, beta {BETA:g}, {json.dumps(settings)}"

    def best(self) -> float:
        """The highest reward in the table."""
        table = space_of(self).table
        qualities, latencies_ms = (
            table.column(self.quality_column, self.quality_scale),
            table.column(self.latency_column),
        )
        return max(
            REWARDS["absolute"](quality, {"latency_ms": latencies_ms[architecture]}, [self.objective])
            for architecture, quality in qualities.items()
            if architecture in latencies_ms
        )

    @property
    def objective(self) -> Objective:
        """The target in the reward."""
        return Objective("latency_ms", self.target_ms, BETA)


@dataclass(frozen=True)
class Searches:
    """What the searches of one problem with one seed came to: rewards.

    Attributes:
        surrogate: best of the first 150 distinct architectures.
        random: best of 2,000 trials.
        most_likely: of the policy's most likely architecture.
        finalist: of the policy's best finalist.
        seconds_per_proposal: of the surrogate.
    """

    surrogate: float
    random: float
    most_likely: float
    finalist: float
    seconds_per_proposal: float


def searches(problem: Problem, seed: int) -> dict[str, float]:
    """All searches of a problem with one seed: `Searches` as JSON values."""
    started_s = time.perf_counter()
    _, guided = _searched(problem, None, FEW, seed)
    took_s = time.perf_counter() - started_s
    _, by_chance = _searched(problem, "random", MANY, seed)
    loop, trials = _searched(problem, "reinforce", MANY, seed)
    most_likely = select(loop.space, loop.controller, loop.evaluate_all, None).winner
    finalists = find_finalists(
        loop, trials, problem.target_ms, FinalistsSettings(sampled=256), generator(seed, "finalists")
    )
    winner = select(loop.space, loop.controller, loop.evaluate_all, None, finalists=finalists).winner
    found = Searches(
        _best([trial for i, trial in enumerate(guided) if len({t.architecture for t in guided[: i + 1]}) <= FEW]),
        _best(by_chance),
        _best([most_likely]),
        _best([winner]),
        took_s / len(guided),
    )
    return asdict(found)


def _best(trials: Sequence[Trial]) -> float:
    return max(trial.reward for trial in trials if trial.reward is not None)


@cache
def space_of(problem: Problem) -> TableSpace:
    """Read once."""
    return table_space(TableSpaceSettings(file=problem.file, decisions=problem.decisions))


def _searched(problem: Problem, controller: str | None, steps: int, seed: int) -> tuple[SearchLoop, list[Trial]]:
    """A search of the table to its end; None takes the default controller."""
    quality = {"source": "column", "column": problem.quality_column, "scale": problem.quality_scale}
    given: dict[str, Any] = {"steps": steps, "quality": quality}
    settings = MultiTrialSettings.model_validate(given if controller is None else {**given, "controller": controller})
    space = space_of(problem)
    latency = open_column(problem.latency_column, space)
    context = SearchContext(space, Tabular(TabularSettings()), None, latency, (problem.objective,), seed)
    loop = make_search(settings, context)
    trials: list[Trial] = []
    loop.run(lambda report: trials.extend(report.trials))
    return loop, trials


def figures_of(problem: Problem, found: Sequence[Searches]) -> dict[str, Any]:
    """Medians over the seeds beside the best of the table."""
    best = problem.best()
    medians = {
        name: statistics.median(getattr(one, name) for one in found)
        for name in ("surrogate", "random", "most_likely", "finalist")
    }
    return {
        "problem": problem.name,
        "best": best,
        "median": medians,
        "surrogates": sorted(one.surrogate for one in found),
        "seconds_per_proposal": statistics.median(one.seconds_per_proposal for one in found),
        "pass": medians["surrogate"] >= best - TARGET_BEST
        and (medians["surrogate"] > medians["random"] or medians["random"] >= best)
        and medians["finalist"] >= best - TARGET_POLICY,
    }


def problems(arguments: argparse.Namespace) -> list[Problem]:
    """What the command line names, else `nasbench201`."""
    if arguments.table is not None:
        decisions = tuple(arguments.decisions.split(","))
        columns = arguments.quality_column, arguments.quality_scale, arguments.latency_column
        return [Problem(arguments.table, decisions, *columns, target_ms) for target_ms in arguments.target_ms]
    return nasbench201()


def nasbench201() -> list[Problem]:
    """Those of NAS-Bench-201 in `NAS_EDGE_DATA`."""
    data = Path(os.environ.get("NAS_EDGE_DATA", Path(__file__).parents[1] / "../shared/data"))
    file, decisions = str(data / "nasbench201/nasbench201.csv"), tuple(f"op_{i}" for i in range(6))
    targets = (("pixel3_ms", 5.0), ("pixel3_ms", 10.0), ("pixel2_ms", 14.0))
    return [Problem(file, decisions, "cifar100_test", 0.01, latency, target_ms) for latency, target_ms in targets]


def main() -> None:
    """Prints a line for each problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seed instead of {SEEDS}")
    parser.add_argument("--table", help="CSV file, plain or gzip; default: NAS-Bench-201 in NAS_EDGE_DATA")
    parser.add_argument("--decisions", help="its columns that are decisions, separated by commas")
    parser.add_argument("--quality-column", help="of which more is better")
    parser.add_argument("--quality-scale", type=float, default=1.0, help="times that column; 0.01 for percent")
    parser.add_argument("--latency-column", help="in milliseconds")
    parser.add_argument("--target-ms", type=float, action="append", help="may be repeated")
    parser.add_argument("--kept", type=Path, help="folder that keeps what was found")
    arguments = parser.parse_args()
    named = (arguments.decisions, arguments.quality_column, arguments.latency_column, arguments.target_ms)
    if any(value is not None for value in (arguments.table, *named)) and None in (arguments.table, *named):
        parser.error("--table requires --decisions, --quality-column, --latency-column and --target-ms")
    chosen, seeds = problems(arguments), range(QUICK_SEEDS if arguments.quick else SEEDS)
    with kept_folder("search_tables", arguments.kept, arguments.quick) as folder:
        results = KeptResults(folder / "results.jsonl")
        keys = {problem: [f"{problem.key()}, seed {seed}" for seed in seeds] for problem in chosen}
        results.all(
            {
                key: (searches, problem, seed)
                for problem in chosen
                for seed, key in zip(seeds, keys[problem], strict=True)
            }
        )
    rows = []
    for problem in chosen:
        row = figures_of(problem, [Searches(**results[key]) for key in keys[problem]])
        rows.append(row)
        medians = ", ".join(f"{name} {value:.4f}" for name, value in row["median"].items())
        print(f"{problem.name}: best {row['best']:.4f}; median of {len(seeds)}: {medians}")
    figures = {
        "benchmark": "search_tables",
        "quick": arguments.quick,
        "seeds": len(seeds),
        "evaluations": {"surrogate": FEW, "random": MANY, "reinforce": MANY},
        "problems": rows,
        "targets": {"surrogate_below_best": TARGET_BEST, "finalist_below_best": TARGET_POLICY},
        "pass": all(row["pass"] for row in rows),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
