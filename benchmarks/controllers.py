"""Claim: model-guided search comes within 1% of the best in 300 evaluations, and an LSTM matches independent choices.

Reward by number of evaluations for every controller of the table: that of the architecture a search would deliver, the
controller's most likely one, as a share of the best possible reward. Problems:

    operators        12 decisions among 6 operators: a value from U(0, 1) for each choice, and one from U(0, 0.5) for
                     each pair of neighbours. Each seed is another problem; the best is found by dynamic programming
    NAS-Bench-201    accuracy on CIFAR-100 under three latency targets of a Pixel 3 and a Pixel 2, in `NAS_EDGE_DATA`

`surrogate` and Optuna's sampler, whose proposals take longer the more they have seen, get 300 evaluations, all others
4,000. `lstm:enas-macro` and `lstm:enas-micro` are the LSTM with published settings. Proposals are scored before the
next ones are made: 20 architectures at a time for the policies, one for the others.

    python -m benchmarks.controllers [--quick] [--plot FILE]

Results of the full form are kept in `build/benchmarks/controllers`, or in the folder of `--kept`, and not repeated.
`--quick` runs one seed, and only one of the tables, with a fifth of the evaluations.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import search_tables
from benchmarks.kept_results import BUILD, KeptResults, kept_folder
from nas_edge.controllers import CONTROLLERS, Outcome, SearchPlan, as_proposed
from nas_edge.controllers.lstm import PUBLISHED
from nas_edge.errors import ConfigError
from nas_edge.rewards import Value, absolute
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import Architecture, Decision, SearchSpace
from nas_edge.spaces.design import Design

SEEDS, QUICK_SEEDS = 10, 1
FEW, MANY = 300, 4_000
EVALUATIONS = {"surrogate": FEW, "optuna": FEW}  # others: MANY
SAMPLES_PER_STEP = dict.fromkeys(("reinforce", "lstm", *(f"lstm:{one}" for one in PUBLISHED)), 20)  # others: 1
# Numbers of evaluations at which curves have points.
POINTS = (20, 60, 100, 200, 300, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 3_500, 4_000)
PRINTED = (100, 300, 1_000, 4_000)
TARGET_SURROGATE = 0.99
DECISIONS, OPERATORS = 12, 6


class Problem(ABC):
    """A problem to search.

    Attributes:
        name: of all its instances.
        space: the search space.
        best: the highest reward.
    """

    name: str
    space: SearchSpace
    best: float

    @abstractmethod
    def outcome(self, architecture: Architecture) -> Outcome:
        """The outcome of an architecture."""

    def plan(self, steps: int, samples: int) -> SearchPlan:
        """The plan of a search."""
        return SearchPlan(steps, samples_per_step=samples)


class _Operators(SearchSpace):
    """Decisions without networks."""

    def build(self, architecture: Architecture) -> Design:
        return Design(None, self.describe(architecture))


class OperatorsProblem(Problem):
    """A value for each operator, and for each pair of neighbours.

    Args:
        seed: of the values.
    """

    name = "operators"

    def __init__(self, seed: int) -> None:
        labels = tuple(f"operator {i}" for i in range(OPERATORS))
        self.space = _Operators(self.name, [Decision(f"layer{i}.op", labels, "op") for i in range(DECISIONS)])
        rng = generator(seed, self.name)
        self._values = rng.uniform(0.0, 1.0, (DECISIONS, OPERATORS))
        self._pairs = rng.uniform(0.0, 0.5, (DECISIONS - 1, OPERATORS, OPERATORS))
        best = self._values[0]  # by the last operator so far
        for values, pairs in zip(self._values[1:], self._pairs, strict=True):
            best = (best[:, None] + pairs).max(axis=0) + values
        self.most = float(best.max())
        # Rewards are shares of the highest value: published settings are made for rewards up to 1.
        self.best = 1.0

    def value(self, choices: Sequence[int]) -> float:
        """The sum of the values of these choices and of their pairs."""
        row = np.array(choices)
        values = self._values[np.arange(DECISIONS), row].sum()
        return float(values + self._pairs[np.arange(DECISIONS - 1), row[:-1], row[1:]].sum())

    def outcome(self, architecture: Architecture) -> Outcome:
        """See `Problem`; only the reward is known."""
        return Outcome(as_proposed(self.space, architecture), self.value(architecture.choices) / self.most)


class TableProblem(Problem):
    """Quality and latency out of a table.

    Args:
        table: which.
    """

    def __init__(self, table: search_tables.Problem) -> None:
        self.name, self.best = table.name, table.best()
        self.space = space = search_tables.space_of(table)
        self._objectives = [table.objective]
        self._qualities = space.table.column(table.quality_column, table.quality_scale)
        self._latencies_ms = space.table.column(table.latency_column)

    def outcome(self, architecture: Architecture) -> Outcome:
        """See `Problem`."""
        proposal = as_proposed(self.space, architecture)
        quality, latency_ms = self._qualities.get(architecture), self._latencies_ms.get(architecture)
        if quality is None or latency_ms is None:
            return Outcome(proposal, None)
        usage = {"latency_ms": latency_ms}
        return Outcome(proposal, absolute(quality, usage, self._objectives), quality, usage)

    def plan(self, steps: int, samples: int) -> SearchPlan:
        """See `Problem`."""

        def reward(quality: Value, usage: Mapping[str, Value]) -> Value:
            return absolute(quality, usage, self._objectives)

        return SearchPlan(steps, samples_per_step=samples, reward=reward)


def evaluations_of(name: str) -> int:
    """How many evaluations a controller gets."""
    return EVALUATIONS.get(name.partition(":")[0], MANY)


def jobs_of(
    names: Sequence[str], searched: Mapping[str, search_tables.Problem | None], seeds: Sequence[int], quick: bool
) -> dict[tuple[str, str, int], tuple[str, Sequence[Any]]]:
    """The jobs by problem, controller and seed: the key under which a result is kept, and the job."""
    jobs: dict[tuple[str, str, int], tuple[str, Sequence[Any]]] = {}
    for name in sorted(names, key=lambda name: name not in EVALUATIONS):  # those that take long first
        for problem, table in searched.items():
            evaluations = evaluations_of(name) // (5 if quick and table else 1)
            for seed in seeds:
                key = f"{name}, {table.key() if table else problem}, {evaluations}, seed {seed}"
                jobs[problem, name, seed] = key, (curve, name, table, seed, evaluations)
    return jobs


def curve(name: str, table: search_tables.Problem | None, seed: int, evaluations: int) -> dict[str, Any]:
    """One search: rewards as shares of the best.

    Args:
        name: of a controller, as a user writes it.
        table: what is searched; None: `OperatorsProblem`.
        seed: of the search, and of the problem.
        evaluations: how many.

    Returns:
        `delivered` and `seen`, by `POINTS`: of the most likely architecture, and the best so far; `seconds_per_1000`.
    """
    problem: Problem = OperatorsProblem(seed) if table is None else TableProblem(table)
    samples = SAMPLES_PER_STEP.get(name, 1)
    plan = problem.plan(evaluations // samples, samples)
    controller = CONTROLLERS.make(CONTROLLERS.settings(name), problem.space, plan)
    rng, best = generator(seed, "controller"), 0.0
    found: dict[str, Any] = {"delivered": [], "seen": []}
    started_s = time.process_time()
    for step in range(plan.total_steps):
        outcomes = [problem.outcome(architecture) for architecture in controller.propose(samples, rng)]
        controller.update(outcomes, step)
        best = max([best, *(outcome.reward for outcome in outcomes if outcome.reward is not None)])
        if (step + 1) * samples in POINTS:
            delivered = problem.outcome(controller.most_likely()).reward or 0.0
            found["delivered"].append(delivered / problem.best)
            found["seen"].append(best / problem.best)
    return {**found, "seconds_per_1000": 1_000 * (time.process_time() - started_s) / evaluations}


def rows_of(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Medians over the seeds of what `curve` returned, by controller."""
    return {
        name: {
            "evaluations": POINTS[: len(curves[0]["delivered"])],
            "delivered": _medians([one["delivered"] for one in curves]),
            "seen": _medians([one["seen"] for one in curves]),
            "seconds_per_1000": statistics.median(one["seconds_per_1000"] for one in curves),
        }
        for name, curves in found.items()
    }


