"""Flattening."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class Flatten(Primitive):
    """`[1, 1, channels]` to `[channels]`."""

    in_place = True

    def output_shape(self, *inputs: Shape) -> Shape:
        """All values in one axis."""
        return (prod(inputs[0]),)

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Flatten`."""
        import keras

        return keras.layers.Flatten(name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The channels of the only pixel."""
        return inputs[0][:, 0, 0, :]

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`RESHAPE`."""
        shape = graph.constant(1, *node.shape)
        graph.add("RESHAPE", node, [graph.tensors[node.inputs[0]], shape], int8_version=1, int8_scale="input")
