"""Layers that stay float32 in an int8 file: which they are, and what is told of it."""

from __future__ import annotations

import numpy as np
import pytest

from device_agents.api import Measurement
from nas_edge.config import load_config
from nas_edge.errors import ConfigError
from nas_edge.export.verify import input_output
from nas_edge.networks.graph import Weights
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.tflite_model import operators
from nas_edge.stages.contender import Contender
from nas_edge.stages.delivering import TrainedModel, convert
from nas_edge.stages.mixed_precision import MIXED
from nas_edge.testing.trainings import bright_or_dark, small_network
from tests.support.agents import steady

NETWORK = small_network()
TASK, DATA = bright_or_dark()


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    weights: Weights = get_weights(keras_model(NETWORK, seed=3), NETWORK)
    config = load_config("smoke", settings=["export.mixed_layers=1"])
    return convert(config, TASK, DATA, Contender("winner", "", None, NETWORK), weights)


def test_the_noisiest_layer_stays_float_and_all_others_do_not(model: TrainedModel) -> None:
    assert model.mixed is not None
    (left,) = model.mixed.layers
    assert left.sqnr_db == min(one.sqnr_db for one in model.sensitivity)
    whole, found = operators(model.files["int8"]), operators(model.mixed.file)
    assert {tensor.dtype for tensor in input_output(model.mixed.file)} == {"int8"}
    casts = {"QUANTIZE", "DEQUANTIZE"}
    assert [one.name for one in found if one.name not in casts] == [one.name for one in whole]
    floats = [one.name for one in found if "FLOAT32" in one.output_dtypes and one.name not in casts]
    assert floats == [left.operator]


def test_what_it_gains_and_costs_is_told(model: TrainedModel) -> None:
    assert model.mixed is not None
    assert model.all_files == {**model.files, MIXED: model.mixed.file}
    latency: dict[str, Measurement] = {"int8": steady(1.0), MIXED: steady(1.25)}
    told = model.mixed.told(latency, model.quality["int8"])
    assert (told.latency_ms, told.int8_latency_ms, told.size_bytes) == (1.25, 1.0, len(model.mixed.file))
    assert told.text(TASK.metric).startswith(f"with {model.mixed.layers[0].layer} in float32: accuracy ")
    assert told.text(TASK.metric).endswith("1.250 ms instead of 1.000 ms")
    assert np.isfinite(told.quality)


def test_only_the_winner_of_those_that_are_compared_is_examined() -> None:
    weights: Weights = get_weights(keras_model(NETWORK, seed=3), NETWORK)
    config = load_config("smoke", settings=["export.mixed_layers=1"])
    assert convert(config, TASK, DATA, Contender("best of random", "", None, NETWORK), weights).mixed is None


@pytest.mark.parametrize("setting", ["export.precision=int16x8", "export.quantization=aware"])
def test_it_is_for_int8_after_training(setting: str) -> None:
    with pytest.raises(ConfigError, match="mixed_layers leaves layers of an int8 file"):
        load_config("smoke", settings=["export.mixed_layers=1", setting])
