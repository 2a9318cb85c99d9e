"""Claim: shared weights order architectures as trainings of their own do.

Trains random architectures of `mobilenet-v3-like` on the built-in `procedural` data, each on its own and with two
seeds, and one supernet per variant: as it is by default, and with each option that changes the shared weights.
Kendall's tau between the accuracy with shared weights (validation images) and that of the trainings (test images; the
mean of its tau to either seed) is to be

    all     at least 0.6 over architectures of any size
    window  at least 0.7 of the ceiling over those whose multiply-adds are within 10% of the median

The ceiling is the tau between the two seeds of the trainings: no score can do much better. Where it is itself within
two standard deviations of chance, nothing is concluded. Multiply-adds stand in for
latencies, which would need a quiet machine. Architectures lean, by a random amount, to more or fewer layers, to larger
or smaller kernels, ratios and widths, and to gates or none: drawn evenly in 86 decisions, all of them would be average.

By chance alone, tau has a mean of 0 and the standard deviation that is printed. A supernet is trained for as many
epochs as `--supernet-epochs` says, and its controller rests all along, so what is seen is what a search begins with.
An update of `sandwich` trains two networks, so it has half as many updates.

    python -m benchmarks.supernet_fidelity [--quick] [--kept FOLDER] [--architectures N] [--source SOURCE]
        [--epochs E] [--supernet-epochs E] [--variants NAME...]

Trainings run side by side, one core each. Each is kept when it ends, in `build/benchmarks/supernet_fidelity` unless
another folder is named, and not repeated. `--quick` takes the space without its blocks, few images and four
architectures: it does all that the full form does, and allows no verdict.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept_results import KeptResults, kept_folder
from benchmarks.procedural_data import DRAWN, TRAINING, WIDTH, leaning, macs, network_of
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.spaces.decisions import Architecture, NetworkSpace

TARGET_ALL, TARGET_OF_CEILING = 0.6, 0.7
WINDOW, FEWEST = 0.10, 24
# A ceiling below that is noise, and a share of it no claim.
CEILING_DEVIATIONS = 2.0
# The options of one-shot search that change the shared weights, and the search without them.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "fair sampling": {"fair_sampling": True},
    "sandwich": {"sandwich": True},
    "complexity-aware": {"complexity_aware": True},
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
        blocks: of the space, beside stem and head.
    """

    source: str
    size: int
    epochs: float
    supernet_epochs: float
    architectures: int
    blocks: int

    @property
    def what(self) -> str:
        """What results depend on beside architecture, seed and epochs."""
        return f"{self.source} at {self.size}, {self.blocks} blocks"


SEEDS = 2
FULL = Extent("procedural:size=32,classes=8", 32, 4, 24, FEWEST, 5)
QUICK = Extent("procedural:size=32,classes=4,train=400,test=200", 32, 1, 2, 2, 0)


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
    """So many architectures of any size, and so many of about the same, which those of the first may be among."""
    rng = np.random.default_rng(0)
    middle = np.median([macs(space, leaning(space, rng)) for _ in range(DRAWN)])
    everywhere = [space.canonical(leaning(space, rng)) for _ in range(count)]
    window: dict[Architecture, None] = {}
    remaining = iter(everywhere)
    while len(window) < count:
        architecture = next(remaining, None) or space.canonical(leaning(space, rng))
        if abs(macs(space, architecture) / middle - 1) <= WINDOW:
            window[architecture] = None
    return everywhere, list(window)


# ---------------------------------------------------------------- what is trained, each in a process of one core


def start() -> None:
    """Has TensorFlow use one core: small networks make little use of more."""
    from nas_edge.quiet import held_stderr, start_tensorflow

    with held_stderr():
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    start_tensorflow()


def stand_alone(architecture: Architecture, seed: int, extent: Extent) -> float:
    """Test accuracy of an architecture after a training of its own."""
    import keras

    from nas_edge.networks.keras_model import keras_model
    from nas_edge.seeds import generator, integer
    from nas_edge.training.settings import OptimizationSettings
    from nas_edge.training.trainer import evaluate, train_model

    keras.backend.clear_session()
    space, data, task = opened(extent)
    network = network_of(space, architecture)
    model = keras_model(network, seed=integer(seed, "weights"))
    settings = OptimizationSettings(epochs=extent.epochs, **TRAINING)
    train_model(model, network, data, data.split.train, generator(seed, "order"), task, settings)
    return evaluate(model, data.in_order(data.split.test, 250), task)


