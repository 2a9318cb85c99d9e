"""Resizing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class Resize(Primitive):
    """Bilinear resizing to another height and width, corners not aligned, and pixels read at their upper left corners.

    So it is version 2 of `RESIZE_BILINEAR`, which every hardware profile has; at their centres it would be version 3.

    Attributes:
        rows: height of the output.
        columns: width of the output.
    """

    rows: int
    columns: int

    def output_shape(self, *inputs: Shape) -> Shape:
        """`[height, width, channels]`."""
        return (self.rows, self.columns, image_shape(self, inputs[0])[-1])

    def keras_layer(self, name: str, seed: int) -> Any:
        """A layer of one function."""
        from nas_edge.networks.keras_functions import Resizing

        return Resizing(self.rows, self.columns, name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Resizes."""
        from nas_edge.networks.keras_functions import resize

        return resize(inputs[0], self.rows, self.columns)

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`RESIZE_BILINEAR`; nothing where the size stays."""
        source = graph.tensors[node.inputs[0]]
        if source.shape[1:3] == (self.rows, self.columns):
            graph.alias(node)
            return
        size = graph.constant(self.rows, self.columns)
        graph.add("RESIZE_BILINEAR", node, [source, size], options=("ResizeBilinearOptions", {}), int8_scale="input")
