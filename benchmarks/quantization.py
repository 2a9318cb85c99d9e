"""Claim: int8 costs little accuracy: tuned with its roundings 0.5 points of float's at most, post-training 1.5.

Networks are trained on the built-in `procedural` data, each on its own, all alike: architectures drawn from
`mobilenet-v3-like` at the size of the references, and the references, MobileNetV2 and MobileNetV3. Each becomes three
files: float32, int8 after training, and int8 of weights tuned with its roundings for a fifth of the epochs. All are
tested on the same images, by the runtime, and timed side by side on this machine.

    points      the median over networks of what int8 loses, in percentage points; with 95% intervals of each accuracy
    operators   no operator of an int8 file is a float one
    size        an int8 file has at most 1.05 times 1 byte a weight, 16 bytes an output channel and the graph, which is
                what a float file has beside its numbers

    python -m benchmarks.quantization [--quick]

The speed-up is told and no part of the claim: it is the processor's. --quick trains one network for a moment, which
says nothing of points.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.procedural_data import TRAINING, WIDTH
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.tflite_model import operators, tflite_model

TARGET_AWARE, TARGET_POST, TARGET_SIZE = 0.5, 1.5, 1.05
SEED = 0


@dataclass(frozen=True)
class Extent:
    """How much is trained."""

    source: str
    size: int
    epochs: float
    drawn: int
    references: tuple[str, ...]


FULL = Extent("procedural", 48, 6, 5, ("mobilenet-v2", "mobilenet-v3-large"))
QUICK = Extent("procedural:size=16,classes=2,train=500,test=300", 16, 1, 0, ("mobilenet-v2",))


@dataclass(frozen=True)
class Outcome:
    """What came of a network.

    Attributes:
        network: its name.
        float32: test accuracy, 0 to 1; likewise the others.
        post_training: of the int8 file made after training.
        aware: of the int8 file of tuned weights.
        intervals: of these, 95%, by name.
        float_operators: of both int8 files.
        size_shares: of both int8 files, over what they may have without the margin.
        float_ms: quiet latency, measured; None where that failed.
        int8_ms: likewise.
    """

    network: str
    float32: float
    post_training: float
    aware: float
    intervals: dict[str, Any]
    float_operators: int
    size_shares: dict[str, float]
    float_ms: float | None
    int8_ms: float | None

    @property
    def largest(self) -> float:
        """Of the size shares."""
        return max(self.size_shares.values())

    def lost(self, how: str) -> float:
        """Percentage points."""
        return 100 * (self.float32 - float(getattr(self, how)))


def networks(extent: Extent, classes: int, channels: int) -> Iterator[tuple[str, NetworkSpec]]:
    from nas_edge.spaces.mobilenet_v3_like import mobilenet_v3_like
    from nas_edge.spaces.reference import reference_network

    for name in extent.references:
        yield name, reference_network(name, extent.size, WIDTH, classes, channels)
    space, rng = mobilenet_v3_like(extent.size, WIDTH, classes, channels), np.random.default_rng(SEED)
    for number in range(extent.drawn):
        yield f"drawn {number}", space.build(space.sample(rng)).needed_network()


def float_operators(file: bytes) -> int:
    return sum("FLOAT32" in (*one.input_dtypes, *one.output_dtypes) for one in operators(file))


def allowed_bytes(spec: NetworkSpec, real: bytes) -> int:
    """One byte a weight, 16 an output channel, and the graph; of a float file, whose numbers take four each."""
    convolutions = [one for one in operators(tflite_model(spec, "float32")) if "CONV" in one.name]
    weights = sum(int(np.prod(one.inputs[1].shape)) for one in convolutions)
    channels = sum(int(np.prod(one.inputs[2].shape)) for one in convolutions)
    graph = len(real) - 4 * (weights + channels)
    return weights + 16 * channels + graph


def examine(name: str, network: NetworkSpec, data: Any, task: Any, extent: Extent, quick: bool) -> Outcome:
    import keras

    from device_agents.api import PRESETS
    from device_agents.devices import open_device
    from nas_edge.config import load_config
    from nas_edge.export.convert import float32_tflite
    from nas_edge.export.verify import file_quality
    from nas_edge.networks.keras_model import keras_model
    from nas_edge.stages.quantizing import aware_settings, post_training
    from nas_edge.training.context import TrainingContext
    from nas_edge.training.methods import train_network

    keras.backend.clear_session()
    config = load_config(
        flags={f"training.{key}": value for key, value in {**TRAINING, "epochs": extent.epochs}.items()}
        | {"data.source": extent.source, "seed": SEED}
    )
    weights = train_network(config.training, TrainingContext(network, None, task, data, SEED), lambda step: None)
    context = TrainingContext(network, weights, task, data, SEED)
    tuned = train_network(aware_settings(config), context, lambda step: None)
    files = {
        "float32": float32_tflite(keras_model(network, weights)),
        "post_training": post_training(config, data, network, weights),
        "aware": tflite_model(network, "int8", tuned),
    }
    found = {how: file_quality(file, data.in_order(data.split.test, 64), task).value for how, file in files.items()}
    intervals = {how: task.metric.interval(value, len(data.split.test)) for how, value in found.items()}
    spec = PRESETS["search"].replace(patience_s=0.0, max_risk=1.0, max_duration_s=0.3 if quick else 2.0)
    with open_device("host:") as device:
        real, whole = device.measure_all([(files["float32"], spec), (files["aware"], spec)])
    allowed = allowed_bytes(network, files["float32"])
    shares = {how: len(files[how]) / allowed for how in ("post_training", "aware")}
    floats = float_operators(files["post_training"]) + float_operators(files["aware"])
    return Outcome(name, **found, intervals=intervals, float_operators=floats, size_shares=shares,
                   float_ms=real.best_ms, int8_ms=whole.best_ms)  # fmt: skip


def line(one: Outcome) -> str:
    accuracies = "  ".join(
        f"{how} {getattr(one, how):.2%} [{one.intervals[how][0]:.2%}, {one.intervals[how][1]:.2%}]"
        for how in ("float32", "post_training", "aware")
    )
    speed = "" if not one.float_ms or not one.int8_ms else f"  speed-up {one.float_ms / one.int8_ms:.2f}"
    return f"{one.network:18} {accuracies}  size {one.largest:.3f}{speed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one network for a moment, which says nothing of points")
    parser.add_argument("--data", default=None, help="another source than the extent's, for example procedural")
    arguments = parser.parse_args()
    extent = QUICK if arguments.quick else FULL
    from nas_edge.data.settings import AugmentationSettings, DataSettings
    from nas_edge.quiet import start_tensorflow
    from nas_edge.tasks.classification import Classification, ClassificationSettings

    start_tensorflow()
    task = Classification(ClassificationSettings())
    unchanged = AugmentationSettings(shift=0, rotation_degrees=0, zoom=0)
    source = arguments.data or extent.source
    data = task.load(DataSettings(source=source, augmentation=unchanged), extent.size, SEED)
    outcomes = []
    for name, network in networks(extent, task.outputs(data), data.preprocessing.shape[-1]):
        outcomes.append(examine(name, network, data, task, extent, arguments.quick))
        print(line(outcomes[-1]), flush=True)
    points = {how: median(one.lost(how) for one in outcomes) for how in ("aware", "post_training")}
    facts = all(one.float_operators == 0 and one.largest <= TARGET_SIZE for one in outcomes)
    print(
        f"int8 loses, median of {len(outcomes)} networks: aware {points['aware']:.2f} points (target "
        f"{TARGET_AWARE:g}), post-training {points['post_training']:.2f} (target {TARGET_POST:g})"
    )
    figures: dict[str, Any] = {
        "benchmark": "quantization",
        "source": source,
        "epochs": extent.epochs,
        "networks": [asdict(one) for one in outcomes],
        "points": points,
        "float_operators": sum(one.float_operators for one in outcomes),
        "size_share": max(one.largest for one in outcomes),
        "target": {"aware": TARGET_AWARE, "post_training": TARGET_POST, "size_share": TARGET_SIZE},
    }
    if arguments.quick and facts:
        figures |= {"pass": None, "reason": "one training of a moment says nothing of points; operators and sizes pass"}
    else:
        kept = points["aware"] <= TARGET_AWARE and points["post_training"] <= TARGET_POST
        figures["pass"] = bool(facts and kept)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
