"""Claim: at equal total cost a search delivers a better network than chance, size and scaling do.

For each seed, a one-shot search on the built-in `procedural` data, by the public API, for the median latency of nine
random networks, and then, at the same target and trained, quantised and tested alike:

    random     the best of random search: networks that meet the target, each trained with the training images alone, as
               many as the search's total number of training images pays for, those of successive halving included, the
               most accurate on validation images
    slowest    the slowest network that meets the target, of as many random ones as the search measured
    scaled     the published reference network of the space, as wide as the target allows

Random search measures no more networks than the search did, and leaves them the same head-room. The search has to be at
least 1.0 point better than each in the mean of three seeds. The 95% intervals are those of Student's t.

    python -m benchmarks.search_vs_random [--quick] [--kept FOLDER] [--seeds N] [--latency SOURCE]
        [--set NAME=VALUE ...]

Everything is kept in `build/benchmarks/search_vs_random`, unless another folder is named: what is finished is not
repeated, and a search that was stopped goes on. `--latency sim:edgetpu` takes all latencies from there, for a machine
that is not quiet; otherwise this host is measured. `--quick` makes a search of a few steps with one seed, which does
all that the full form does and allows no verdict.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept_results import KeptResults, kept_folder
from nas_edge.config import RunConfig, load_config
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.graph import NetworkSpec
from nas_edge.runs.halving import HALVING, HalvingScore
from nas_edge.runs.run import SELECTION
from nas_edge.search.selection import required_ms
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.design import Design
from nas_edge.tasks.base import NetworkTask, TaskData, head_of

TARGET_POINTS, SEEDS, TIMED = 1.0, 3, 9
# The share of networks that meet the target; in the quick form all, so that there are several to choose from.
MEET, QUICK_MEET = 0.5, 1.0
WIDTHS = (0.05, 2.0)
SMALL_DATA = {"learning_rate": 0.4, "batch_size": 64, "warmup_fraction": 0.1}
FULL: dict[str, Any] = {
    "data": {"source": "procedural:size=32,classes=8", "augmentation": {"shift": 0, "rotation_degrees": 0, "zoom": 0}},
    "space": {"name": "mobilenet-v3-like", "input_size": 32, "width_multiplier": 0.35},
    "search": {
        "steps": 1800,
        "rematerialize": False,
        "delay_fraction": 0.9,
        "reward_delay_steps": 7,
        "validation_batch_size": 256,
        "random_baseline": False,
        "weights": SMALL_DATA,
    },
    "finalists": {"sampled": 256, "trained": 8, "front": 0},
    "training": {**SMALL_DATA, "epochs": 4},
    "export": {"compare": False},
}
QUICK: dict[str, Any] = {
    **FULL,
    "data": {**FULL["data"], "source": "procedural:size=32,classes=4,train=300,test=100"},
    "space": {"name": "proxylessnas", "input_size": 16, "width_multiplier": 0.25},
    "search": {
        "steps": 4,
        "rematerialize": False,
        "delay_fraction": 0.5,
        "op_warmup_fraction": 0.25,
        "reward_delay_steps": 1,
        "validation_batch_size": 64,
        "random_baseline": False,
        "weights": SMALL_DATA,
    },
    "finalists": {"sampled": 4, "measured": 2, "trained": 2, "front": 0},
    "training": {**SMALL_DATA, "epochs": 0.5},
    "latency": "sim:edgetpu",
}
# Where latencies are simulated, those of the delivered files on this host are not asked about.
HURRIED = {"measure": {"max_risk": 1.0, "patience_s": 0.0}, "final_measure": {"max_risk": 1.0, "patience_s": 0.0}}
COMPARED = ("random", "slowest", "scaled")


class Bench:
    """One seed: the search, and what it is compared with.

    Args:
        config: of the search, without a target.
        folder: of its run.
        results: what is known already.
        meet: share of random networks that meet the target.
    """

    def __init__(self, config: RunConfig, folder: Path, results: KeptResults, meet: float = MEET) -> None:
        from rich.console import Console

        from nas_edge.progress import Reporter
        from nas_edge.stages.context import load_data, make_space, open_task

        self.folder, self._results, self._meet = folder, results, meet
        self.task = open_task(config)
        data = load_data(config, self.task, Reporter(Console(quiet=True)))
        assert isinstance(data, TaskData)
        assert isinstance(self.task, NetworkTask)
        self.data = data
        self.space: SearchSpace = make_space(config, self.task, data)
        self.config = config

    def once(self, what: str, find_out: Any) -> Any:
        """A result of this seed."""
        return self._results.once(f"{what}, seed {self.config.seed}", find_out)

    def run(self) -> dict[str, Any]:
        """All of it: accuracies, 0 to 1, and what they cost."""
        from nas_edge.quiet import start_tensorflow
        from nas_edge.stages.context import open_bench

        start_tensorflow(self.config.runs.deterministic)
        with open_bench(self.config, self.task, self.data, self.space) as bench:
            source = bench.latency_source
            target_ms = float(self.once("target", lambda: self._target_ms(source)))
            cost = self.once("search", lambda: self._searched(target_ms))
            tell(f"search: {cost['accuracy']:.4f}, {cost['measured']} measured, {cost['images']:,} images")
            random = self.once("measured", lambda: self._measured(source, cost["measured"], target_ms))
            width = float(self.once("width", lambda: self._width(source, target_ms)))
        count = min(len(random), max(1, round(cost["images"] / self._images_of_training)))
        found: dict[str, Any] = {"target_ms": target_ms, **cost, "trained_at_random": count}
        if not random:
            return found
        qualities = self.once(f"trained {count}", lambda: self._trained([one for one, _ in random[:count]]))
        best = random[int(np.argmax(qualities))][0]
        slowest = max(random, key=lambda pair: pair[1])[0]
        # One network may be both.
        found["random"] = self.once(f"delivered {best}", lambda: self._delivered(best, "random"))
        found["slowest"] = self.once(f"delivered {slowest}", lambda: self._delivered(slowest, "slowest"))
        found["scaled"] = self.once("scaled", lambda: self._scaled(width))
        tell(", ".join(f"{name}: {found[name]:.4f}" for name in COMPARED))
        return found

    @property
    def _images_of_training(self) -> float:
        return float(self.config.training.epochs * len(self.data.split.train))

    def _searched(self, target_ms: float) -> dict[str, Any]:
        """The run's accuracy, and its cost."""
        from nas_edge import api
        from nas_edge.runs.journal import read_journal
        from nas_edge.runs.result import read_result
        from nas_edge.runs.run import Run

        config = load_config(flags={"target.latency_ms": target_ms}, base=self.config)
        finished = read_result(Run.open(self.folder)) if self.folder.exists() else None
        if finished is None:
            going_on = self.folder.exists()
            finished = api.resume(self.folder) if going_on else api.search(self.folder, config=config)
        run = Run.open(self.folder)
        trials = [Trial.from_json(record) for record in run.journal()]
        selected = [Trial.from_json(record) for record in read_journal(run.path(SELECTION)).records]
        halving = [HalvingScore.from_json(record) for record in read_journal(run.path(HALVING["winner"])).records]
        timed = {trial.architecture for trial in trials if trial.latency is not None}
        search: Any = config.search
        return {
            "accuracy": finished.winner.accuracy[config.export.precision],
            "architecture": finished.winner.architecture,
            "measured": len(timed) + len(selected),
            "images": search.steps * search.samples_per_step * search.weights.batch_size
            + round(sum(score.epochs for score in halving) * len(self.data.split.train)),
        }

    def _target_ms(self, source: LatencySource) -> float:
        """A quantile of the latencies of some random networks, the median unless told otherwise."""
        from nas_edge.seeds import generator

        rng = generator(self.config.seed, "target of search against random")
        drawn = [self.space.canonical(self.space.sample(rng)) for _ in range(TIMED)]
        asked = [source.submit(Candidate(self.space.build(one), one)) for one in drawn]
        return float(np.quantile([future.result().best_ms or math.inf for future in asked], self._meet))

    def _measured(self, source: LatencySource, count: int, target_ms: float) -> list[tuple[str, float]]:
        """Of so many random architectures those that meet the target, with their latencies, as drawn."""
        from nas_edge.seeds import generator

        rng = generator(self.config.seed, "search against random")
        drawn = [self.space.canonical(self.space.sample(rng)) for _ in range(count)]
        asked = [source.submit(Candidate(self.space.build(one), one)) for one in drawn]
        trials = [Trial(0, 0, one, None, future.result(), None, None) for one, future in zip(drawn, asked, strict=True)]
        needed = [(trial, required_ms(trial, self.config.target.margin)) for trial in trials]
        return [
            (str(trial.architecture), trial.latency_ms or 0.0)
            for trial, at_least in needed
            if at_least is not None and at_least <= target_ms
        ]

    def _trained(self, architectures: Sequence[str]) -> list[float]:
        """Validation accuracies after trainings that are as long as those of what is delivered."""
        from nas_edge.quality.short_training import ShortTraining, ShortTrainingSettings
        from nas_edge.quality.source import QualityContext

        epochs = self.config.training.epochs
        settings = ShortTrainingSettings.model_validate({"weights": {**SMALL_DATA, "epochs": epochs}})
        source = ShortTraining(settings, QualityContext(self.space, self.task, self.data, self.config.seed))

        def quality(text: str) -> float:
            architecture = Architecture.parse(text)
            candidate = Candidate(self.space.build(architecture), architecture)
            return float(self.once(f"{epochs:g} epochs of {text}", lambda: source.evaluate(candidate).value or 0.0))

        return [quality(text) for text in architectures]

    def _delivered(self, architecture: str, name: str) -> float:
        """Accuracy of an architecture, delivered as the search's own."""
        from nas_edge import api

        _, result = api.deliver(self.folder, architecture, self.folder.with_name(f"{self.folder.name}-{name}"))
        return float(result.winner.accuracy[self.config.export.precision])

    def _reference(self, width: float) -> NetworkSpec:
        from nas_edge.spaces.reference import reference_network

        settings = self.config.reference
        assert settings is not None
        shape = settings.input_size, settings.input_size, self.data.preprocessing.shape[-1]
        outputs, head = self.task.outputs(self.data), head_of(self.task, shape)
        return reference_network(settings.reference_name, shape[0], width, outputs, shape[2], head)

    def _reference_ms(self, source: LatencySource, share_of_width: float) -> float:
        settings = self.config.reference
        assert settings is not None
        network = self._reference(settings.width_multiplier * share_of_width)
        return float(source.submit(Candidate(Design(network))).result().best_ms or math.inf)

    def _width(self, source: LatencySource, target_ms: float) -> float:
        """The largest width at which the reference network meets the target, by bisection."""
        low, high = WIDTHS
        for _ in range(8):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self._reference_ms(source, middle) <= target_ms else (low, middle)
        return low

    def _scaled(self, width: float) -> float:
        """Accuracy of the reference network, trained, quantised and tested as the search's own."""
        from nas_edge.stages.contender import Contender
        from nas_edge.stages.delivering import convert
        from nas_edge.training.context import training_data
        from nas_edge.training.methods import TrainingContext, train_network

        settings = self.config.reference
        assert settings is not None
        network = self._reference(settings.width_multiplier * width)
        task = self.task
        assert isinstance(task, NetworkTask)
        data = training_data(self.config.training, self.data)
        weights = train_network(
            self.config.training, TrainingContext(network, None, task, data, self.config.seed), lambda step: None
        )
        contender = Contender("scaled", settings.reference_name, None, network)
        model = convert(self.config, task, self.data, contender, weights)
        return float(model.quality[self.config.export.precision])