def _medians(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def verdict(operators: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the claim on the problem `operators`, and whether it holds."""
    reached = {name: row["delivered"][-1] for name, row in operators.items()}
    return {
        "surrogate": reached["surrogate"],
        "lstm": reached["lstm"],
        "reinforce": reached["reinforce"],
        "pass": reached["surrogate"] >= TARGET_SURROGATE and reached["lstm"] >= reached["reinforce"],
    }


def table_text(problems: Mapping[str, Mapping[str, Any]]) -> str:
    """The medians of what would be delivered, a line for each controller and problem."""
    head = f"{'problem':40} {'controller':16}" + "".join(f"{point:>8}" for point in PRINTED)
    lines = [f"{head} {'best seen':>10} {'s / 1000':>9}"]
    for problem, rows in problems.items():
        for name, row in rows.items():
            at = dict(zip(row["evaluations"], row["delivered"], strict=True))
            cells = "".join(f"{at[point]:8.4f}" if point in at else f"{'':8}" for point in PRINTED)
            lines.append(f"{problem:40} {name:16}{cells} {row['seen'][-1]:10.4f} {row['seconds_per_1000']:9.2f}")
    return "\n".join(lines)


def plot(problems: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Writes the curves as an SVG file, a panel for each problem."""
    import vl_convert

    values = [
        {"problem": problem, "controller": name, "evaluations": point, "share": share}
        for problem, rows in problems.items()
        for name, row in rows.items()
        for point, share in zip(row["evaluations"], row["delivered"], strict=True)
    ]
    spec = {
        "data": {"values": values},
        "facet": {"field": "problem", "title": None, "sort": list(problems)},
        "columns": 2,
        "resolve": {"scale": {"y": "independent"}},
        "spec": {
            "width": 420,
            "height": 280,
            "mark": {"type": "line", "point": True},
            "encoding": {
                "x": {"field": "evaluations", "type": "quantitative", "scale": {"type": "log"}},
                "y": {
                    "field": "share",
                    "type": "quantitative",
                    "title": "reward of what would be delivered, over the best",
                    "scale": {"zero": False},
                },
                "color": {"field": "controller", "type": "nominal"},
            },
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(vl_convert.vegalite_to_svg(spec))


def controllers() -> list[str]:
    """All controllers of the table that can be made here, and the published settings of `lstm`."""
    usable = []
    for name in [*CONTROLLERS.entries, *(f"lstm:{one}" for one in PUBLISHED)]:
        try:
            CONTROLLERS.make(CONTROLLERS.settings(name), OperatorsProblem(0).space, SearchPlan(10))
        except ConfigError as error:
            print(f"{name} is left out: {error}")
        else:
            usable.append(name)
    return usable


def tables(quick: bool) -> list[search_tables.Problem]:
    """Those of NAS-Bench-201; none where the data is not there."""
    found = search_tables.nasbench201()
    missing = next((table.file for table in found if not Path(table.file).exists()), None)
    if missing is not None:
        print(f"tables are left out: {missing} does not exist; set NAS_EDGE_DATA to the data folder")
        return []
    return found[: 1 if quick else None]


def main() -> None:
    """Prints the table; writes the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seed instead of {SEEDS}")
    parser.add_argument("--plot", type=Path, default=BUILD / "controllers.svg", help="SVG file to write")
    parser.add_argument("--kept", type=Path, help="folder that keeps what was found")
    arguments = parser.parse_args()
    names, seeds = controllers(), range(QUICK_SEEDS if arguments.quick else SEEDS)
    searched = {OperatorsProblem.name: None, **{table.name: table for table in tables(arguments.quick)}}
    jobs = jobs_of(names, searched, seeds, arguments.quick)
    with kept_folder("controllers", arguments.kept, arguments.quick) as folder:
        results = KeptResults(folder / "results.jsonl")
        results.all(dict(jobs.values()))
    problems = {
        problem: rows_of({name: [results[jobs[problem, name, seed][0]] for seed in seeds] for name in names})
        for problem in searched
    }
    print(table_text(problems))
    plot(problems, arguments.plot)
    print(f"curves: {arguments.plot}")
    figures = {
        "benchmark": "controllers",
        "quick": arguments.quick,
        "seeds": len(seeds),
        "problems": problems,
        "targets": {"surrogate": TARGET_SURROGATE, "lstm": "as reinforce"},
        **verdict(problems[OperatorsProblem.name]),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
