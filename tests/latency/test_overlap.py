"""A search that trains while devices measure finds the same as one that waits for every answer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from nas_edge.config import SearchConfig
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.latency.cache import CachedSource, MeasuringKey
from nas_edge.latency.replay import DelayedSource, RecordingSource, ReplaySource
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.rewards import Objective
from nas_edge.search.one_shot import OneShotSearch, StepReport
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import Supernet
from tests.fakes import FunctionSource, timed
from tests.search.test_one_shot import SPACE, batches

CONFIG = SearchConfig(steps=8, delay_fraction=0.25, samples_per_step=3)


@pytest.fixture(scope="module")
def shared() -> SharedWeights:
    """Compiled once; every search starts from the same numbers, see `run`."""
    return SharedWeights(Supernet(SPACE, seed=3), keras.optimizers.SGD(0.05), 0.1, 1e-5)


@pytest.fixture(scope="module")
def start(shared: SharedWeights) -> list[Any]:
    return [variable.numpy().copy() for variable in shared.supernet.variables]


def run(
    shared: SharedWeights,
    start: list[Any],
    source: LatencySource,
) -> tuple[list[StepReport], dict[str, tuple[float, ...]]]:
    for variable, value in zip(shared.supernet.variables, start, strict=True):
        variable.assign(value)
    controller = CategoricalController(SPACE, CONFIG.steps, delay_fraction=CONFIG.delay_fraction)
    objectives = [Objective("latency_ms", 1.0)]
    rng = np.random.default_rng(5)
    search = OneShotSearch(SPACE, controller, shared, source, objectives, batches(1), batches(2), rng, CONFIG)
    reports: list[StepReport] = []
    with source:
        search.run(reports.append)
    return reports, controller.probabilities()


@pytest.fixture(scope="module")
def recording(shared: SharedWeights, start: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latencies of the search, recorded from a device that scatters."""
    path = tmp_path_factory.mktemp("recording") / "latencies.jsonl"
    noise = random.Random(7)
    device = FunctionSource(lambda c: timed(analyze(c.network).macs / 1e5 * noise.uniform(0.9, 1.1)))
    # The cache inside the recording: a network has one latency, whenever it is asked for.
    cached = CachedSource(device, path.with_suffix(".sqlite"), MeasuringKey("int8", "device", "litert", "settings"))
    run(shared, start, RecordingSource(cached, path, "int8"))
    return path


def late_and_out_of_order(path: Path) -> LatencySource:
    """Four devices, each answer after another time."""
    times = random.Random(11)
    lock = threading.Lock()

    def sleep(_: float) -> None:
        with lock:
            seconds = times.uniform(0.0, 0.08)
        time.sleep(seconds)

    return DelayedSource(ReplaySource(path, "int8"), devices=4, sleep=sleep)


def with_every_wrapper(path: Path) -> LatencySource:
    key = MeasuringKey("int8", "replayed", "litert", "settings")
    return CachedSource(RetryingSource(late_and_out_of_order(path)), path.with_suffix(".replayed.sqlite"), key)


@pytest.mark.parametrize("make", [late_and_out_of_order, with_every_wrapper])
def test_a_search_finds_the_same_whenever_its_latencies_come(
    shared: SharedWeights,
    start: list[Any],
    recording: Path,
    make: Callable[[Path], LatencySource],
) -> None:
    at_once = run(shared, start, ReplaySource(recording, "int8"))
    assert sum(len(report.trials) for report in at_once[0]) == 18
    assert all(trial.reward is not None for report in at_once[0] for trial in report.trials)
    assert run(shared, start, make(recording)) == at_once
