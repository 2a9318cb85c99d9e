"""Elastic Keras layers: weights at maximum width, run at the active width.

Each layer does the same mathematics in two ways:

* `sliced` computes only the active channels; widths enter as tensors, so one compiled function serves every
  architecture. For CPU and GPU.
* `masked` computes all channels and zeroes the inactive ones, as TuNAS publishes it. Static shapes, for XLA and TPU.

Batch norm uses the statistics of the batch, in training and validation alike, and keeps no moving averages.

Source: TuNAS reference code, `rematlib/layers.py`; US11347995.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from nas_edge.networks import layers as L
from nas_edge.networks.keras_model import depthwise_he_normal

Execution: TypeAlias = Literal["sliced", "masked"]
EXECUTIONS: tuple[Execution, ...] = ("sliced", "masked")

Tensor: TypeAlias = Any


def channel_mask(active: Tensor, total: int) -> Tensor:
    """1 for the first `active` of `total` channels, 0 for the rest. Shape `[total]`, float32."""
    return tf.cast(tf.range(total) < active, tf.float32)


# The layers own the variables; `run` takes their values as arguments, because layers of the same form share one traced
# function (see supernet.py).


class ElasticConv2D(keras.layers.Layer):  # type: ignore[misc]
    """A convolution of which the first input and output channels are active.

    Args:
        layer: its kernel size, stride, bias and initialiser.
        max_in: most input channels.
        max_out: most output channels.
        seed: of the initialiser.
    """

    def __init__(self, layer: L.Conv2D, max_in: int, max_out: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        initializer: Any = (
            keras.initializers.HeNormal(seed=seed)
            if layer.kernel_init == "he_normal"
            else keras.initializers.RandomNormal(stddev=0.01, seed=seed)
        )
        size = layer.kernel_size
        self.kernel = self.add_weight(shape=(size, size, max_in, max_out), initializer=initializer, name="kernel")
        self.bias = self.add_weight(shape=(max_out,), initializer="zeros", name="bias") if layer.use_bias else None

    @staticmethod
    def run(
        layer: L.Conv2D,
        weights: tuple[Tensor, ...],
        inputs: Tensor,
        in_channels: Tensor,
        out_channels: Tensor,
        execution: Execution,
    ) -> tuple[Tensor, Tensor]:
        """Convolves.

        Args:
            layer: the template layer.
            weights: kernel `[k, k, most in, most out]` and, with a bias, bias `[most out]`.
            inputs: `[batch, height, width, in]`: the active channels when sliced, all of them when masked.
            in_channels: active input channels, scalar int32.
            out_channels: active output channels, scalar int32.
            execution: `sliced` or `masked`.

        Returns:
            Outputs `[batch, ceil(height / strides), ceil(width / strides), out]`, likewise, and half the sum of
            squares of the active kernel (zero when it is not regularised).
        """
        kernel = weights[0]
        if execution == "sliced":
            kernel = kernel[:, :, :in_channels, :out_channels]
            biases = [bias[:out_channels] for bias in weights[1:]]
        else:
            mask = channel_mask(out_channels, kernel.shape[-1])
            kernel *= channel_mask(in_channels, kernel.shape[-2])[:, None] * mask
            biases = [bias * mask for bias in weights[1:]]
        outputs = tf.nn.conv2d(inputs, kernel, strides=layer.strides, padding="SAME")
        for bias in biases:
            outputs = tf.nn.bias_add(outputs, bias)
        return outputs, tf.nn.l2_loss(kernel) if layer.regularized else tf.zeros([])

    def active_weights(self, in_channels: int, out_channels: int) -> tuple[Any, ...]:
        """The weights a stand-alone network of these widths has, as NumPy arrays."""
        kernel = self.kernel.numpy()[:, :, :in_channels, :out_channels]
        return (kernel,) if self.bias is None else (kernel, self.bias.numpy()[:out_channels])


class ElasticDepthwiseConv2D(keras.layers.Layer):  # type: ignore[misc]
    """A depthwise convolution of which the first channels are active."""

    def __init__(self, layer: L.DepthwiseConv2D, max_channels: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        size = layer.kernel_size
        self.kernel = self.add_weight(
            shape=(size, size, max_channels, 1), initializer=depthwise_he_normal(size, seed), name="kernel"
        )

    @staticmethod
    def run(
        layer: L.DepthwiseConv2D, weights: tuple[Tensor, ...], inputs: Tensor, channels: Tensor, execution: Execution
    ) -> tuple[Tensor, Tensor]:
        """Convolves each channel; arguments and results as for `ElasticConv2D.run`, kernel `[k, k, most, 1]`."""
        kernel = weights[0]
        if execution == "sliced":
            kernel = kernel[:, :, :channels, :]
        else:
            kernel *= channel_mask(channels, kernel.shape[-2])[:, None]
        strides = [1, layer.strides, layer.strides, 1]
        return tf.nn.depthwise_conv2d(inputs, kernel, strides=strides, padding="SAME"), tf.nn.l2_loss(kernel)

    def active_weights(self, channels: int) -> tuple[Any, ...]:
        """The kernel a stand-alone network of this width has."""
        return (self.kernel.numpy()[:, :, :channels, :],)


class ElasticBatchNorm(keras.layers.Layer):  # type: ignore[misc]
    """Batch norm over the batch's own statistics, with the first channels active."""

    def __init__(self, max_channels: int, name: str) -> None:
        super().__init__(name=name)
        self.gamma = self.add_weight(shape=(max_channels,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(max_channels,), initializer="zeros", name="beta")

    @staticmethod
    def run(weights: tuple[Tensor, ...], inputs: Tensor, channels: Tensor, execution: Execution) -> Tensor:
        """The normalised inputs; `weights` are gamma and beta, each `[most channels]`."""
        gamma, beta = weights
        if execution == "sliced":
            gamma, beta = gamma[:channels], beta[:channels]
        outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=L.BATCH_NORM_EPSILON, is_training=True
        )
        if execution == "masked":
            outputs *= channel_mask(channels, gamma.shape[-1])  # beta would otherwise revive dead channels
        return outputs

    def active_weights(self, channels: int) -> tuple[Any, ...]:
        """Gamma and beta, with the statistics of an untrained layer: re-estimate them before use."""
        gamma, beta = self.gamma.numpy()[:channels], self.beta.numpy()[:channels]
        return gamma, beta, beta * 0.0, beta * 0.0 + 1.0


ElasticLayer: TypeAlias = ElasticConv2D | ElasticDepthwiseConv2D | ElasticBatchNorm


def activation(function: L.ActivationName, inputs: Tensor) -> Tensor:
    """The activation functions of `layers.Activation`."""
    if function == "relu":
        return tf.nn.relu(inputs)
    if function == "relu6":
        return tf.nn.relu6(inputs)
    if function == "sigmoid":
        return tf.nn.sigmoid(inputs)
    return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)
