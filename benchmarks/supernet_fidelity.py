"""Claim: shared weights order architectures as trainings of their own do.

Trains random architectures of `mobilenet-v3-like` on the built-in `procedural` data, each on its own and with two
seeds, and one supernet per variant: as it is by default, and with each option that changes the shared weights.
Kendall's tau between the accuracy with shared weights (validation images) and that of the trainings (test images; the
mean of its tau to either seed) is to be

    all     at least 0.6 over architectures of any size
    window  at least 0.7 of the ceiling over those whose multiply-adds are within 10% of the median

The ceiling is the tau between the two seeds of the trainings: no score can do much better. Multiply-adds stand in for
latencies, which would need a quiet machine. Architectures lean, by a random amount, to more or fewer layers, to larger
or smaller kernels, ratios and widths, and to gates or none: drawn evenly in 86 decisions, all of them would be average.

By chance alone, tau has a mean of 0 and the standard deviation that is printed. A supernet is trained for as many
epochs as `--supernet-epochs` says, and its controller rests all along, so what is seen is what a search begins with.

    python -m benchmarks.supernet_fidelity [--quick] [--results FILE] [--architectures N] [--source SOURCE]
        [--epochs E] [--supernet-epochs E] [--variants NAME...]

With `--results` each training is written to a file when it ends, and those that the file has are not repeated. The full
form takes about an hour on two free cores.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept_results import KeptResults
from benchmarks.procedural_data import DRAWN, TRAINING, WIDTH, cpu_s, leaning, macs, network_of
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.spaces.decisions import Architecture, NetworkSpace

TARGET_ALL, TARGET_OF_CEILING = 0.6, 0.7
WINDOW, FEWEST = 0.10, 24
# The options of one-shot search that change the shared weights, and the search without them.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "fair sampling": {"fair_sampling": True},
    "sandwich": {"sandwich": True},
}


@dataclass(frozen=True)
class Extent:
    """How much is trained.

    Attributes:
        source: of the data.
        size: of the images, pixels.
        epochs: of a training.
        supernet_epochs: of a supernet.
        architectures: over all, and as many in the window.
        seeds: of the trainings; with one there is no ceiling.
    """

    source: str
    size: int
    epochs: float
    supernet_epochs: float
    architectures: int
    seeds: int = 2

    @property
    def what(self) -> str:
        """What results depend on beside architecture and seed."""
        return f"{self.source} at {self.size}"


FULL = Extent("procedural:size=32,classes=8", 32, 4, 24, FEWEST)
QUICK = Extent("procedural:size=32,classes=4,train=600,test=400", 32, 1, 2, 2, seeds=1)


class NoLatency(LatencySource):
    """The same latency for all: nothing here goes by it."""

    @property
    def name(self) -> str:
        """See `LatencySource`."""
        return "none"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`."""
        future: Future[LatencyAnswer] = Future()
        future.set_result(LatencyAnswer.estimated(LatencyKind.SIMULATED, 1.0))
        return future


def drawn(space: NetworkSpace, count: int) -> tuple[list[Architecture], list[Architecture]]:
    """So many architectures of any size, and so many of about the same."""
    rng = np.random.default_rng(0)
    middle = np.median([macs(space, leaning(space, rng)) for _ in range(DRAWN)])
    everywhere = [space.canonical(leaning(space, rng)) for _ in range(count)]
    window: list[Architecture] = []
    while len(window) < count:
        architecture = space.canonical(leaning(space, rng))
        if abs(macs(space, architecture) / middle - 1) <= WINDOW:
            window.append(architecture)
    return everywhere, window


def stand_alone(
    space: NetworkSpace, architecture: Architecture, seed: int, extent: Extent, data: Any, task: Any
) -> float:
    """Test accuracy of an architecture after a training of its own."""
    import keras

    from nas_edge.networks.keras_model import keras_model
    from nas_edge.seeds import generator, integer
    from nas_edge.training.settings import OptimizationSettings
    from nas_edge.training.trainer import evaluate, train_model

    keras.backend.clear_session()
    network = network_of(space, architecture)
    model = keras_model(network, seed=integer(seed, "weights"))
    settings = OptimizationSettings(epochs=extent.epochs, **TRAINING)
    train_model(model, network, data, data.split.train, generator(seed, "order"), task, settings)
    return evaluate(model, data.in_order(data.split.test, 250), task)


