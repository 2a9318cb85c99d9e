"""Claim: on the built-in `procedural` data, networks of a search space differ, and by more than how much they compute.

What a search is compared on has to tell networks apart. Trains networks of `mobilenet-v3-like` on the data's defaults,
each on its own, all alike, and tests them:

    range         the largest network of the space is at least 15 points more accurate than the smallest
    architecture  among unlike architectures of about the same size (multiply-accumulates within 5% of the median, in
                  place of a latency, which would need a quiet machine), accuracies differ at least twice as much as
                  among trainings of one architecture with different seeds

The second compares standard deviations, that between architectures without what the seeds add to it (one-way analysis
of variance); its 90% interval is that of the F distribution. Processor time is told, since other programs hardly change
it.

    python -m benchmarks.procedural_data [--quick] [--trainings FILE]

A training takes one to two minutes of a processor, the largest network's seven. With `--trainings` each is written
to a file when it ends, and those that the file has are not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas_edge.networks.graph import NetworkSpec
from nas_edge.spaces.decisions import Architecture, NetworkSpace

TARGET_POINTS, TARGET_RATIO = 15.0, 2.0
WIDTH, WINDOW, DRAWN, LEANING = 0.35, 0.05, 200, 2.0
TRAINING = {"learning_rate": 0.4, "batch_size": 64, "warmup_fraction": 0.1}


@dataclass(frozen=True)
class Extent:
    """How much is trained."""

    source: str
    size: int
    epochs: float
    architectures: int
    seeds: int


FULL = Extent("procedural", 48, 4, architectures=4, seeds=2)
QUICK = Extent("procedural:size=32,classes=4,train=1500,test=1000", 32, 1, architectures=1, seeds=1)


@dataclass(frozen=True)
class Training:
    """What came of one.

    Attributes:
        network: `smallest`, `largest` or the number of an architecture.
        seed: of the training.
        source: of the data.
        epochs: of the training.
        macs: multiply-accumulates of the network.
        accuracy: on the test images, 0 to 1.
        cpu_s: processor time.
    """

    network: str
    seed: int
    source: str
    epochs: float
    macs: int
    accuracy: float
    cpu_s: float


# ---------------------------------------------------------------- what is trained


def extreme(space: NetworkSpace, largest: bool) -> Architecture:
    """The architecture with the most, or the fewest, of everything: layers, filters, kernels, gates."""
    choices = []
    for decision in space.decisions:
        if decision.kind == "filters":
            numbers = [float(choice) for choice in decision.choices]
            choices.append(numbers.index(max(numbers) if largest else min(numbers)))
        elif "skip" in decision.choices:
            choices.append([str(choice) for choice in decision.choices].index("keep" if largest else "skip"))
        else:  # kernels ascend, and the gate comes last
            choices.append(len(decision.choices) - 1 if largest else 0)
    return Architecture(tuple(choices))


def network_of(space: NetworkSpace, architecture: Architecture) -> NetworkSpec:
    network = space.build(architecture).network
    assert network is not None
    return network


def macs(space: NetworkSpace, architecture: Architecture) -> int:
    from nas_edge.networks.analysis import analyze

    return analyze(network_of(space, architecture)).macs


def alike(space: NetworkSpace, count: int) -> list[Architecture]:
    """Architectures of many kinds with about as many multiply-accumulates as the median of evenly drawn ones.

    Drawn evenly in 86 decisions, all of them would be average in every respect. So each leans, by a random amount, to
    more or fewer layers, to larger or smaller kernels, ratios and widths, and to gates or none.
    """
    rng = np.random.default_rng(0)
    middle = np.median([macs(space, space.sample(rng)) for _ in range(DRAWN)])
    found: list[Architecture] = []
    while len(found) < count:
        architecture = leaning(space, rng)
        if abs(macs(space, architecture) / middle - 1) <= WINDOW:
            found.append(architecture)
    return found


def leaning(space: NetworkSpace, rng: np.random.Generator) -> Architecture:
    """A random architecture; decisions of a name, such as `kernel`, have the same tendency."""
    tendencies: dict[str, float] = {}
    choices = []
    for decision in space.decisions:
        name = decision.path.rpartition(".")[2]
        if name not in tendencies:
            tendencies[name] = rng.normal(0, LEANING)
        likely = np.exp(tendencies[name] * np.linspace(0, 1, len(decision.choices)))
        choices.append(int(rng.choice(len(likely), p=likely / likely.sum())))
    return Architecture(tuple(choices))


def networks(space: NetworkSpace, extent: Extent) -> Iterator[tuple[str, Architecture, int]]:
    """What is trained, with which seed."""
    yield "smallest", extreme(space, largest=False), 0
    if extent is FULL:
        yield "largest", extreme(space, largest=True), 0
    unlike = alike(space, extent.architectures)
    for seed in range(extent.seeds):
        for number, architecture in enumerate(unlike):
            yield str(number), architecture, seed


def train(space: NetworkSpace, architecture: Architecture, seed: int, extent: Extent, data: Any, task: Any) -> float:
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
    train_model(model, network, data, data.training_indices, generator(seed, "order"), task, settings)
    return evaluate(model, data.in_order(data.split.test, 250), task)


def trained(extent: Extent, file: Path | None) -> list[Training]:
    """All trainings, those of the file and those made now."""
    from nas_edge.data.settings import AugmentationSettings, DataSettings
    from nas_edge.quiet import held_stderr
    from nas_edge.spaces.mobilenet_v3_like import mobilenet_v3_like

    with held_stderr():
        from nas_edge.tasks.classification import Classification, ClassificationSettings

        task = Classification(ClassificationSettings())
        began_s = cpu_s()
        # New images teach more than changed ones, and the trainings are too short to learn the images by heart.
        unchanged = AugmentationSettings(shift=0, rotation_degrees=0, zoom=0)
        data = task.load(DataSettings(source=extent.source, augmentation=unchanged), extent.size, 0)
        print(f"{len(data.dataset):,} images, drawn or opened in {cpu_s() - began_s:.0f} s of a processor", flush=True)
        space = mobilenet_v3_like(extent.size, WIDTH, len(data.dataset.class_names), data.dataset.channels)
        kept = (
            [Training(**json.loads(line)) for line in file.read_text().splitlines()] if file and file.exists() else []
        )
        done = []
        for name, architecture, seed in networks(space, extent):
            what = (name, seed, extent.source, extent.epochs, macs(space, architecture))
            same = [one for one in kept if (one.network, one.seed, one.source, one.epochs, one.macs) == what]
            if not same:
                began_s = cpu_s()
                accuracy = train(space, architecture, seed, extent, data, task)
                same = [Training(*what, accuracy, cpu_s() - began_s)]
                if file:
                    with file.open("a") as lines:
                        lines.write(json.dumps(asdict(same[0])) + "\n")
            done.append(same[0])
            print(
                f"{name:9} seed {seed}  {done[-1].macs / 1e6:6.2f} M MACs  accuracy {done[-1].accuracy:.4f}  "
                f"{done[-1].cpu_s:.0f} s of a processor",
                flush=True,
            )
    return done


def cpu_s() -> float:
    """Processor time of this process and those it started, seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


