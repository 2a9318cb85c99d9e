"""Claim: running layers again in the backward pass makes warm-up on large images fit in half the memory or less.

Compares peak resident memory and time of training steps with every branch and the largest widths on, with and without
rematerialisation, each in a process of its own, in both executions: `mobilenet-v3-like`, batch 8, 160 (quick: 112)
pixels. The time is the shortest of a few steps, since other programs only ever add to it.

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

# With rematerialisation a step takes at most these shares of the memory and time that it takes without.
TARGET_MEMORY_SHARE, TARGET_TIME_SHARE = 0.5, 1.5
BATCH, CLASSES, STEPS = 8, 10, 4
EXECUTIONS = ("sliced", "masked")


def measure(execution: Any, rematerialize: bool, size: int) -> dict[str, float]:
    """Peak memory of steps beyond that of the process before them, and the shortest one's time; runs in a child."""
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
    supernet = Supernet(space, execution, rematerialize=rematerialize)
    weights = SharedWeights(supernet, keras.optimizers.SGD(0.01), task, settings)
    weights.train_step(images[:1], labels[:1], masks)  # traces and compiles
    before_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps_s = []
    for _ in range(STEPS):
        started_s = time.perf_counter()
        weights.train_step(images, labels, masks)
        steps_s.append(time.perf_counter() - started_s)
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"step_bytes": peak_bytes - before_bytes, "peak_bytes": peak_bytes, "step_s": min(steps_s)}


def in_child(execution: str, rematerialize: bool, size: int) -> dict[str, float]:
    arguments = json.dumps([execution, rematerialize, size])
    command = [sys.executable, "-m", "benchmarks.rematerialization", "--child", arguments]
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
    results: dict[str, Any] = {}
    for execution in EXECUTIONS:
        kept, again = in_child(execution, False, size), in_child(execution, True, size)
        results[execution] = {
            "kept": kept,
            "run_again": again,
            "memory_share": again["step_bytes"] / kept["step_bytes"],
            "time_share": again["step_s"] / kept["step_s"],
        }
        for name, result in (("kept", kept), ("run again", again)):
            print(
                f"{execution}, {name:9}  step {result['step_bytes'] / 2**30:5.2f} GiB, "
                f"process {result['peak_bytes'] / 2**30:5.2f} GiB, {result['step_s']:.2f} s"
            )
    memory_share = max(result["memory_share"] for result in results.values())
    time_share = max(result["time_share"] for result in results.values())
    figures = {
        "benchmark": "rematerialization",
        "image_size": size,
        "batch_size": BATCH,
        **results,
        "memory_share": memory_share,
        "time_share": time_share,
        "target_memory_share": TARGET_MEMORY_SHARE,
        "target_time_share": TARGET_TIME_SHARE,
        "pass": memory_share <= TARGET_MEMORY_SHARE and time_share <= TARGET_TIME_SHARE,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
