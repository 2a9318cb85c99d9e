"""Concatenation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph

# The axis of rows in a batch.
_AXIS = 1


@dataclass(frozen=True)
class Concat(Primitive):
    """The rows of two inputs, one after the other. Appears in graphs; templates say `Concatenate`."""

    input_count = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        """`[height of both, width, channels]`."""
        first, second = (image_shape(self, shape) for shape in inputs)
        if first[1:] != second[1:]:
            raise ValueError(
                f"cannot concatenate the rows of {list(first)} and {list(second)}; heights alone may differ"
            )
        return (first[0] + second[0], *first[1:])

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Concatenate`."""
        import keras

        return keras.layers.Concatenate(axis=_AXIS, name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Concatenates."""
        import tensorflow as tf

        return tf.concat(inputs, axis=_AXIS)

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`CONCATENATION`, whose int8 kernels require one scale for inputs and output."""
        sources = [graph.tensors[name] for name in node.inputs]
        operator = graph.add(
            "CONCATENATION", node, sources, options=("ConcatenationOptions", {"axis": _AXIS}), fuses_activation=True
        )
        graph.share_range(operator)
