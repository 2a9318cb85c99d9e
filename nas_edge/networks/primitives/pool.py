"""The global average pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class GlobalAveragePool(Primitive):
    """The mean over height and width, kept as `[1, 1, channels]`."""

    def output_shape(self, *inputs: Shape) -> Shape:
        """`[1, 1, channels]`."""
        return (1, 1, image_shape(self, inputs[0])[-1])

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.GlobalAveragePooling2D`."""
        import keras

        return keras.layers.GlobalAveragePooling2D(keepdims=True, name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The mean."""
        import tensorflow as tf

        return tf.reduce_mean(inputs[0], [1, 2], keepdims=True)

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`MEAN`; nothing over a single pixel, where the converter drops it."""
        source = graph.tensors[node.inputs[0]]
        if source.shape[1:3] == (1, 1):
            graph.alias(node)
        else:
            graph.add("MEAN", node, [source, graph.constant(1, 2)], options=("ReducerOptions", {"keepDims": True}))