def shared(
    space: NetworkSpace,
    architectures: Sequence[Architecture],
    options: Mapping[str, Any],
    extent: Extent,
    data: Any,
    task: Any,
) -> list[float]:
    """Validation accuracies of architectures with the weights of one supernet."""
    import keras

    from nas_edge.rewards import Objective
    from nas_edge.search.methods import SearchContext, make_search
    from nas_edge.search.one_shot import OneShotSettings

    keras.backend.clear_session()
    batch_size = int(TRAINING["batch_size"])
    steps = max(2, round(extent.supernet_epochs * len(data.split.train) / batch_size))
    settings = OneShotSettings.model_validate(
        {
            "steps": steps,
            "delay_fraction": (steps - 1) / steps,  # all but the last, which lets the controller learn from one network
            "rematerialize": False,
            "weights": TRAINING,
            "validation_batch_size": 64,
            **options,
        }
    )
    context = SearchContext(space, task, data, NoLatency(), (Objective("latency_ms", 1.0),), 0)
    loop = make_search(settings, context)
    loop.run()
    candidates = [loop.evaluator.candidate(architecture) for architecture in architectures]
    return [quality.value or 0.0 for quality in loop.evaluator.quality.evaluate_all(candidates)]


def opened(extent: Extent) -> tuple[NetworkSpace, Any, Any]:
    """Space, data and task."""
    from nas_edge.data.settings import AugmentationSettings, DataSettings
    from nas_edge.spaces.mobilenet_v3_like import mobilenet_v3_like
    from nas_edge.tasks.classification import Classification, ClassificationSettings

    task = Classification(ClassificationSettings())
    unchanged = AugmentationSettings(shift=0, rotation_degrees=0, zoom=0)  # see `procedural_data`
    data = task.load(DataSettings(source=extent.source, augmentation=unchanged), extent.size, 0)
    space = mobilenet_v3_like(extent.size, WIDTH, len(data.dataset.class_names), data.dataset.channels)
    return space, data, task


# ---------------------------------------------------------------- what is found


def tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b; 0 where one of them is all the same."""
    from scipy.stats import kendalltau

    found = float(kendalltau(first, second).statistic)
    return 0.0 if math.isnan(found) else found


def null_deviation(count: int) -> float:
    """Standard deviation of tau between unrelated orders of so many (Kendall, "Rank correlation methods")."""
    return math.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)))


def correlations(scores: Sequence[float], accuracies: Any) -> float:
    """Mean tau of scores to each seed's accuracies `[architectures, seeds]`."""
    return float(np.mean([tau(scores, of_seed) for of_seed in np.asarray(accuracies).T]))


