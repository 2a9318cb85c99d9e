"""Claim: the memory of a run grows with batch and network, not with the data: 16 times as many images, the same peaks.

Every stage that reads images is run as a run does it, on folders of 256 and of 4,096 images made for it: the first step
of the search, which runs all branches, its last step, the scoring of finalists, training, batch statistics, and
converting, calibrating and testing. Each folder and preset has a process of its own, in which the peak of the resident
memory is set back before each stage (Linux only). Latencies are made up, and training stops after two steps; sizes of
batches are those of the settings, but for those of evaluation, which the smaller folder has to fill, and for `full`,
whose batches are all small here.

    python -m benchmarks.memory_bound [--quick]

`--quick` takes smaller images, and networks of the tests' small space.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from device_agents.api import Measurement, Verdict
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import StoppedError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource
from tests.support.spaces import small_space

COUNTS = (256, 4096)
CLASSES = 2
# The larger folder's peak over the smaller one's; what is left are pages that an allocator keeps or gives back.
TARGET_RATIO = 1.1

_SMALL_BATCHES = ("search.samples_per_step=2", "search.weights.batch_size=4", "search.validation_batch_size=8",
                  "search.evaluation_batch_size=8", "training.batches_per_step=2", "training.batch_size=4",
                  "data.validation_images=null")  # fmt: skip
# Batches of both are no larger than what the smaller folder has to score and to test with, 38 images: what a larger one
# takes is the memory of the batch.
PRESETS: dict[str, tuple[str, ...]] = {"laptop": ("search.evaluation_batch_size=32",), "full": _SMALL_BATCHES}
_QUICK = ("space.input_size=64", "search.weights.batch_size=4",
          "search.validation_batch_size=16", "search.evaluation_batch_size=16", "training.batch_size=4",
          "search.rematerialize=false")  # fmt: skip


class MadeUpLatency(LatencySource):
    """Every candidate takes a millisecond."""

    @property
    def name(self) -> str:
        """For reports."""
        return "made up"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`."""
        future: Future[LatencyAnswer] = Future()
        future.set_result(LatencyAnswer.measured(Measurement(Verdict.OK, samples_ms=(1.0,))))
        return future


def make_images(folder: Path, count: int) -> None:
    """A folder of class folders of small JPEG files."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(count):
        label = number % CLASSES
        pixels = (rng.integers(128, size=(40, 40, 3)) + 127 * label).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.jpg")


def peak_bytes(work: Callable[[], object]) -> int:
    """The peak of the resident memory of this process while `work` runs."""
    Path("/proc/self/clear_refs").write_text("5")
    work()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


class _EnoughError(StoppedError):
    """Ends a training after two steps."""


def stages(config: RunConfig, quick: bool) -> dict[str, int]:
    """Peak memory of each stage, bytes; runs in a child."""
    from nas_edge.quiet import start_tensorflow

    start_tensorflow()
    from rich.console import Console

    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.progress import Reporter
    from nas_edge.rewards import Objective
    from nas_edge.search.methods import SearchContext, make_search
    from nas_edge.stages.contender import Contender
    from nas_edge.stages.context import load_data, make_space, open_task
    from nas_edge.stages.delivering import convert
    from nas_edge.stages.fitting import evaluation_batch_size
    from nas_edge.tasks.base import NetworkTask
    from nas_edge.training.context import training_data
    from nas_edge.training.methods import TrainingContext, TrainingStep, train_network
    from nas_edge.training.trainer import recalibrate

    task = open_task(config)
    assert isinstance(task, NetworkTask)
    data = load_data(config, task, Reporter(Console(quiet=True)))
    assert data is not None
    space = small_space(64, 3, CLASSES) if quick else make_space(config, task, data)
    context = SearchContext(
        space, task, data, MadeUpLatency(), [Objective("latency_ms", 1.0)], 0,
        evaluation_batch_size=evaluation_batch_size(space),
    )  # fmt: skip
    loop = make_search(config.search, context)
    rng = np.random.default_rng(0)
    finalists = [space.sample(rng) for _ in range(4)]

    def step(number: int) -> Callable[[], object]:
        loop.step = number
        return loop.take_step

    network = space.build(finalists[0]).needed_network()
    model, seen = keras_model(network), training_data(config.training, data)
    size = config.training.batch_size

    def training() -> None:
        def on_step(done: TrainingStep) -> None:
            if done.step == 2:
                raise _EnoughError("two steps are enough")

        with suppress(_EnoughError):
            train_network(config.training, TrainingContext(network, None, task, seen, 0), on_step)

    contender = Contender("winner", str(finalists[0]), None, network)
    work: dict[str, Callable[[], object]] = {
        "search, all branches": lambda: step(0)(),
        "search, last step": lambda: step(config.search.steps - 1)(),
        "selection, random baseline": lambda: loop.evaluate_all(finalists),
        "training": training,
        "batch statistics": lambda: recalibrate(model, seen, seen.training_indices, size),
        "converting, calibrating, testing": lambda: convert(config, task, data, contender, get_weights(model, network)),
    }
    return {name: peak_bytes(run) for name, run in work.items()}


def in_child(preset: str, count: int, quick: bool, folder: Path) -> dict[str, int]:
    """`stages` of a preset with so many images, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory_bound", "--child", json.dumps([preset, quick, str(folder)])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{preset} with {count} images failed:\n{done.stderr[-3000:]}")
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return result


def settings(preset: str, quick: bool, folder: Path) -> RunConfig:
    """Those of a preset, with smaller batches where a machine without GPU could not hold them."""
    shrunk = (*PRESETS[preset], *(_QUICK if quick else ()), f"data.source={folder}", "target.latency_ms=1")
    return load_config(preset, settings=_distinct(shrunk))


def _distinct(given: tuple[str, ...]) -> list[str]:
    """Of settings that are given twice the last."""
    return list({setting.partition("=")[0]: setting for setting in given}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller images and networks")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        preset, quick, folder = json.loads(arguments.child)
        print(json.dumps(stages(settings(preset, quick, Path(folder)), quick)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folders = {count: Path(temporary) / str(count) for count in COUNTS}
        for count, folder in folders.items():
            make_images(folder, count)
        runs = list(product(PRESETS, COUNTS))
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(lambda run: in_child(run[0], run[1], arguments.quick, folders[run[1]]), runs)
            peaks = dict(zip(runs, found, strict=True))
    few, many = COUNTS
    rows: list[dict[str, Any]] = []
    for preset in PRESETS:
        for stage, peak in peaks[preset, few].items():
            more = peaks[preset, many][stage]
            rows.append({"preset": preset, "stage": stage, "peak_bytes": [peak, more], "ratio": more / peak})
            print(f"{preset:7}  {stage:33}  {peak / 2**20:6.0f} MiB, {more / 2**20:6.0f} MiB: {more / peak:.3f}")
    worst = max(row["ratio"] for row in rows)
    figures = {
        "benchmark": "memory_bound",
        "quick": arguments.quick,
        "images": list(COUNTS),
        "stages": rows,
        "worst_ratio": worst,
        "target_ratio": TARGET_RATIO,
        "pass": worst <= TARGET_RATIO,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
