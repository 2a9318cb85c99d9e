"""Claim: a training step of the shared weights takes hardly longer than one of the network alone, and half of all.

On the space, size, batch and optimiser of the preset `laptop`, of random architectures, takes a step of the shared
weights in both executions, `sliced` (only what is active) and `masked` (everything, zeroed), and one of the stand-alone
Keras model with the same optimiser. One compiled function serves every architecture. The three take turns, so that a
busy moment hits all of them; a step's time is the shortest of its rounds, since other programs only ever add to it.
Before that, and before TensorFlow is told to be deterministic (`runs.deterministic`), which cannot be taken back, the
same sliced steps are taken without: `determinism_cost` is how much more processor time they take with. In the end comes
the profile of one sliced step: the share of each kind of operation.

`--quick` compares on a smaller space, one stage of inverted bottlenecks of up to 64 channels: compiling the steps of
the preset takes minutes.

    python -m benchmarks.supernet_step [--quick]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nas_edge.config import load_config
from nas_edge.networks import layers as L
from nas_edge.quiet import start_tensorflow
from nas_edge.spaces import SPACES, blocks
from nas_edge.spaces.decisions import NetworkSpace

# A sliced step takes at most so many times as long as the network's own, and as a masked one.
TARGET_TO_PLAIN, TARGET_TO_MASKED = 1.25, 0.5
SIZE, CLASSES = 28, 10
# Operations that take less than this share of a step are left out of its profile.
LEAST_SHARE = 0.01


def stage(size: int = SIZE, classes: int = CLASSES, layers: int = 4) -> NetworkSpace:
    """Inverted bottlenecks of 16 to 64 channels: kernel, ratio, keep or skip, and width."""
    decisions = blocks.Decisions()
    width = blocks.number("filters", (16, 32, 48, 64))
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(width, "relu", 3, 2)}
    for layer in range(1, layers + 1):
        path = f"layer{layer}"
        kernel = decisions.layers(f"{path}.kernel", {f"k{k}": blocks.depthwise_norm(k, "relu", 1) for k in (3, 5, 7)})
        ratio = decisions.declare(blocks.number(f"{path}.ratio", (3, 6)))
        parts[path] = decisions.skippable(f"{path}.op", blocks.bottleneck(width, L.Scaled(ratio), kernel, "relu"))
    decisions.declare(width)
    parts["pool"] = L.GlobalAveragePool()
    parts |= blocks.classifier(classes, 0.0)
    return NetworkSpace("stage", L.Sequential(tuple(parts.items())), decisions.list, (size, size, 3), classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller space, fewer architectures and rounds")
    quick = parser.parse_args().quick
    count, rounds = (3, 8) if quick else (6, 12)
    start_tensorflow(deterministic=False)
    import tensorflow as tf

    from nas_edge.supernet.elastic import EXECUTIONS
    from nas_edge.supernet.shared_weights import SharedWeights
    from nas_edge.supernet.supernet import Supernet, one_hot_masks
    from nas_edge.tasks.classification import Classification, ClassificationSettings
    from nas_edge.training.optimizers import make_optimizer

    config = load_config("laptop")
    settings: Any = config.search.weights  # type: ignore[attr-defined]
    space: Any = stage() if quick else SPACES.make(config.space, CLASSES, 3)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(settings.batch_size, *space.input_shape)).astype(np.float32)
    labels = rng.integers(CLASSES, size=settings.batch_size).astype(np.int32)
    task = Classification(ClassificationSettings())
    first, *architectures = (space.sample(rng) for _ in range(count + 1))

    def shared_step(execution: Any) -> Callable[[Any], object]:
        supernet = Supernet(space, execution, rematerialize=False)
        weights = SharedWeights(supernet, make_optimizer(settings, 0.01), task, settings)
        return partial(weights.train_step, images, labels)

    free = shared_step("sliced")
    free(one_hot_masks(space, first))
    free_s = [processor_s(free, one_hot_masks(space, one), rounds) for one in architectures]
    tf.config.experimental.enable_op_determinism()

    steps: dict[str, Callable[[Any], object]] = {}
    first_s: dict[str, float] = {}
    for execution in EXECUTIONS:
        steps[execution] = shared_step(execution)
        first_s[execution] = timed_s(steps[execution], one_hot_masks(space, first))

    bound_s = [processor_s(steps["sliced"], one_hot_masks(space, one), rounds) for one in architectures]
    determinism_cost = float(np.sum(bound_s) / np.sum(free_s)) - 1
    print(f"deterministic steps take {determinism_cost:+.1%} processor time", flush=True)

    times_s: dict[str, list[float]] = {name: [] for name in ("plain", *EXECUTIONS)}
    for architecture in architectures:
        masks = one_hot_masks(space, architecture)
        steps["plain"] = plain_step(
            space.decode(architecture), task, settings, tf.constant(images), tf.constant(labels)
        )
        steps["plain"](masks)  # compiles
        taken_s: dict[str, list[float]] = {name: [] for name in times_s}
        for _ in range(rounds):
            for name in times_s:
                taken_s[name].append(timed_s(steps[name], masks))
        for name, taken in taken_s.items():
            times_s[name].append(min(taken))
        print(", ".join(f"{name} {1000 * times[-1]:.0f} ms" for name, times in times_s.items()), flush=True)

    mean_ms = {name: 1000 * float(np.mean(times)) for name, times in times_s.items()}
    to_plain, to_masked = mean_ms["sliced"] / mean_ms["plain"], mean_ms["sliced"] / mean_ms["masked"]
    profile = profile_of(lambda: steps["sliced"](masks))
    print("one sliced step, share of operations' time by kind:")
    for kind, share in profile.items():
        print(f"  {share:6.1%}  {kind}")
    figures = {
        "benchmark": "supernet_step",
        "space": space.name,
        "architectures": count,
        "mean_ms": mean_ms,
        "first_step_s": first_s,
        "to_plain": to_plain,
        "target_to_plain": TARGET_TO_PLAIN,
        "to_masked": to_masked,
        "target_to_masked": TARGET_TO_MASKED,
        "determinism_cost": determinism_cost,
        "profile": profile,
        "pass": to_plain <= TARGET_TO_PLAIN and to_masked <= TARGET_TO_MASKED,
    }
    print(json.dumps(figures))


def timed_s(step: Callable[[Any], object], masks: Any) -> float:
    """How long one step takes."""
    started_s = time.perf_counter()
    step(masks)
    return time.perf_counter() - started_s


def processor_s(step: Callable[[Any], object], masks: Any, rounds: int) -> float:
    """Processor time of the cheapest of several steps, which other programs hardly change."""
    taken_s = []
    for _ in range(rounds):
        started_s = time.process_time()
        step(masks)
        taken_s.append(time.process_time() - started_s)
    return min(taken_s)


def plain_step(network: Any, task: Any, settings: Any, images: Any, labels: Any) -> Callable[[Any], object]:
    """A step of the stand-alone Keras model, as `training/trainer.py` takes it."""
    from nas_edge.networks.keras_model import keras_model
    from nas_edge.training import trainer
    from nas_edge.training.optimizers import make_optimizer

    model = keras_model(network)
    penalized = trainer.kernels(model, trainer.regularized_layers(network))
    step = trainer._Update(model, make_optimizer(settings, 0.01), task, settings, penalized)
    return lambda _: float(step(images, labels)[0])


def profile_of(step: Callable[[], object]) -> dict[str, float]:
    """Share of each kind of TensorFlow operation in the time of all of them, the largest first."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    taken: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        for file in Path(folder).rglob("*.xplane.pb"):
            recorded = xplane_pb2.XSpace.FromString(file.read_bytes())
            for plane in recorded.planes:
                names = {number: metadata.name for number, metadata in plane.event_metadata.items()}
                for line in plane.lines:
                    for event in line.events:
                        # Operations are `name:Kind`; what calls others, and so holds their time, is not one.
                        name, colon, kind = names[event.metadata_id].rpartition(":")
                        if colon and not name.endswith(":") and "Call" not in kind and kind not in ("If", "While"):
                            taken[kind] += event.duration_ps
    total = sum(taken.values()) or 1
    return {kind: time / total for kind, time in taken.most_common() if time / total >= LEAST_SHARE}


if __name__ == "__main__":
    main()