def figures(accuracies: Any, macs_of: Sequence[int], scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Of one group of architectures."""
    accuracies = np.asarray(accuracies)
    taus = {name: correlations(of_variant, accuracies) for name, of_variant in scores.items()}
    return {
        "architectures": len(accuracies),
        "ceiling": tau(*accuracies.T) if accuracies.shape[1] == 2 else None,
        "null_deviation": null_deviation(len(accuracies)),
        "macs": correlations(macs_of, accuracies),
        "accuracy_range": [float(accuracies.min()), float(accuracies.max())],
        "tau": taus,
    }


def scored(
    space: NetworkSpace,
    every: Sequence[Architecture],
    variant: str,
    extent: Extent,
    data: Any,
    task: Any,
    results: KeptResults,
) -> dict[str, float]:
    """Validation accuracy with the shared weights of a variant, by architecture."""
    key = f"shared, {variant}, {extent.what}, {extent.supernet_epochs:g} epochs, {extent.architectures}"

    def find_out() -> dict[str, float]:
        began_s = cpu_s()
        found = shared(space, every, VARIANTS[variant], extent, data, task)
        print(f"supernet, {variant}: {cpu_s() - began_s:.0f} s of a processor", flush=True)
        return dict(zip(map(str, every), found, strict=True))

    known: dict[str, float] = results.once(key, find_out)
    return known


def trained(
    space: NetworkSpace,
    architecture: Architecture,
    seed: int,
    extent: Extent,
    data: Any,
    task: Any,
    results: KeptResults,
) -> float:
    """Test accuracy of a training of its own."""
    key = f"alone, {architecture}, seed {seed}, {extent.what}, {extent.epochs:g} epochs"

    def find_out() -> float:
        began_s = cpu_s()
        accuracy = stand_alone(space, architecture, seed, extent, data, task)
        size, took_s = macs(space, architecture) / 1e6, cpu_s() - began_s
        print(f"{size:6.2f} M MACs, seed {seed}: accuracy {accuracy:.4f}, {took_s:.0f} s of a processor", flush=True)
        return accuracy

    return float(results.once(key, find_out))


def found_out(extent: Extent, results: KeptResults, variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Everything, by group: what is known already and what is trained now."""
    from nas_edge.quiet import held_stderr

    with held_stderr():
        space, data, task = opened(extent)
        groups = dict(zip(("all", "window"), drawn(space, extent.architectures), strict=True))
        every = [one for group in groups.values() for one in group]
        scores = {"default": scored(space, every, "default", extent, data, task, results)}
        accuracies: dict[str, list[float]] = {}
        for seed in range(extent.seeds):
            for architecture in every:
                accuracy = trained(space, architecture, seed, extent, data, task, results)
                accuracies.setdefault(str(architecture), []).append(accuracy)
        for name in variants:
            scores[name] = scored(space, every, name, extent, data, task, results)
    return {
        group: figures(
            [accuracies[str(one)] for one in architectures],
            [macs(space, one) for one in architectures],
            {name: [scores[name][str(one)] for one in architectures] for name in variants},
        )
        for group, architectures in groups.items()
    }


def verdict(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the default is as claimed; null where the architectures are too few to say."""
    everywhere, window = found["all"], found["window"]
    if everywhere["architectures"] < FEWEST or window["ceiling"] is None:
        count, deviation = everywhere["architectures"], everywhere["null_deviation"]
        return {
            "pass": None,
            "reason": f"{count} architectures are too few: by chance tau has a standard deviation of {deviation:.2f}",
        }
    hit = everywhere["tau"]["default"] >= TARGET_ALL
    return {"pass": hit and window["tau"]["default"] >= TARGET_OF_CEILING * window["ceiling"]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each training, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four short trainings and little data: no verdict")
    parser.add_argument("--results", type=Path, help="a file that keeps what was trained")
    parser.add_argument("--architectures", type=int, help="over all, and as many in the window")
    parser.add_argument("--source", help="of the data, procedural:size=...")
    parser.add_argument("--epochs", type=float, help="of a training")
    parser.add_argument("--supernet-epochs", type=float, help="of a supernet")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), help="of the supernet; default: all")
    given = parser.parse_args(arguments)
    base = QUICK if given.quick else FULL
    extent = Extent(
        given.source or base.source,
        base.size,
        given.epochs or base.epochs,
        given.supernet_epochs or base.supernet_epochs,
        given.architectures or base.architectures,
        base.seeds,
    )
    variants = given.variants or (["default"] if given.quick else list(VARIANTS))
    found = found_out(extent, KeptResults(given.results), list(dict.fromkeys(["default", *variants])))
    for group, of_group in found.items():
        taus = ", ".join(f"{name} {value:.2f}" for name, value in of_group["tau"].items())
        ceiling = "not known" if of_group["ceiling"] is None else f"{of_group['ceiling']:.2f}"
        print(
            f"{group}: tau {taus}; multiply-adds {of_group['macs']:.2f}, ceiling {ceiling}, by chance "
            f"0 +- {of_group['null_deviation']:.2f}"
        )
    targets = {"all": TARGET_ALL, "window_of_ceiling": TARGET_OF_CEILING}
    settings = {
        "source": extent.source,
        "epochs": extent.epochs,
        "supernet_epochs": extent.supernet_epochs,
    }
    print(json.dumps({"benchmark": "supernet_fidelity", **settings, **found, "targets": targets, **verdict(found)}))


if __name__ == "__main__":
    main()
