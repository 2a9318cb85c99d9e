"""Claim: computing only the active channels and branches makes a training step of the shared weights faster.

Compares the two executions of the supernet in one run, one after the other on the same architectures and batches:
`sliced` (only what is active) against `masked` (everything, zeroed), on one stage of inverted bottlenecks of up to 64
channels, forward and backward. One compiled function must serve every architecture.

    python -m benchmarks.supernet_step [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from nas_edge.networks import layers as L
from nas_edge.quiet import start_tensorflow
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import NetworkSpace

# A masked step takes at least this many times as long.
TARGET_SPEEDUP = 1.5
SIZE, BATCH, CLASSES = 28, 64, 10


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
    parser.add_argument("--quick", action="store_true", help="fewer architectures")
    count = 12 if parser.parse_args().quick else 60
    start_tensorflow()
    import keras

    from nas_edge.supernet.elastic import EXECUTIONS
    from nas_edge.supernet.shared_weights import SharedWeights
    from nas_edge.supernet.supernet import Supernet, one_hot_masks
    from nas_edge.tasks.classification import Classification, ClassificationSettings
    from nas_edge.training.settings import OptimizationSettings

    space = stage()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32)
    labels = rng.integers(CLASSES, size=BATCH)
    masks = [one_hot_masks(space, space.sample(rng)) for _ in range(count)]
    task, settings = Classification(ClassificationSettings()), OptimizationSettings(weight_decay=1e-5)
    shared: dict[str, Any] = {
        execution: SharedWeights(Supernet(space, execution), keras.optimizers.SGD(0.01), task, settings)
        for execution in EXECUTIONS
    }
    first_s = {}
    for execution, weights in shared.items():
        started_s = time.perf_counter()
        weights.train_step(images, labels, masks[0])
        first_s[execution] = time.perf_counter() - started_s

    times_ms: dict[str, list[float]] = {execution: [] for execution in EXECUTIONS}
    for mask in masks:
        for execution, weights in shared.items():  # side by side, so that a busy moment hits both
            started_s = time.perf_counter()
            weights.train_step(images, labels, mask)
            times_ms[execution].append(1000 * (time.perf_counter() - started_s))

    median_ms = {execution: float(np.median(times)) for execution, times in times_ms.items()}
    speedup = median_ms["masked"] / median_ms["sliced"]
    for execution in EXECUTIONS:
        times = times_ms[execution]
        print(
            f"{execution:7} median {median_ms[execution]:7.1f} ms, {min(times):.1f} to {max(times):.1f} ms per step; "
            f"first step, tracing included, {first_s[execution]:.1f} s"
        )
    figures = {
        "benchmark": "supernet_step",
        "architectures": count,
        "median_ms": median_ms,
        "first_step_s": first_s,
        "speedup": speedup,
        "target_speedup": TARGET_SPEEDUP,
        "pass": speedup >= TARGET_SPEEDUP,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
