"""Claim: for every task, what a search delivers is better than the scaled reference network that takes as long.

For each task other than classification and each seed, a one-shot search on images drawn by rule, by the public API, for
three quarters of the latency of the space's reference network; then the reference network as wide as the latency of
what was delivered allows, trained, quantised and tested alike. The delivered int8 file has to be better in the task's
own metric in the mean of three seeds. Differences are in points, hundredths of the metric; their 95% intervals are
those of Student's t.

    python -m benchmarks.tasks [--quick] [--task NAME ...] [--kept FOLDER] [--seeds N] [--latency SOURCE]
        [--set NAME=VALUE ...]

Everything is kept in `build/benchmarks/tasks`, unless another folder is named, by its settings: what is finished is not
repeated, and a search that was stopped goes on. `--latency sim:edgetpu` takes all
latencies from there; otherwise this host is measured. `--quick` makes a search of a few steps for one task with one
seed, which shows that everything works and allows no verdict.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from benchmarks.kept_results import KeptResults, kept_folder, settings_folder
from benchmarks.search_vs_random import SEEDS, Bench, difference, search_parser, settings_of, tell
from nas_edge.config import load_config
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.spaces.decisions import Architecture

SHARE = 0.75
# Data on which networks differ, and which a search of this length learns.
DATA = {
    "multi-label": "procedural:size=32,classes=9,difficulty=0.3",
    "regression": "procedural:size=32,classes=4,difficulty=0.5",
    "embedding": "procedural:size=32,classes=8,difficulty=0.3",
    "segmentation": "procedural:size=32,classes=9,difficulty=0.3",
    "detection": "procedural:size=32,classes=9,difficulty=0.3,figures=4",
    "keyword-spotting": "procedural:classes=9,difficulty=0.8",
}
QUICK_TASK, QUICK_DATA = "multi-label", "procedural:classes=4,difficulty=0.1,train=300,test=100"


class TaskBench(Bench):
    """One task and seed; see `search_vs_random.Bench`."""

    def run(self) -> dict[str, Any]:
        """The delivered network's quality and that of the scaled reference, and the latency of both."""
        from nas_edge.quiet import start_tensorflow
        from nas_edge.stages.context import open_bench

        start_tensorflow(self.config.runs.deterministic)
        with open_bench(self.config, self.task, self.data, self.space) as bench:
            source = bench.latency_source
            target_ms = float(self.once("target", lambda: SHARE * self._reference_ms(source, 1.0)))
            cost = self.once("search", lambda: self._searched(target_ms))
            delivered_ms = float(self.once("latency", lambda: self._latency_ms(source, cost["architecture"])))
            width = float(self.once("width", lambda: self._width(source, delivered_ms)))
            scaled_ms = float(self.once("scaled latency", lambda: self._reference_ms(source, width)))
        scaled = self.once("scaled", lambda: self._scaled(width))
        metric = self.task.metric
        tell(
            f"{self.config.task.name}, seed {self.config.seed}: {metric.name} {metric.text(cost['accuracy'])} in "
            f"{delivered_ms:.3g} ms, scaled reference {metric.text(scaled)} in {scaled_ms:.3g} ms"
        )
        return {
            "task": self.config.task.name,
            "seed": self.config.seed,
            "metric": metric.name,
            "target_ms": target_ms,
            "delivered": cost["accuracy"],
            "delivered_ms": delivered_ms,
            "scaled": scaled,
            "scaled_ms": scaled_ms,
        }

    def _latency_ms(self, source: LatencySource, text: str) -> float:
        architecture = Architecture.parse(text)
        answer = source.submit(Candidate(self.space.build(architecture), architecture)).result()
        return float(answer.best_ms or math.inf)


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By how many points what is delivered is better, by task."""
    tasks = dict.fromkeys(row["task"] for row in rows)
    return {
        name: difference([100 * (row["delivered"] - row["scaled"]) for row in rows if row["task"] == name])
        for name in tasks
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what every task and seed came to, and the figures."""
    parser = search_parser(__doc__, "a search of a few steps, one task and seed: no verdict")
    parser.add_argument("--task", dest="tasks", action="append", choices=list(DATA), help="only this; may be repeated")
    given = parser.parse_args(arguments)
    settings = settings_of(given)
    names = given.tasks or ([QUICK_TASK] if given.quick else list(DATA))
    rows = []
    with kept_folder("tasks", given.kept, given.quick) as folder:
        for name in names:
            data = {**settings["data"], "source": QUICK_DATA if given.quick else DATA[name]}
            of_task = {**settings, "data": data, "task.name": name}
            own = settings_folder(folder, name, [of_task, given.assignments])
            own.mkdir(exist_ok=True)
            results = KeptResults(own / "results.jsonl")
            # For people: what the folder is of.
            if "settings" not in results:
                results.keep("settings", [of_task, given.assignments])
            for seed in range(1 if given.quick else given.seeds):
                # A placeholder, until the reference network has been timed.
                flags = {**of_task, "seed": seed, "target.latency_ms": 1.0}
                config = load_config(flags=flags, settings=given.assignments)
                rows.append(TaskBench(config, own / f"seed-{seed}", results).run())
    better = figures(rows)
    for name, by in better.items():
        interval = "" if by["interval"] is None else " [{:+.1f}, {:+.1f}]".format(*by["interval"])
        tell(f"{name}: {by['points']:+.1f} points{interval}")
    found = {"benchmark": "tasks", "rows": rows, "better": better, "target_points": 0}
    if given.quick or set(names) != set(DATA) or given.seeds < SEEDS:
        reason = "a search of a few steps" if given.quick else "not every task, or too few seeds"
        print(json.dumps({**found, "pass": None, "reason": reason}))
        return
    print(json.dumps({**found, "pass": all(by["points"] > 0 for by in better.values())}))


if __name__ == "__main__":
    main()
