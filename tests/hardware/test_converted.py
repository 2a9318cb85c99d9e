"""The gate on files made by the converter in use: what Keras' layers become in int8, and where that can run."""

from __future__ import annotations

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_edge.errors import ExportError
from nas_edge.export.quantize import quantized_tflite
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.gate import check_file, require_hardware
from nas_edge.hardware.lint import fit_template
from nas_edge.networks.keras_model import keras_model
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.quiet import held_stderr
from nas_edge.spaces.reference import reference_network
from tests.support.constructs import CONSTRUCTS, int8_file, network
from tests.support.references import ONE_OF_A_FAMILY

ALL = "cpu gpu edgetpu nnapi"

# What follows the convolution: operators with their versions, `*` where they are float ones; and where they cannot run.
TABLE = {
    "relu": ("", ""),
    "relu6": ("", ""),
    "hard swish": ("HARD_SWISH 1", "edgetpu"),
    "hard sigmoid": ("MUL 2", ""),
    "swish": ("LOGISTIC 2, MUL 2", ""),
    "sigmoid": ("LOGISTIC 2", ""),
    "tanh": ("TANH 2", ""),
    "gelu": ("GELU 2", "gpu edgetpu nnapi"),
    "elu": ("DEQUANTIZE 2*, ELU 1*, QUANTIZE 1*", ALL),
    "leaky relu": ("LEAKY_RELU 1", "edgetpu"),
    "prelu, a slope per channel": ("PRELU 1", ""),
    "softplus": ("EXP 2, ADD 2, LOG 2", "edgetpu nnapi"),
    "batch norm": ("", ""),
    "batch norm after relu": ("MUL 2", ""),
    "layer norm": (
        "MEAN 2, DEQUANTIZE 2*, NEG 1*, QUANTIZE 1*, SQUARED_DIFFERENCE 2, MEAN 2, ADD 2, RSQRT 2, MUL 2, MUL 2, "
        "MUL 2, ADD 2",
        ALL,
    ),
    "rms norm": ("DEQUANTIZE 2*, SQUARE 1*, QUANTIZE 1*, MEAN 2, ADD 2, RSQRT 2, MUL 2", ALL),
    "group norm": (
        "RESHAPE 1, MEAN 2, DEQUANTIZE 2*, NEG 1*, QUANTIZE 1*, SUB 3, DEQUANTIZE 2*, SQUARE 1*, QUANTIZE 1*, MEAN 2, "
        "ADD 2, RSQRT 2, MUL 2, MUL 2, MUL 2, ADD 2, RESHAPE 1",
        ALL,
    ),
    "nearest up-sampling": ("RESHAPE 1, TILE 3, RESHAPE 1, TILE 3, RESHAPE 1", ALL),
    "bilinear up-sampling": ("RESIZE_BILINEAR 3", "edgetpu"),
    "nearest resizing": ("RESIZE_NEAREST_NEIGHBOR 3", "edgetpu"),
    "mask": ("", ""),
    "mask after relu": ("MUL 2", ALL),
    "global average pooling": ("MEAN 2", ""),
    "global max pooling": ("REDUCE_MAX 2", ""),
    "average pooling": ("AVERAGE_POOL_2D 2", ""),
    "max pooling": ("MAX_POOL_2D 2", ""),
    "dense on a vector": ("RESHAPE 1, FULLY_CONNECTED 4", ""),
    "dense on an image": ("FULLY_CONNECTED 5", "edgetpu"),
    "softmax": ("MEAN 2, SOFTMAX 2", ""),
    "depthwise convolution": ("DEPTHWISE_CONV_2D 3", ""),
    "grouped convolution": ("CONV_2D 6", "gpu edgetpu nnapi"),
    "transposed convolution": ("TRANSPOSE_CONV 2", ""),
    "3-D convolution": ("RESHAPE 1, DEQUANTIZE 2*, CONV_3D 1*, QUANTIZE 1*", ALL),
    "zero padding": ("PAD 2", ""),
    "cropping": ("STRIDED_SLICE 2", ""),
    "channel shuffle": ("RESHAPE 1, TRANSPOSE 4, RESHAPE 1", ALL),
    "self-attention": ("RESHAPE 1, BATCH_MATMUL 2, SOFTMAX 2, BATCH_MATMUL 2", "edgetpu nnapi"),
    "dropout": ("", ""),
}


