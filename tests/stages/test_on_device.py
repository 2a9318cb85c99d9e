"""Which files are tested on which devices before they are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from device_agents.errors import ModelError
from nas_edge.config import load_config
from nas_edge.export.convert import float32_tflite
from nas_edge.export.verify import run_tflite
from nas_edge.networks.keras_model import keras_model
from nas_edge.stages.on_device import checks_on_device
from nas_edge.testing.trainings import bright_or_dark, small_network
from tests.support.agents import fake_info

TASK, DATA = bright_or_dark()


@pytest.fixture(scope="module")
def file() -> bytes:
    return float32_tflite(keras_model(small_network(), seed=1))


def device(on_host: bool, works: bool = True) -> Any:
    """Stands in for a device: this machine computes."""

    def run(model: bytes, inputs: Sequence[Any]) -> list[Any]:
        if not works:
            raise ModelError("it cannot")
        return [run_tflite(model, inputs[0])]

    return SimpleNamespace(measures_on_host=on_host, run_file=run, info=fake_info(model="board"))


@pytest.mark.parametrize(
    ("on_host", "works", "seconds", "tested"),
    [(False, True, 30, True), (True, True, 30, False), (False, True, 0, False), (False, False, 30, False)],
)
def test_a_file_is_tested_on_devices_other_than_this_machine(
    file: bytes, on_host: bool, works: bool, seconds: float, tested: bool
) -> None:
    config = load_config("smoke", settings=[f"export.device_test_s={seconds}"])
    checks = checks_on_device(config, cast(Any, device(on_host, works)), {"float32": file}, TASK, DATA)
    check = checks["float32"]
    assert bool(check.problem) is not works
    assert (check.quality is not None) is tested
    if check.quality is not None:
        assert check.quality.limit_s == 30
        assert str(check.quality) in str(check)
