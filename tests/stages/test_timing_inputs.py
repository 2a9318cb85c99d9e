"""The validation examples that a run's networks are timed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_agents.host import HostAgent
from nas_edge.config import load_config
from nas_edge.progress import Reporter
from nas_edge.stages import context
from nas_edge.stages.context import load_data, open_devices, open_task, timing_inputs
from tests.support.agents import FunctionAgent, steady

CONFIG = load_config(preset="smoke")


def loaded() -> Any:
    return load_data(CONFIG, open_task(CONFIG), Reporter())


def with_inputs(count: int) -> Any:
    return CONFIG.model_copy(update={"device": CONFIG.device.model_copy(update={"timing_inputs": count})})


def test_they_are_spread_over_the_validation_part_as_a_network_sees_them() -> None:
    data = loaded()
    inputs = timing_inputs(CONFIG, data)
    assert inputs is not None
    everything, _ = data.arrays(data.split.validation)
    places = [place * len(everything) // 8 for place in range(8)]
    np.testing.assert_array_equal(inputs, everything[places])
    few = timing_inputs(with_inputs(64), data)
    assert few is not None
    assert len(few) == 64


def test_without_data_or_where_none_are_wanted_there_are_none() -> None:
    assert timing_inputs(CONFIG, None) is None
    assert timing_inputs(with_inputs(0), loaded()) is None


@pytest.mark.parametrize("takes", [True, False], ids=["takes examples", "random values only"])
def test_latencies_on_examples_have_a_key_of_their_own(monkeypatch: pytest.MonkeyPatch, takes: bool) -> None:
    def agent(address: str) -> Any:
        return HostAgent() if takes else FunctionAgent(lambda model, spec: steady(1.0))

    monkeypatch.setattr(context, "open_device", agent)
    keys, used = [], []
    for inputs in (None, np.zeros((2, 16, 16, 1), np.float32), np.ones((2, 16, 16, 1), np.float32)):
        with open_devices(CONFIG, inputs=inputs) as device:
            keys.append(device.key)
            used.append(bool(device.spec.inputs))
    assert used == [False, takes, takes]
    assert len(set(keys)) == (3 if takes else 1)