# ---------------------------------------------------------------- what is found


def variation(accuracies: Any) -> dict[str, Any]:
    """Standard deviations between architectures and between seeds, in points, and their ratio with its 90% interval.

    Args:
        accuracies: `[architectures, seeds]`, 0 to 1.

    Source: one-way analysis of variance with random effects; Searle, Casella, McCulloch, Variance Components, 1992.
    """
    from scipy.stats import f

    points = 100 * np.asarray(accuracies)
    groups, each = points.shape
    within = points.var(axis=1, ddof=1).mean()
    between = each * points.mean(axis=1).var(ddof=1)
    freedom = groups - 1, groups * (each - 1)

    def ratio(quotient: float) -> float:
        return float(np.sqrt(max(0.0, quotient - 1) / each))

    quotient = between / within
    return {
        "between_architectures": float(np.sqrt(max(0.0, between - within) / each)),
        "between_seeds": float(np.sqrt(within)),
        "ratio": ratio(quotient),
        "ratio_interval": [ratio(quotient / f.ppf(0.95, *freedom)), ratio(quotient / f.ppf(0.05, *freedom))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short trainings, which allow no verdict")
    parser.add_argument("--trainings", type=Path, help="a file that keeps the trainings")
    arguments = parser.parse_args()
    extent = QUICK if arguments.quick else FULL
    done = trained(extent, arguments.trainings)
    figures: dict[str, Any] = {
        "benchmark": "procedural_data",
        "source": extent.source,
        "epochs": extent.epochs,
        "trainings": [asdict(one) for one in done],
        "target_points": TARGET_POINTS,
        "target_ratio": TARGET_RATIO,
    }
    if arguments.quick:
        print(json.dumps({**figures, "pass": None, "reason": "two trainings of a minute's data tell no variance"}))
        return
    by_name = {one.network: one for one in done}
    accuracies = [
        [one.accuracy for one in done if one.network == str(number)] for number in range(extent.architectures)
    ]
    points = 100 * (by_name["largest"].accuracy - by_name["smallest"].accuracy)
    found = variation(accuracies)
    low, high = found["ratio_interval"]
    print(f"largest over smallest network: {points:.1f} points (target {TARGET_POINTS:g})")
    print(
        f"standard deviation between architectures {found['between_architectures']:.2f} points, between seeds "
        f"{found['between_seeds']:.2f}: {found['ratio']:.1f} times [{low:.1f}, {high:.1f}] (target {TARGET_RATIO:g})"
    )
    passed = points >= TARGET_POINTS and found["ratio"] >= TARGET_RATIO
    print(json.dumps({**figures, "points": points, **found, "pass": bool(passed)}))


if __name__ == "__main__":
    main()
