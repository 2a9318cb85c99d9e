"""What a device computes against what this machine computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from device_agents.errors import ModelError
from device_agents.host import HostAgent
from nas_edge.export import verify
from nas_edge.export.on_device import check_on_device
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
