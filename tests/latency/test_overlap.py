"""A search that trains while devices measure finds the same as one that waits for every answer."""

from __future__ import annotations

import random
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from device_agents.api import BenchmarkSpec, Measurement
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.latency.cache import CachedSource, MeasuringKey
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import LatencySource
from nas_edge.rewards import Objective
from nas_edge.search.loop import StepReport
from nas_edge.search.one_shot import OneShotSettings
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import Supernet
from tests.support.agents import FunctionAgent, fake_info
from tests.support.batches import BrightnessBatches
from tests.support.searches import one_shot_search
from tests.support.sources import timed
from tests.support.spaces import tiny_space
from tests.support.tasks import CLASSIFICATION, OPTIMIZATION

SPACE = tiny_space()
CONFIG = OneShotSettings(steps=8, delay_fraction=0.25, samples_per_step=3)


@pytest.fixture(scope="module")
def shared() -> SharedWeights:
    """Compiled once; every search starts from the same numbers, see `run`."""
    return SharedWeights(Supernet(SPACE, seed=3), keras.optimizers.SGD(0.05), CLASSIFICATION, OPTIMIZATION)


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
    controller = CategoricalController(SPACE, CONFIG.steps, delay_steps=CONFIG.delay_steps)
    objectives = [Objective("latency_ms", 1.0)]
    rng = np.random.default_rng(5)
    search = one_shot_search(
        shared, controller, source, objectives, BrightnessBatches(1), BrightnessBatches(2), rng, CONFIG
    )
    reports: list[StepReport] = []
    with source:
        search.run(reports.append)
    return reports, controller.probabilities()


def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
    """A device whose latencies scatter, but are the same whenever it is asked."""
    return timed(0.5 + zlib.crc32(model) / 2**32)


def at_once() -> LatencySource:
    return DeviceSource([FunctionAgent(measure, recorded=True)], "int8", BenchmarkSpec())


def late_and_out_of_order() -> LatencySource:
    """Four devices, each answer after another time."""
    times = random.Random(11)
    lock = threading.Lock()

    def measure_late(model: bytes, spec: BenchmarkSpec) -> Measurement:
        with lock:
            seconds = times.uniform(0.0, 0.08)
        time.sleep(seconds)
        return measure(model, spec)

    return DeviceSource(
        [FunctionAgent(measure_late, fake_info(f"fake:{i}"), recorded=True) for i in range(4)], "int8", BenchmarkSpec()
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_search_finds_the_same_whenever_its_latencies_come(
    shared: SharedWeights, start: list[Any], tmp_path: Path, wrapped: bool
) -> None:
    expected = run(shared, start, at_once())
    assert sum(len(report.trials) for report in expected[0]) == 18
    assert all(trial.reward is not None for report in expected[0] for trial in report.trials)
    source = late_and_out_of_order()
    if wrapped:
        key = MeasuringKey("int8", "device", "litert", "settings")
        source = CachedSource(RetryingSource(source), tmp_path / "measurements.sqlite", key)
    assert run(shared, start, source) == expected
