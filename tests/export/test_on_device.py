"""What a device computes against what this machine computes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from device_agents.errors import ModelError
from device_agents.host import HostAgent
from nas_edge.export import verify
from nas_edge.export.convert import float32_tflite
from nas_edge.export.on_device import check_on_device, quality_on_device
from nas_edge.networks.keras_model import keras_model
from nas_edge.runs.result import OnDeviceQuality
from nas_edge.tasks.classification import Classification, ClassificationSettings
from nas_edge.testing.trainings import bright_or_dark, small_network
from tests.support.agents import fake_info
from tests.support.exported import Exported
from tests.support.tasks import CLASSIFICATION

Array = Any


@pytest.fixture
def images(exported: Exported) -> Array:
    return exported.images[:3]


@pytest.fixture(params=["float32", "int8"])
def model(exported: Exported, request: pytest.FixtureRequest) -> bytes:
    file: bytes = getattr(exported, request.param)
    return file


def test_this_machine_agrees_with_itself(model: bytes, images: Array) -> None:
    with HostAgent() as agent:
        check = check_on_device(model, images, agent.run, CLASSIFICATION.same_answer)
    assert (check.agrees, check.same_answer, check.images) == (True, 1.0, 3)
    assert check.max_difference == pytest.approx(0, abs=1e-5)
    assert "outputs match this machine's" in str(check)


@pytest.mark.parametrize("kernels", verify.KERNELS)
def test_either_family_of_kernels_is_right(model: bytes, images: Array, kernels: verify.Kernels) -> None:
    source, result = verify.input_output(model)

    def run(file: bytes, inputs: Sequence[Array]) -> list[Array]:
        return [result.quantize(verify.run_tflite(file, source.dequantize(inputs[0]), kernels=kernels))]

    check = check_on_device(model, images, run, CLASSIFICATION.same_answer)
    assert (check.agrees, check.max_difference) == (True, 0)


def test_a_device_that_computes_something_else_is_told(model: bytes, images: Array) -> None:
    _, result = verify.input_output(model)

    def run(file: bytes, inputs: Sequence[Array]) -> list[Array]:
        return [np.zeros(result.shape, result.dtype)]

    check = check_on_device(model, images, run, CLASSIFICATION.same_answer)
    assert check.agrees is False
    assert (check.max_steps is None) == (result.scale is None)
    assert "outputs differ from this machine's" in str(check)


def test_a_device_that_cannot_run_it_is_told_and_stops_nothing(model: bytes, images: Array) -> None:
    def run(file: bytes, inputs: Sequence[Array]) -> list[Array]:
        raise ModelError("this build cannot write outputs")

    check = check_on_device(model, images, run, CLASSIFICATION.same_answer)
    assert (check.agrees, check.problem) == (None, "this build cannot write outputs")
    assert str(check) == "outputs not checked: this build cannot write outputs"


TASK, DATA = bright_or_dark()
DEVICE = fake_info(model="board")


class Clock:
    """A second passes with each look at it."""

    def __init__(self) -> None:
        self.now_s = -1.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


@pytest.fixture(scope="module")
def file() -> bytes:
    return float32_tflite(keras_model(small_network(), seed=1))


def quality(file: bytes, run: Any, limit_s: float = 1e6) -> OnDeviceQuality:
    return quality_on_device(file, run, DEVICE, TASK, DATA, 3, limit_s, Clock())


def test_with_time_for_all_test_images_the_quality_there_is_the_one_here(file: bytes) -> None:
    with HostAgent() as agent:
        found = quality(file, agent.run)
    whole = verify.file_quality(file, DATA.in_order(DATA.split.test, 16), TASK).value
    assert found.value == found.here == whole
    assert found.images == found.test_images == len(DATA.split.test)
    assert found.interval == TASK.metric.interval(whole, len(DATA.split.test))
    assert (found.device, found.runtime.split()[0], found.problem) == ("board", DEVICE.runtime, "")
    assert f"accuracy on all {found.images} test examples" in str(found)
    assert OnDeviceQuality.from_json(json.loads(json.dumps(asdict(found)))) == found


def test_the_quality_there_has_the_interval_that_the_file_has_here(file: bytes) -> None:
    class Bootstrapping(Classification):
        bootstraps = True

    task = Bootstrapping(ClassificationSettings())
    with HostAgent() as agent:
        found = quality_on_device(file, agent.run, DEVICE, task, DATA, 3, 1e6, Clock())
    assert found.interval is not None
    assert found.interval == verify.file_quality(file, DATA.in_order(DATA.split.test, 16), task).interval


def test_within_a_time_limit_it_is_of_a_random_sample_and_of_the_same_images_here(file: bytes) -> None:
    seen: list[Any] = []

    def wrong(model: bytes, inputs: Sequence[Array]) -> list[Array]:
        seen.append(inputs[0])
        return [-verify.run_tflite(model, inputs[0])]

    found = quality(file, wrong, limit_s=10)
    assert len(seen) == found.images == 10
    first, _ = DATA.arrays(DATA.split.test[:10])
    assert not np.array_equal(np.concatenate(seen), first), "not the first ones, which may be of one class"
    assert found.value is not None
    assert found.here == pytest.approx(1 - found.value)
    again = list(seen)
    quality(file, wrong, limit_s=10)
    np.testing.assert_array_equal(seen[10:], again)
    assert quality(file, wrong, limit_s=0.5).images == 1
    assert "accuracy on 10 of" in str(found)


def test_what_the_device_fails_at_ends_the_test_and_is_told(file: bytes) -> None:
    count = 0

    def failing(model: bytes, inputs: Sequence[Array]) -> list[Array]:
        nonlocal count
        count += 1
        if count > 5:
            raise ModelError("it lost power")
        return [verify.run_tflite(model, inputs[0])]

    found = quality(file, failing)
    assert (found.images, found.problem) == (5, "it lost power")
    assert found.value == found.here
    none = quality(file, failing)
    assert (none.images, none.value) == (0, None)
    assert str(none) == "accuracy not tested there: it lost power"
