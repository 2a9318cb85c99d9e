"""The convolution."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from nas_edge.networks.open_values import Width
from nas_edge.networks.primitives.base import IN, OUT, Primitive, Shape, Tensor, Weight, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph

CLASSIFIER_STDDEV = 0.01


@dataclass(frozen=True)
class Conv2D(Primitive):
    """A convolution. Weights: kernel `[k, k, in, out]`, then bias `[out]` when `use_bias`.

    Attributes:
        filters: output channels.
        kernel_size: side of the square kernel.
        strides: step in both directions.
        use_bias: whether a bias is added.
        kernel_init: `he_normal`, or `classifier` for a normal of standard deviation 0.01.
        regularized: whether weight decay applies to the kernel.
    """

    filters: Width
    kernel_size: int = 1
    strides: int = 1
    use_bias: bool = False
    kernel_init: Literal["he_normal", "classifier"] = "he_normal"
    regularized: bool = True

    width_field = "filters"
    training_only = frozenset({"kernel_init", "regularized"})

    def output_shape(self, *inputs: Shape) -> Shape:
        """`[ceil(height / strides), ceil(width / strides), filters]`."""
        height, width, _ = image_shape(self, inputs[0])
        if not isinstance(self.filters, int):
            raise ValueError(f"the filter count is still open ({self.filters!r}); decode it first")
        return (-(-height // self.strides), -(-width // self.strides), self.filters)

    def macs(self, in_channels: int, output: Shape) -> int:
        """`k * k * in` per output value."""
        return prod(output) * self.kernel_size**2 * in_channels

    def weights(self) -> tuple[Weight, ...]:
        """Kernel and, where there is one, bias."""
        shape = (self.kernel_size, self.kernel_size, IN, OUT)
        kernel = Weight("kernel", shape, self._initializer, regularized=self.regularized)
        return (kernel, Weight("bias", (OUT,))) if self.use_bias else (kernel,)

    def _initializer(self, seed: int) -> Any:
        import keras

        if self.kernel_init == "classifier":
            return keras.initializers.RandomNormal(stddev=CLASSIFIER_STDDEV, seed=seed)
        return keras.initializers.HeNormal(seed=seed)

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Conv2D`."""
        import keras

        return keras.layers.Conv2D(
            self.filters,
            self.kernel_size,
            self.strides,
            padding="same",
            use_bias=self.use_bias,
            kernel_initializer=self._initializer(seed),
            name=name,
        )

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Convolves."""
        import tensorflow as tf

        kernel, *biases = weights
        outputs = tf.nn.conv2d(inputs[0], kernel, strides=self.strides, padding="SAME")
        for bias in biases:
            outputs = tf.nn.bias_add(outputs, bias)
        return outputs

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`CONV_2D`, kernel `[out, k, k, in]`."""
        source, size = graph.tensors[node.inputs[0]], self.kernel_size
        graph.add_with_kernel(
            "CONV_2D",
            node,
            kernel_shape=(node.shape[-1], size, size, source.shape[-1]),
            channel_axis=0,
            kernel_axes=(3, 0, 1, 2),
            options=("Conv2DOptions", {"strideW": self.strides, "strideH": self.strides}),
            int8_version=3,
        )
