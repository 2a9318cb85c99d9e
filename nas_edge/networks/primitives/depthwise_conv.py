"""The depthwise convolution."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import OUT, Primitive, Shape, Tensor, Weight, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class DepthwiseConv2D(Primitive):
    """A depthwise convolution without bias. Weights: kernel `[k, k, channels, 1]`."""

    kernel_size: int
    strides: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        """`[ceil(height / strides), ceil(width / strides), channels]`."""
        height, width, channels = image_shape(self, inputs[0])
        return (-(-height // self.strides), -(-width // self.strides), channels)

    def macs(self, in_channels: int, output: Shape) -> int:
        """`k * k` per output value."""
        return prod(output) * self.kernel_size**2

    def weights(self) -> tuple[Weight, ...]:
        """The kernel."""
        shape = (self.kernel_size, self.kernel_size, OUT, 1)
        return (Weight("kernel", shape, self._initializer, regularized=True),)

    def _initializer(self, seed: int) -> Any:
        from nas_edge.networks.keras_functions import depthwise_he_normal

        return depthwise_he_normal(self.kernel_size, seed)

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.DepthwiseConv2D`."""
        import keras

        return keras.layers.DepthwiseConv2D(
            self.kernel_size,
            self.strides,
            padding="same",
            use_bias=False,
            depthwise_initializer=self._initializer(seed),
            name=name,
        )

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Convolves each channel."""
        import tensorflow as tf

        strides = [1, self.strides, self.strides, 1]
        return tf.nn.depthwise_conv2d(inputs[0], weights[0], strides=strides, padding="SAME")

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`DEPTHWISE_CONV_2D`, kernel `[1, k, k, channels]`."""
        graph.add_with_kernel(
            "DEPTHWISE_CONV_2D",
            node,
            kernel_shape=(1, self.kernel_size, self.kernel_size, node.shape[-1]),
            channel_axis=3,
            kernel_axes=(3, 0, 1, 2),
            options=(
                "DepthwiseConv2DOptions",
                {"strideW": self.strides, "strideH": self.strides, "depthMultiplier": 1},
            ),
            int8_version=3,
        )