BEGAN_S = time.monotonic()


def tell(line: str) -> None:
    """Prints at once, with the time since the start."""
    print(f"[{(time.monotonic() - BEGAN_S) / 60:.1f} min] {line}", flush=True)


def difference(points: Sequence[float]) -> dict[str, Any]:
    """Mean of the differences and its 95% interval, which one seed does not have."""
    from scipy.stats import t

    mean = float(np.mean(points))
    if len(points) < 2:
        return {"points": mean, "interval": None}
    half = float(t.ppf(0.975, len(points) - 1) * np.std(points, ddof=1) / len(points) ** 0.5)
    return {"points": mean, "interval": [mean - half, mean + half]}


def search_parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """What a benchmark of whole searches may be told.

    Args:
        description: of the benchmark.
        quick: what its quick form is.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--kept", type=Path, help="folder that keeps everything")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--latency", help="where all latencies come from, for example sim:edgetpu; default: this host")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="a setting of the search")
    return parser


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """The settings of the searches, of what `search_parser` has read."""
    settings = {**(QUICK if given.quick else FULL), **({"latency": given.latency} if given.latency else {})}
    return {**settings, **HURRIED} if "latency" in settings else settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what every seed came to, and the figures."""
    parser = search_parser(__doc__, "a search of a few steps, one seed: no verdict")
    given = parser.parse_args(arguments)
    settings = settings_of(given)
    rows = []
    with kept_folder("search_vs_random", given.kept, given.quick) as folder:
        results = KeptResults(folder / "results.jsonl")
        if results.once("settings", lambda: [settings, given.assignments]) != [settings, given.assignments]:
            parser.error(f"{folder} keeps results of other settings; name another with --kept, or delete it")
        for seed in range(1 if given.quick else given.seeds):
            # A placeholder, until networks have been timed.
            flags = {**settings, "seed": seed, "target.latency_ms": 1.0}
            config = load_config(flags=flags, settings=given.assignments)
            rows.append(Bench(config, folder / f"seed-{seed}", results, QUICK_MEET if given.quick else MEET).run())
            tell(f"seed {seed} done")
    figures: dict[str, Any] = {"benchmark": "search_vs_random", "seeds": rows, "target_points": TARGET_POINTS}
    complete = [row for row in rows if all(name in row for name in COMPARED)]
    better = {
        name: difference([100 * (row["accuracy"] - row[name]) for row in complete]) for name in COMPARED if complete
    }
    for name, by in better.items():
        interval = "" if by["interval"] is None else " [{:+.1f}, {:+.1f}]".format(*by["interval"])
        tell(f"search against {name}: {by['points']:+.1f} points{interval}")
    figures["better"] = better
    if given.quick or len(complete) < SEEDS:
        reason = "a search of a few steps" if given.quick else f"{len(complete)} of {SEEDS} seeds"
        print(json.dumps({**figures, "pass": None, "reason": reason}))
        return
    print(json.dumps({**figures, "pass": all(by["points"] >= TARGET_POINTS for by in better.values())}))


if __name__ == "__main__":
    main()
