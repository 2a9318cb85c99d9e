"""The Keras model of a network that computes as its int8 file does, in float: what quantisation-aware training trains.

Every operator of the int8 file (`tflite_graph`) becomes one step: batch norm folded into the kernel by its frozen
statistics, the kernel rounded per output channel, symmetrically, and the output rounded to the 256 values of a range
that follows the batches as a moving average. Rounding passes gradients on unchanged (Jacob et al., 2018,
arXiv:1712.05877). `tflite_model` writes the same roundings into the file, so the two agree to within a few steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_edge.networks.graph import INPUT, NetworkSpec, Node, Ranges, Weights, ranges_of
from nas_edge.networks.primitives.batch_norm import BATCH_NORM_EPSILON
from nas_edge.networks.tflite_graph import Operator, TFLiteGraph

# Share of the range so far that a batch leaves in place.
RANGE_MOMENTUM = 0.99

# Ranges below this count as zero, as in the converter.
_NEAR_ZERO = 1e-6


def fake_quant_model(spec: NetworkSpec, weights: Weights) -> keras.Model:
    """Builds the model. Layers with a kernel are named like their nodes.

    Args:
        spec: the network.
        weights: arrays by node name. Ranges that they keep are taken over; without any, call `observe_ranges` first.

    Returns:
        A model from `[batch, height, width, channels]` to the output of the last node, dequantised. Dropout is left
        out: what is trained is close to its end.

    Raises:
        ValueError: for a layer whose weights are not those of a convolution or a batch norm behind one.
    """
    graph, ranges = TFLiteGraph(spec), ranges_of(weights)
    last = {node.name: operator for operator in graph.operators for node in operator.nodes}
    image = keras.Input(spec.input_shape, name=INPUT)
    values = {INPUT: _Range(INPUT, ranges.get(INPUT))(image)}
    for node in spec.nodes:
        operator = last.get(node.name)
        inputs = [values[name] for name in node.inputs]
        if operator is None or operator.normalization is node:  # nothing to compute at inference, or folded
            values[node.name] = inputs[0]
        elif operator.kernel_axes is not None and operator.nodes[0] is node:
            values[node.name] = _Convolution(operator, weights)(inputs[0])
        elif node.layer.weights():
            raise ValueError(f"{node.name}: {type(node.layer).__name__} cannot be trained quantisation-aware")
        else:
            values[node.name] = _Function(node)(inputs)
        if operator is None or operator.nodes[-1] is not node:
            continue
        if operator.output not in graph.shared_ranges:  # others are rounded where they come together
            values[node.name] = _rounded(operator, values[node.name], ranges)
    return keras.Model(image, values[spec.nodes[-1].name], name="network")


def _rounded(operator: Operator, values: Any, ranges: Ranges) -> Any:
    if operator.int8_scale == "input":
        return values
    name = operator.output.name
    if operator.int8_scale is None:
        return _Range(name, ranges.get(name))(values)
    scale, zero_point = operator.int8_scale
    return _Range(name, (scale * (-128 - zero_point), scale * (127 - zero_point)), fixed=True)(values)


def observe_ranges(model: keras.Model, batches: Iterable[np.ndarray[Any, Any]]) -> None:
    """Sets every range to the least and the greatest value in some batches, without rounding any of them.

    Args:
        model: of `fake_quant_model`; changed in place.
        batches: images as they are at inference; a few hundred suffice.
    """
    ranges = _ranges(model)
    for layer in ranges:
        layer.start_observing()
    signature = tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32)
    run = tf.function(lambda images: model(images, training=False), input_signature=[signature])
    try:
        for images in batches:
            run(tf.constant(images, tf.float32))
    finally:
        for layer in ranges:
            layer.observing = False


def learned(model: keras.Model, spec: NetworkSpec) -> tuple[Weights, Ranges]:
    """The weights of the network, batch norm apart as in `keras_model`, and the range of every rounded output."""
    arrays: dict[str, tuple[np.ndarray[Any, Any], ...]] = {}
    for layer in model.layers:
        if isinstance(layer, _Convolution):
            arrays |= layer.arrays()
    ordered = {node.name: arrays[node.name] for node in spec.nodes if node.name in arrays}
    return ordered, {layer.tensor: layer.limits() for layer in _ranges(model) if not layer.fixed}


def _ranges(model: keras.Model) -> list[_Range]:
    return [layer for layer in model.layers if isinstance(layer, _Range)]


class _Convolution(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """An operator with a kernel, and the batch norm that is folded into it; no activation."""

    def __init__(self, operator: Operator, weights: Weights) -> None:
        node, norm = operator.nodes[0], operator.normalization
        super().__init__(name=node.name)
        assert operator.kernel_axes is not None
        self._node, self._norm = node, norm
        self._channel_axis = operator.kernel_axes[operator.inputs[1].channel_axis]
        self.kernel, *self._biases = (
            self._variable(weight.name, array, weight.trainable)
            for weight, array in zip(node.layer.weights(), weights[node.name], strict=True)
        )
        self._statistics = [
            self._variable(weight.name, array, weight.trainable)
            for weight, array in (() if norm is None else zip(norm.layer.weights(), weights[norm.name], strict=True))
        ]
        self.built = True

    def _variable(self, name: str, value: np.ndarray[Any, Any], trainable: bool) -> Any:
        variable = self.add_weight(shape=value.shape, initializer="zeros", name=name, trainable=trainable)
        variable.assign(value)
        return variable

    def call(self, inputs: Any) -> Any:
        kernel, offset = tf.convert_to_tensor(self.kernel), 0.0
        if self._biases:
            offset = tf.convert_to_tensor(self._biases[0])
        if self._statistics:
            gamma, beta, mean, variance = map(tf.convert_to_tensor, self._statistics)
            factor = gamma * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
            kernel *= tf.reshape(factor, [-1 if axis == self._channel_axis else 1 for axis in range(len(kernel.shape))])
            offset = offset * factor + (beta - mean * factor)
        kernel = _rounded_kernel(kernel, self._channel_axis)
        if self._biases:
            return self._node.layer.run((kernel, offset), inputs)
        return self._node.layer.run((kernel,), inputs) + offset

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], *self._node.shape)

    def arrays(self) -> Mapping[str, tuple[np.ndarray[Any, Any], ...]]:
        """By node, as `keras_model.get_weights` has them."""
        found = {self._node.name: (self.kernel.numpy(), *(bias.numpy() for bias in self._biases))}
        if self._norm is not None:
            found[self._norm.name] = tuple(variable.numpy() for variable in self._statistics)
        return found


def _rounded_kernel(kernel: Any, channel_axis: int) -> Any:
    """A kernel rounded to 255 values per output channel, zero in the middle of them."""
    axes = [axis for axis in range(len(kernel.shape)) if axis != channel_axis]
    largest = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(kernel), axes), _NEAR_ZERO / 2))
    there = [*axes, channel_axis]
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.transpose(kernel, there), -largest, largest, narrow_range=True
    )
    return tf.transpose(rounded, np.argsort(there))


class _Function(keras.layers.Layer):  # type: ignore[misc]
    """A node without weights."""

    def __init__(self, node: Node) -> None:
        super().__init__(name=node.name)
        self._node = node
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self._node.layer.run((), *inputs)

    def compute_output_shape(self, shapes: Any) -> Any:
        return (shapes[0][0], *self._node.shape)


class _Range(keras.layers.Layer):  # type: ignore[misc]
    """Rounds to 256 values of a range that contains zero.

    Args:
        tensor: whose values they are.
        limits: the range; None until it was observed.
        fixed: whether the int8 operator accepts no other.
    """

    def __init__(self, tensor: str, limits: tuple[float, float] | None, fixed: bool = False) -> None:
        super().__init__(name=f"{tensor}.range")
        self.tensor, self.fixed, self.observing = tensor, fixed, False
        low, high = limits or (0.0, 0.0)
        constant = keras.initializers.Constant
        self._low = self.add_weight(shape=(), initializer=constant(low), name="low", trainable=False)
        self._high = self.add_weight(shape=(), initializer=constant(high), name="high", trainable=False)
        self.built = True

    def start_observing(self) -> None:
        """From now on, values widen the range and are not rounded."""
        if not self.fixed:
            self.observing = True
            self._low.assign(0.0)
            self._high.assign(0.0)

    def limits(self) -> tuple[float, float]:
        return float(self._low.numpy()), float(self._high.numpy())

    def call(self, values: Any, training: bool = False) -> Any:
        if self.observing:
            self._low.assign(tf.minimum(self._low, tf.reduce_min(values)))
            self._high.assign(tf.maximum(self._high, tf.reduce_max(values)))
            return values
        if training and not self.fixed:
            for variable, batch in ((self._low, tf.reduce_min(values)), (self._high, tf.reduce_max(values))):
                outer = tf.minimum(batch, 0.0) if variable is self._low else tf.maximum(batch, 0.0)
                variable.assign(RANGE_MOMENTUM * variable + (1 - RANGE_MOMENTUM) * tf.stop_gradient(outer))
        low, high = tf.convert_to_tensor(self._low), tf.convert_to_tensor(self._high)
        return tf.quantization.fake_quant_with_min_max_vars(values, low, tf.maximum(high, low + _NEAR_ZERO))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape
