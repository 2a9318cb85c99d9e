"""What the pools of a window have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_edge.networks.primitives.base import Primitive, Shape, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


def pooled_shape(layer: Primitive, shape: Shape, strides: int) -> Shape:
    """`[ceil(height / strides), ceil(width / strides), channels]`."""
    height, width, channels = image_shape(layer, shape)
    return (-(-height // strides), -(-width // strides), channels)


def lower_pool(graph: TFLiteGraph, node: Node, operator: str, size: int, strides: int) -> None:
    """Adds the operator of a pool; an activation after it stays an operator of its own."""
    fields: dict[str, int | float] = {"filterWidth": size, "filterHeight": size}
    fields |= {"strideW": strides, "strideH": strides}
    source = graph.tensors[node.inputs[0]]
    graph.add(operator, node, [source], options=("Pool2DOptions", fields), int8_scale="input")
