"""Noise of quantisation is found in the layer that has it."""

from __future__ import annotations

import numpy as np

from nas_edge.export.sensitivity import LayerNoise, layer_noise, worst
from nas_edge.networks.graph import ranges_of, with_ranges
from nas_edge.networks.tflite_graph import TFLiteGraph
from nas_edge.networks.tflite_model import tflite_model
from tests.support.exported import Exported


def test_a_range_that_is_too_narrow_is_found(exported: Exported) -> None:
    from nas_edge.networks.fake_quant import fake_quant_model, learned, observe_ranges
    from nas_edge.networks.keras_model import get_weights

    spec, images = exported.spec, exported.images[:8]
    model = fake_quant_model(spec, get_weights(exported.model, spec))
    observe_ranges(model, [exported.images])
    weights = with_ranges(*learned(model, spec))
    names = [operator.output.name for operator in TFLiteGraph(spec).operators]
    real = tflite_model(spec, "float32", weights)
    fine = layer_noise(real, tflite_model(spec, "int8", weights), images, names)
    assert [one.layer for one in fine] == [name for name in names if name != "flatten"]
    assert all(15 < one.sqnr_db < 60 for one in fine)
    ranges = {**ranges_of(weights), "head": tuple(limit / 20 for limit in ranges_of(weights)["head"])}
    found = layer_noise(real, tflite_model(spec, "int8", with_ranges(weights, ranges)), images, names)
    before, after = (next(one for one in noises if one.layer == "head") for noises in (fine, found))
    assert after.sqnr_db < 5 < before.sqnr_db
    assert found[: names.index("head")] == fine[: names.index("head")]
    assert worst(found)[0].sqnr_db <= after.sqnr_db


def test_the_converters_files_are_compared_too_and_others_are_not(exported: Exported) -> None:
    found = layer_noise(exported.float32, exported.int8, exported.images[:4])
    assert len(found) == len(TFLiteGraph(exported.spec).operators) - 1
    assert layer_noise(exported.float32, exported.float32, exported.images[:1])[0].sqnr_db == 200
    other = tflite_model(exported.spec, "float16")
    assert len(layer_noise(exported.float32, other, exported.images[:1])) == len(found)
    from tests.support.models import conv_model

    assert layer_noise(exported.float32, conv_model(), exported.images[:1]) == ()


def test_it_is_told_in_a_few_words() -> None:
    noise = LayerNoise("stem.conv", "CONV_2D", 12.345)
    assert str(noise) == "stem.conv (CONV_2D) 12.3 dB"
    assert noise.to_json() == {"layer": "stem.conv", "operator": "CONV_2D", "sqnr_db": 12.345}
    assert np.isfinite(noise.sqnr_db)
