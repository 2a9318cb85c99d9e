"""Claim: a search whose networks train on several replicas is the search of one process that trains them one by one.

Takes three steps of a one-shot search with averaged updates, two proposals each, in float32: in one process; with
`MirroredStrategy` on two logical CPUs; and with `MultiWorkerMirroredStrategy` in two processes that talk over loopback,
of which the second follows the first. Then compares weights and policy, and prints images trained per second. On one
machine's cores replicas gain little; what is claimed is that nothing else changes.

    python -m benchmarks.distributed [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.supernet_step import stage
from device_agents.api import Measurement, Verdict
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.analysis import analyze
from tests.support.batches import SeededBatches

# Of the largest value of an array, or of a probability.
MAX_RELATIVE_DIFFERENCE = 1e-5
STEPS, SAMPLES, BATCH, SIZE, CLASSES = 3, 2, 16, 16, 3
LIMIT_S = 300


class MacsSource(LatencySource):
    """Multiply-accumulates in the place of latencies: the same for all."""

    @property
    def name(self) -> str:
        """See `LatencySource`."""
        return "multiply-accumulates"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`."""
        future: Future[LatencyAnswer] = Future()
        macs = analyze(candidate.design.needed_network()).macs
        future.set_result(LatencyAnswer.measured(Measurement(Verdict.OK, samples_ms=(macs / 1e6,))))
        return future


def search(distribution: str, steps: int, out: Path | None) -> None:
    """Makes the steps, or follows; the first process writes weights, policy and throughput; runs in a child."""
    import tensorflow as tf

    if distribution == "mirrored":
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    from nas_edge.supernet.distribution import make_strategy

    strategy = make_strategy(distribution)  # before all else TensorFlow does
    from nas_edge.controllers.categorical import CategoricalController
    from nas_edge.quality.source import FunctionQuality, Quality
    from nas_edge.quiet import start_tensorflow
    from nas_edge.rewards import REWARDS, Objective
    from nas_edge.search.evaluation import Evaluator
    from nas_edge.search.one_shot import OneShotSearch, OneShotSettings
    from nas_edge.supernet.shared_weights import SharedWeights
    from nas_edge.supernet.supernet import Supernet
    from nas_edge.tasks.classification import Classification, ClassificationSettings
    from nas_edge.training.rmsprop import RMSProp

    start_tensorflow()
    space = stage(SIZE, CLASSES, layers=2)
    settings = OneShotSettings(
        steps=steps + 1, samples_per_step=SAMPLES, weight_updates="averaged", delay_fraction=0.0,
        op_warmup_fraction=0.0, filter_warmup_fraction=0.0, distribution=distribution, rematerialize=False,
    )  # fmt: skip
    with strategy.scope():
        task = Classification(ClassificationSettings())
        shared = SharedWeights(Supernet(space, seed=1), RMSProp(0.05), task, settings.weights)
    quality = FunctionQuality("not asked", lambda _: Quality(None))
    evaluator = Evaluator(space, quality, MacsSource(), [Objective("latency_ms", 1.0)], REWARDS["absolute"], None)
    controller = CategoricalController(space, settings.steps, base_learning_rate=0.05, delay_steps=0)
    train, validation = [SeededBatches(seed, BATCH, (SIZE, SIZE, 3)) for seed in (1, 2)]
    loop = OneShotSearch(controller, evaluator, shared, train, validation, np.random.default_rng(0), settings)
    if out is None:
        loop.weight_steps.follow()
        return
    times_s = []
    for _ in range(steps):
        started_s = time.perf_counter()
        loop.take_step()
        times_s.append(time.perf_counter() - started_s)
    loop.weight_steps.end()
    policy = [p for choices in controller.probabilities().values() for p in choices]
    result = {"policy": policy, "images_per_s": SAMPLES * BATCH / min(times_s), **shared.arrays()}
    np.savez(out, **result)  # type: ignore[arg-type] # it takes names for its own options


def children(distribution: str, steps: int, folder: Path) -> dict[str, Any]:
    """What a search in processes of its own comes to."""
    out = folder / f"{distribution}.npz"
    environments: list[dict[str, str]] = [{}]
    if distribution == "multi-worker":
        cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        environments = [
            {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})}
            for index in range(2)
        ]
    processes = []
    for index, environment in enumerate(environments):
        arguments = json.dumps([distribution, steps, str(out) if index == 0 else None])
        command = [sys.executable, "-m", "benchmarks.distributed", "--child", arguments]
        with (folder / f"{distribution}-{index}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log))
    try:
        codes = [process.wait(LIMIT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(codes):
        logs = sorted(folder.glob(f"{distribution}-*.log"))
        sys.exit("\n".join(log.read_text(errors="replace")[-3000:] for log in logs))
    with np.load(out) as arrays:
        return dict(arrays)


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def difference(first: dict[str, Any], second: dict[str, Any], prefix: str) -> float:
    """The largest difference of an array's values, relative to its largest value."""
    names = [name for name in first if name.startswith(prefix)]
    return max(
        float(np.max(np.abs(first[name] - second[name])) / max(np.max(np.abs(first[name])), 1e-12)) for name in names
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no more steps than are compared")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        distribution, steps, out = json.loads(arguments.child)
        search(distribution, steps, None if out is None else Path(out))
        return
    figures: dict[str, Any] = {"benchmark": "distributed", "steps": STEPS}
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        results = {name: children(name, STEPS, Path(folder)) for name in ("none", "mirrored", "multi-worker")}
        quick = results if arguments.quick else {name: children(name, 30, Path(folder)) for name in results}
    for name, result in results.items():
        weights = difference(results["none"], result, "weights/")
        policy = difference(results["none"], result, "policy")
        worst = max(worst, weights, policy)
        speed = float(quick[name]["images_per_s"])
        print(f"{name:12} {speed:7.1f} images/s; differs by {weights:.1e} in weights, by {policy:.1e} in the policy")
        figures[name] = {"images_per_s": speed, "weights_difference": weights, "policy_difference": policy}
    figures |= {
        "relative_difference": worst,
        "target_relative_difference": MAX_RELATIVE_DIFFERENCE,
        "pass": worst <= MAX_RELATIVE_DIFFERENCE,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
