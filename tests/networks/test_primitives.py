"""A primitive is the same layer everywhere, and one of another package is as good as one of this one."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nas_edge.networks import layers as L
from nas_edge.networks import primitives
from nas_edge.networks.analysis import analyze
from nas_edge.networks.graph import GraphBuilder, Node, Shape
from nas_edge.networks.primitives import IN, OUT, Primitive, Weight
from nas_edge.networks.primitives.activation import ACTIVATIONS
from nas_edge.networks.primitives.base import image_shape
from nas_edge.networks.tflite_graph import TFLiteGraph
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.testing import check_layer, check_space, check_supernet

LAYERS: dict[str, tuple[Primitive, Shape]] = {
    "conv": (L.Conv2D(12, 3, 2), (9, 9, 16)),
    "conv with bias": (L.Conv2D(8, use_bias=True, kernel_init="classifier", regularized=False), (4, 4, 8)),
    "depthwise": (L.DepthwiseConv2D(5, 2), (9, 9, 8)),
    "batch norm": (L.BatchNorm(), (5, 5, 8)),
    **{name: (L.Activation(name), (5, 5, 8)) for name in ACTIVATIONS},
    "pool": (L.GlobalAveragePool(), (5, 7, 8)),
    "pool of one pixel": (L.GlobalAveragePool(), (1, 1, 8)),
    "average pool": (L.AveragePool(3), (5, 7, 8)),
    "average pool with strides": (L.AveragePool(3, 2), (5, 7, 8)),
    "average pool of one pixel": (L.AveragePool(3), (1, 1, 8)),
    "max pool": (L.MaxPool(3), (5, 7, 8)),
    "max pool with strides": (L.MaxPool(3, 2), (5, 7, 8)),
    "dropout": (L.Dropout(0.3), (5, 5, 8)),
    "path dropout": (L.PathDropout(0.3), (5, 5, 8)),
    "flatten": (L.Flatten(), (1, 1, 8)),
    "unit length": (L.L2Normalize(), (1, 1, 8)),
    "resize": (L.Resize(7, 6), (3, 3, 8)),
    "resize to the same size": (L.Resize(4, 4), (4, 4, 8)),
    "places in a row": (L.FlattenPlaces(), (3, 4, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_same_layer_everywhere(name: str) -> None:
    check_layer(*LAYERS[name])


def own_primitives() -> Iterator[type[Primitive]]:
    for module in pkgutil.iter_modules(primitives.__path__, f"{primitives.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Primitive) and value is not Primitive:
                yield value


def test_every_primitive_is_tested_and_in_the_vocabulary() -> None:
    tested = {type(layer) for layer, _ in LAYERS.values()}
    for primitive in own_primitives():
        assert getattr(L, primitive.__name__) is primitive
        assert primitive in tested or primitive.input_count == 2  # Add and Multiply: tests of whole networks


def test_tensorflow_is_imported_only_by_what_needs_it() -> None:
    program = (
        "import pkgutil, sys; from nas_edge.networks import primitives;"
        "[__import__(f'nas_edge.networks.primitives.{m.name}') for m in pkgutil.iter_modules(primitives.__path__)];"
        "import nas_edge.spaces, nas_edge.networks.template, nas_edge.networks.analysis, nas_edge.benchmarking;"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_no_primitive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"block\.attend: expected a subclass .* received object"):
        GraphBuilder((8, 8, 3)).add("block.attend", object(), "input")  # type: ignore[arg-type]


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown activation 'tanh'; supported: relu, relu6, hard_swish, sigmoid"):
        L.Activation("tanh")


# ---------------------------------------------------------------- primitives that the project has never heard of


@dataclass(frozen=True)
class LeakyReLU(Primitive):
    slope: float

    in_place = True

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def keras_layer(self, name: str, seed: int) -> Any:
        import keras

        return keras.layers.LeakyReLU(negative_slope=self.slope, name=name)

    def run(self, weights: tuple[Any, ...], *inputs: Any) -> Any:
        import tensorflow as tf

        return tf.nn.leaky_relu(inputs[0], self.slope)

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        source = graph.tensors[node.inputs[0]]
        graph.add("LEAKY_RELU", node, [source], options=("LeakyReluOptions", {"alpha": self.slope}), int8_version=1)


@dataclass(frozen=True)
class DilatedConv2D(Primitive):
    """With a kernel, and a width that may be left open."""

    filters: L.Width
    dilation: int

    width_field = "filters"

    def output_shape(self, *inputs: Shape) -> Shape:
        height, width, _ = image_shape(self, inputs[0])
        assert isinstance(self.filters, int)
        return (height, width, self.filters)

    def macs(self, in_channels: int, output: Shape) -> int:
        return int(np.prod(output)) * 9 * in_channels

    def weights(self) -> tuple[Weight, ...]:
        return (Weight("kernel", (3, 3, IN, OUT), "he_normal", regularized=True),)

    def keras_layer(self, name: str, seed: int) -> Any:
        import keras

        return keras.layers.Conv2D(
            self.filters, 3, padding="same", dilation_rate=self.dilation, use_bias=False, name=name
        )

    def run(self, weights: tuple[Any, ...], *inputs: Any) -> Any:
        import tensorflow as tf

        return tf.nn.conv2d(inputs[0], weights[0], strides=1, padding="SAME", dilations=self.dilation)

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        rate = self.dilation
        options = {"strideW": 1, "strideH": 1, "dilationWFactor": rate, "dilationHFactor": rate}
        graph.add_with_kernel(
            "CONV_2D",
            node,
            (node.shape[-1], 3, 3, graph.tensors[node.inputs[0]].shape[-1]),
            channel_axis=0,
            kernel_axes=(3, 0, 1, 2),
            options=("Conv2DOptions", options),
            int8_version=3,
        )


def foreign_space(input_size: int, width_multiplier: float, classes: int, channels: int) -> NetworkSpace:
    decisions = blocks.Decisions()
    width = blocks.number("width", (8, 16))
    bodies: dict[str, L.Layer] = {
        f"d{dilation}s{slope}": L.sequential(
            conv=DilatedConv2D(width, dilation), norm=L.BatchNorm(), act=LeakyReLU(slope)
        )
        for dilation, slope in ((1, 0.1), (2, 0.25))
    }
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(8, "relu", 3, 2), "body": decisions.layers("body", bodies)}
    decisions.declare(width)
    parts |= {"pool": L.GlobalAveragePool(), **blocks.classifier(classes, 0.1)}
    template = L.Sequential(tuple(parts.items()))
    return NetworkSpace("foreign", template, decisions.list, (input_size, input_size, channels), classes)


@pytest.mark.parametrize("layer", [LeakyReLU(0.2), DilatedConv2D(12, 2)], ids=lambda layer: type(layer).__name__)
def test_a_foreign_primitive_is_the_same_layer_everywhere(layer: Primitive) -> None:
    check_layer(layer)


def test_a_space_of_foreign_primitives_keeps_every_promise() -> None:
    check_space(foreign_space)
    check_supernet(foreign_space)


def test_the_costs_of_a_foreign_primitive_are_counted() -> None:
    space = foreign_space(32, 1.0, 5, 3)
    narrow, wide = (analyze(space.decode(space.encode({"width": width}))) for width in (8, 16))
    # The stem leaves [16, 16, 8]; the classifier has 5 outputs.
    assert wide.macs - narrow.macs == 16 * 16 * (16 - 8) * 9 * 8 + (16 - 8) * 5
    assert wide.parameters - narrow.parameters == (16 - 8) * (9 * 8 + 2 + 5)


def test_a_foreign_primitive_is_in_the_file_with_its_numbers() -> None:
    space = foreign_space(32, 1.0, 5, 3)
    files = [tflite_model(space.decode(space.encode({"body": body})), "int8") for body in ("d1s0.1", "d2s0.25")]
    assert [o.name for o in operators(files[0])] == ["CONV_2D", "CONV_2D", "LEAKY_RELU", "MEAN", "CONV_2D", "RESHAPE"]
    assert files[0] != files[1]
    first, second = (space.decode(space.encode({"body": body})) for body in ("d1s0.1", "d2s0.25"))
    assert first.fingerprint != second.fingerprint


# ---------------------------------------------------------------- what check_layer finds


class WrongShape(LeakyReLU):
    def output_shape(self, *inputs: Shape) -> Shape:
        return (*inputs[0][:2], inputs[0][2] + 1)


class WrongRun(LeakyReLU):
    def run(self, weights: tuple[Any, ...], *inputs: Any) -> Any:
        return inputs[0]


class AcrossChannels(LeakyReLU):
    def keras_layer(self, name: str, seed: int) -> Any:
        import keras

        return keras.layers.Softmax(name=name)

    def run(self, weights: tuple[Any, ...], *inputs: Any) -> Any:
        import tensorflow as tf

        return tf.nn.softmax(inputs[0])


class WrongSlope(LeakyReLU):
    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        source = graph.tensors[node.inputs[0]]
        graph.add("LEAKY_RELU", node, [source], options=("LeakyReluOptions", {"alpha": 0.9}), int8_version=1)


class WrongOperator(LeakyReLU):
    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        graph.add("RELU", node, [graph.tensors[node.inputs[0]]])


class WrongVersion(LeakyReLU):
    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        source = graph.tensors[node.inputs[0]]
        graph.add("LEAKY_RELU", node, [source], options=("LeakyReluOptions", {"alpha": self.slope}), int8_version=2)


class WrongWeights(LeakyReLU):
    def weights(self) -> tuple[Weight, ...]:
        return (Weight("slope", (OUT,)),)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (WrongShape(0.1), r"its shape rule says \[8, 8, 17\], the Keras layer makes \[8, 8, 16\]"),
        (WrongWeights(0.1), r"its weights have shapes \[\(16,\)\], those of the Keras layer \[\]"),
        (WrongRun(0.1), "run computes something else than the Keras layer"),
        (AcrossChannels(0.1), "its active channels depend on inactive ones"),
        (WrongOperator(0.1), "as float32, the converter makes(.|\n)*LEAKY_RELU(.|\n)*and it writes(.|\n)*RELU"),
        (WrongSlope(0.1), "as float32, its outputs differ from the Keras layer by"),
        (WrongVersion(0.1), "as int8, the converter makes"),
        (LeakyReLU([0.1]), "hashing the layer"),  # type: ignore[arg-type]
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Primitive) else "",
)
def test_a_broken_promise_is_named(broken: Primitive, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_layer(broken)
