"""Claim: running layers again in the backward pass makes warm-up on large images fit in far less memory.

Compares peak resident memory and time of one training step with every branch and the largest widths on, with and
without rematerialisation, each in a process of its own: `mobilenet-v3-like`, batch 8, 160 (quick: 112) pixels.

    python -m benchmarks.rematerialization [--quick]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

# With rematerialisation a step takes at most this share of the memory it takes without.
TARGET_SHARE = 0.6
BATCH, CLASSES = 8, 10


def measure(rematerialize: bool, size: int) -> dict[str, float]:
    """Peak memory of a step beyond that of the process before it, and the second step's time; runs in a child."""
    from nas_edge.quiet import start_tensorflow

    start_tensorflow()
    import keras

    from nas_edge.spaces import find_space
    from nas_edge.supernet.shared_weights import SharedWeights
    from nas_edge.supernet.supernet import Supernet
    from nas_edge.tasks.classification import Classification, ClassificationSettings
    from nas_edge.training.settings import OptimizationSettings

    space = find_space("mobilenet-v3-like")(size, 1.0, CLASSES, 3)
    masks = np.zeros((len(space.decisions), max(len(d.choices) for d in space.decisions)), np.float32)
    for row, decision in zip(masks, space.decisions, strict=True):
        if decision.kind == "op":
            row[: len(decision.choices)] = 1 / len(decision.choices)
        else:
            row[decision.largest] = 1
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, size, size, 3)).astype(np.float32)
    labels = rng.integers(CLASSES, size=BATCH)
    task, settings = Classification(ClassificationSettings()), OptimizationSettings(weight_decay=1e-5)
    weights = SharedWeights(Supernet(space, rematerialize=rematerialize), keras.optimizers.SGD(0.01), task, settings)
    weights.train_step(images[:1], labels[:1], masks)  # traces and compiles
    before_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.perf_counter()
    weights.train_step(images, labels, masks)
    step_s = time.perf_counter() - started_s
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"step_bytes": peak_bytes - before_bytes, "peak_bytes": peak_bytes, "step_s": step_s}


def in_child(rematerialize: bool, size: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.rematerialization", "--child", json.dumps([rematerialize, size])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller images")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*json.loads(arguments.child))))
        return
    size = 112 if arguments.quick else 160
    results: dict[str, Any] = {"kept": in_child(False, size), "run_again": in_child(True, size)}
    for name, result in results.items():
        print(
            f"{name:9}  step {result['step_bytes'] / 2**30:5.2f} GiB, process {result['peak_bytes'] / 2**30:5.2f} GiB, "
            f"{result['step_s']:.2f} s"
        )
    share = results["run_again"]["step_bytes"] / results["kept"]["step_bytes"]
    figures = {
        "benchmark": "rematerialization",
        "image_size": size,
        "batch_size": BATCH,
        **results,
        "memory_share": share,
        "target_memory_share": TARGET_SHARE,
        "pass": share <= TARGET_SHARE,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
