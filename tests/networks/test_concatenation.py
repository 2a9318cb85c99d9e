"""Parts whose places stand one after the other, alike in Keras model, TFLite file, fake quantisation and supernet."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.export.quantize import quantized_tflite
from nas_edge.export.verify import input_output, run_tflite
from nas_edge.networks import layers as L
from nas_edge.networks.fake_quant import fake_quant_model, learned, observe_ranges
from nas_edge.networks.graph import NetworkSpec, with_ranges
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.precisions import Precision
from nas_edge.networks.template import decode
from nas_edge.networks.tflite_graph import TFLiteGraph
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.spaces import blocks
from nas_edge.testing import check_supernet
from tests.support.spaces import tiny_space

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def heads(*strides: int) -> L.Layer:
    """A convolution for each stride, the one with a larger scale than the other, in a row of places."""
    made, *coarser = (
        L.sequential(conv=L.Conv2D(5, 3, stride, use_bias=True), row=L.FlattenPlaces()) for stride in strides
    )
    for head in coarser:
        made = L.sequential(join=L.Concatenate(made, head))
    return made


def network() -> NetworkSpec:
    stem = blocks.conv_norm(8, "relu6", 3)
    return decode(L.sequential(stem=stem, heads=heads(1, 2, 4)), (8, 8, 3), {})


def test_places_follow_row_by_row_and_head_by_head() -> None:
    spec = network()
    assert spec.output_shape == (64 + 16 + 4, 1, 5)
    model = keras_model(spec, seed=1)
    inner = model.get_layer("stem.act").output
    (image,) = np.asarray(model(IMAGES[:1]))
    for name, places in (("heads.join.first.join.first", slice(64)), ("heads.join.second", slice(80, None))):
        convolved = model.get_layer(f"{name}.conv")(type(model)(model.input, inner)(IMAGES[:1]))
        np.testing.assert_allclose(np.reshape(convolved, (-1, 1, 5)), image[places], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_file_has_the_converters_operators_and_scales(precision: Precision) -> None:
    spec = network()
    drawn = keras_model(spec, seed=1)
    weights = {
        name: tuple(array * (3 if "second" in name else 1) for array in group)
        for name, group in get_weights(drawn, spec).items()
    }
    model = fake_quant_model(spec, weights)
    observe_ranges(model, [IMAGES])
    kept = with_ranges(*learned(model, spec))
    written = tflite_model(spec, precision, kept)
    converted = quantized_tflite(keras_model(spec, weights), precision, lambda: [IMAGES])
    assert list(map(str, operators(written))) == list(map(str, operators(converted)))
    result, theirs = input_output(written)[1], input_output(converted)[1]
    expected = keras_model(spec, weights)(IMAGES, training=False).numpy()
    outputs = run_tflite(written, IMAGES, kernels="built-in")
    if result.scale is None:
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
        return
    assert theirs.scale == pytest.approx(result.scale, rel=0.01)
    assert np.abs(outputs - expected).mean() < 2 * result.scale
    rounded = fake_quant_model(spec, kept)(IMAGES, training=False).numpy()
    assert np.abs(outputs - rounded).max() <= 2 * result.scale


def test_what_has_a_scale_of_its_own_or_another_reader_is_refused() -> None:
    norm = L.sequential(unit=L.L2Normalize(), row=L.FlattenPlaces())
    with pytest.raises(ValueError, match=r"first\.unit cannot share the scale of .*concat"):
        TFLiteGraph(decode(L.Concatenate(norm, heads(2)), (8, 8, 5), {}))
    with pytest.raises(ValueError, match="another operator reads it"):
        TFLiteGraph(decode(L.Concatenate(L.FlattenPlaces(), heads(2)), (8, 8, 5), {}))
    other = L.sequential(conv=L.Conv2D(3, 3, 2), row=L.FlattenPlaces())
    with pytest.raises(ValueError, match=r"cannot concatenate the rows of \[64, 1, 5\] and \[16, 1, 3\]"):
        decode(L.Concatenate(heads(1), other), (8, 8, 5), {})


def test_a_supernet_concatenates_what_its_choices_made() -> None:
    space = tiny_space(input_size=8, channels=3)
    body = [part for part in space.template.parts if not isinstance(part[1], (L.GlobalAveragePool, L.Flatten))]
    dense = L.Sequential((*body, ("heads", heads(1, 2))))
    check_supernet(lambda *_: space.with_template(dense))
