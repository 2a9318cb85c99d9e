"""All pixels of a feature map in one column, for outputs of several maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class FlattenPlaces(Primitive):
    """`[height, width, channels]` to `[height * width, 1, channels]`, row by row."""

    in_place = True

    def output_shape(self, *inputs: Shape) -> Shape:
        """All pixels along the first axis."""
        height, width, channels = image_shape(self, inputs[0])
        return (height * width, 1, channels)

    def keras_layer(self, name: str, seed: int) -> Any:
        """A layer of one function."""
        from nas_edge.networks.keras_functions import FlatteningPlaces

        return FlatteningPlaces(name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The same values in another shape."""
        from nas_edge.networks.keras_functions import flatten_places

        return flatten_places(inputs[0])

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`RESHAPE`; nothing if the shape stays the same."""
        source = graph.tensors[node.inputs[0]]
        if source.shape == (1, *node.shape):
            graph.alias(node)
            return
        graph.add("RESHAPE", node, [source, graph.constant(1, *node.shape)], int8_version=1, int8_scale="input")