def shared(variant: str, architectures: Sequence[Architecture], extent: Extent) -> dict[str, float]:
    """Validation accuracies of architectures with the weights of one supernet."""
    import keras

    from nas_edge.rewards import Objective
    from nas_edge.search.methods import SearchContext, make_search
    from nas_edge.search.one_shot import OneShotSettings

    keras.backend.clear_session()
    space, data, task = opened(extent)
    options, batch_size = VARIANTS[variant], int(TRAINING["batch_size"])
    images = extent.supernet_epochs * len(data.split.train) / (2 if "sandwich" in options else 1)
    steps = max(2, round(images / batch_size))
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
    qualities = loop.evaluator.quality.evaluate_all(candidates)
    return {str(one): quality.value or 0.0 for one, quality in zip(architectures, qualities, strict=True)}


@cache
def opened(extent: Extent) -> tuple[NetworkSpace, Any, Any]:
    """Space, data and task."""
    from nas_edge.data.settings import AugmentationSettings, DataSettings
    from nas_edge.spaces.mobilenet_v3_like import BLOCKS, mobilenet_v3_like
    from nas_edge.tasks.classification import Classification, ClassificationSettings

    task = Classification(ClassificationSettings())
    unchanged = AugmentationSettings(shift=0, rotation_degrees=0, zoom=0)  # see `procedural_data`
    data = task.load(DataSettings(source=extent.source, augmentation=unchanged), extent.size, 0)
    classes, channels = len(data.dataset.class_names), data.dataset.channels
    return mobilenet_v3_like(extent.size, WIDTH, classes, channels, BLOCKS[: extent.blocks]), data, task


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
        "ceiling": tau(*accuracies.T),
        "null_deviation": null_deviation(len(accuracies)),
        "macs": correlations(macs_of, accuracies),
        "accuracy_range": [float(accuracies.min()), float(accuracies.max())],
        "tau": taus,
    }


def found_out(extent: Extent, results: KeptResults, variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Everything, by group: what is known already and what is trained now."""
    from nas_edge.quiet import held_stderr

    with held_stderr():
        space, _, _ = opened(extent)
    groups = dict(zip(("all", "window"), drawn(space, extent.architectures), strict=True))
    every = list(dict.fromkeys(one for group in groups.values() for one in group))
    supernets = {
        name: f"supernet, {name}, {extent.supernet_epochs:g} epochs, {extent.what}, {extent.architectures}"
        for name in variants
    }
    alone = {
        (one, seed): f"alone, seed {seed}, {extent.epochs:g} epochs, {extent.what}, {one}"
        for seed in range(SEEDS)
        for one in every
    }
    jobs = {supernets[name]: (shared, name, every, extent) for name in variants}
    results.all(jobs | {key: (stand_alone, one, seed, extent) for (one, seed), key in alone.items()}, start)
    return {
        group: figures(
            [[results[alone[one, seed]] for seed in range(SEEDS)] for one in architectures],
            [macs(space, one) for one in architectures],
            {name: [results[supernets[name]][str(one)] for one in architectures] for name in variants},
        )
        for group, architectures in groups.items()
    }


def verdict(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the default is as claimed; null where the architectures are too few or too alike to say."""
    everywhere, window = found["all"], found["window"]
    if everywhere["architectures"] < FEWEST:
        count, deviation = everywhere["architectures"], everywhere["null_deviation"]
        return {
            "pass": None,
            "reason": f"{count} architectures are too few: by chance tau has a standard deviation of {deviation:.2f}",
        }
    if everywhere["tau"]["default"] < TARGET_ALL:
        return {"pass": False}
    ceiling, deviation = window["ceiling"], window["null_deviation"]
    if not ceiling > CEILING_DEVIATIONS * deviation:
        return {
            "pass": None,
            "reason": f"in the window the ceiling, {ceiling:.2f}, is not above {CEILING_DEVIATIONS:g} standard "
            f"deviations of tau by chance ({deviation:.2f} each): no order of these architectures can be told",
        }
    return {"pass": window["tau"]["default"] >= TARGET_OF_CEILING * ceiling}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each training, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few short trainings of a small space: no verdict")
    parser.add_argument("--kept", type=Path, help="folder that keeps what was trained")
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
        base.blocks,
    )
    variants = list(dict.fromkeys(["default", *(given.variants or VARIANTS)]))
    with kept_folder("supernet_fidelity", given.kept, given.quick) as folder:
        found = found_out(extent, KeptResults(folder / "results.jsonl"), variants)
    for group, of_group in found.items():
        taus = ", ".join(f"{name} {value:.2f}" for name, value in of_group["tau"].items())
        print(
            f"{group}: tau {taus}; multiply-adds {of_group['macs']:.2f}, ceiling {of_group['ceiling']:.2f}, by chance "
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