@functools.cache
def converted(name: str) -> bytes:
    return int8_file(network(CONSTRUCTS[name]()))


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_what_a_keras_layer_becomes_and_where_it_can_run(name: str) -> None:
    expected, refused = TABLE[name]
    file = converted(name)
    first, *rest = operators(file)
    assert first.name == "CONV_2D"
    found = [f"{o.name} {o.version}{'*' if 'FLOAT32' in o.input_dtypes + o.output_dtypes else ''}" for o in rest]
    assert ", ".join(found) == expected
    assert [h.name for h in HARDWARE.values() if not check_file(file, h).passed] == refused.split()


@pytest.mark.parametrize(
    ("name", "hardware", "words"),
    [
        ("layer norm", "cpu", r"Neg: NEG: a float operator \(float32\) in an int8 file"),
        ("gelu", "edgetpu", "GELU: the operator is not supported"),
        ("nearest up-sampling", "cpu", r"\[1, 8, 1, 8, 8\] has more than 4 dimensions"),
        ("bilinear up-sampling", "edgetpu", "RESIZE_BILINEAR: version 3 is not supported, 2 is the latest that is"),
        ("mask after relu", "cpu", "MUL: multiplies by the mask .*mul/y, a constant of ones and zeros"),
    ],
)
def test_the_gate_names_layer_and_reason(name: str, hardware: str, words: str) -> None:
    with pytest.raises(ExportError, match=rf"not for {hardware}: \d+ of \d+ operators? (is|are) outside .*{words}"):
        require_hardware(converted(name), HARDWARE[hardware])


def test_a_batch_of_any_size_is_refused() -> None:
    with held_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = int8_file(network(CONSTRUCTS["relu"]()), batch=None)
    for hardware in HARDWARE.values():
        check = check_file(file, hardware)
        assert not check.passed
        assert "has a dimension of any size; fix the shape, batch included" in str(check)


@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small"])
def test_published_networks_of_keras_pass_for_the_cpu(name: str) -> None:
    """MobileNetV3's gates are hard sigmoids."""
    shape = (96, 96, 3)
    model = getattr(keras.applications, name)(
        input_shape=shape, weights=None, classes=10, alpha=0.35 if name[-1] == "2" else 1.0
    )
    images = np.random.default_rng(0).uniform(-1, 1, (4, *shape)).astype(np.float32)
    file = quantized_tflite(model, "int8", lambda: [images])
    check = require_hardware(file, HARDWARE["cpu"])
    assert check.operators > 50
    assert check_file(file, HARDWARE["edgetpu"]).passed == (name == "MobileNetV2")


@pytest.mark.parametrize("name", ONE_OF_A_FAMILY)
def test_references_pass_for_the_edge_tpu_without_gates_and_h_swish(name: str) -> None:
    """As directly written files, which have the converter's operators."""
    edgetpu = HARDWARE["edgetpu"]
    spec = reference_network(name, change=lambda template: fit_template(template, edgetpu))
    check = require_hardware(tflite_model(spec, "int8"), edgetpu)
    assert check.advice == ()
    published = check_file(tflite_model(reference_network(name), "int8"), edgetpu)
    assert published.passed == ("hard_swish" not in str(reference_network(name)))


def test_a_converted_reference_without_gates_and_h_swish_passes_too() -> None:
    edgetpu = HARDWARE["edgetpu"]
    spec = reference_network(
        "mobilenet-v3-large", 64, 0.25, 10, change=lambda template: fit_template(template, edgetpu)
    )
    tf.random.set_seed(0)
    images = np.random.default_rng(0).normal(size=(4, *spec.input_shape)).astype(np.float32)
    assert require_hardware(quantized_tflite(keras_model(spec), "int8", lambda: [images]), edgetpu).advice == ()
