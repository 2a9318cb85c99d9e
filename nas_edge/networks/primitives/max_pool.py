"""The maximum pool of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor
from nas_edge.networks.primitives.window_pool import lower_pool, pooled_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class MaxPool(Primitive):
    """The largest value of each window, per channel, of its pixels that are inside the image.

    Attributes:
        size: side of the square window.
        strides: step in both directions.
    """

    size: int
    strides: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        """`[ceil(height / strides), ceil(width / strides), channels]`."""
        return pooled_shape(self, inputs[0], self.strides)

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.MaxPooling2D`."""
        import keras

        return keras.layers.MaxPooling2D(self.size, self.strides, padding="same", name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Pools."""
        import tensorflow as tf

        return tf.nn.max_pool2d(inputs[0], self.size, self.strides, padding="SAME")

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`MAX_POOL_2D`; an activation after it stays an operator of its own."""
        lower_pool(graph, node, "MAX_POOL_2D", self.size, self.strides)
