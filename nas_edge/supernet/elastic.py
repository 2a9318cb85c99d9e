"""Elastic layers: weights at maximum width, run at the active width.

Every primitive does the same mathematics (`Primitive.run`) with the weights of either of two kinds:

* `sliced` has only the active channels; widths enter as tensors, so one compiled function serves every architecture.
  For CPU and GPU.
* `masked` has all channels and zeroes the inactive ones, as TuNAS publishes it. Static shapes, for XLA and TPU.

Source: TuNAS reference code, `rematlib/layers.py`; US11347995.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from nas_edge.networks.primitives import IN, OUT, Primitive, Weight

Execution: TypeAlias = Literal["sliced", "masked"]
EXECUTIONS: tuple[Execution, ...] = ("sliced", "masked")

Tensor: TypeAlias = Any


def channel_mask(active: Tensor, total: int) -> Tensor:
    """1 for the first `active` of `total` channels, 0 for the rest. Shape `[total]`, float32."""
    return tf.cast(tf.range(total) < active, tf.float32)


class ElasticLayer(keras.layers.Layer):  # type: ignore[misc]
    """The trainable weights of a primitive, of which the first channels are active.

    It owns the variables; `run_elastic` takes their values as arguments, because layers of the same form share one
    traced function (see supernet.py).

    Args:
        layer: the template layer.
        max_in: most input channels.
        max_out: most output channels.
        seed: of the initialisers.
        name: its path in the template.
    """

    def __init__(self, layer: Primitive, max_in: int, max_out: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        self.primitive = layer
        for weight in trainable_weights(layer):
            self.add_weight(
                shape=weight.shape_for(max_in, max_out), initializer=_initializer(weight, seed), name=weight.name
            )

    def active_weights(self, in_channels: int, out_channels: int) -> tuple[Any, ...]:
        """All weights of a stand-alone network with these channels, as NumPy arrays.

        Those that are not trained are as in an untrained layer; re-estimate them before use.
        """
        values = {variable.name: variable for variable in self.weights}
        arrays = []
        for weight in self.primitive.weights():
            if weight.trainable:
                arrays.append(values[weight.name].numpy()[active_index(weight, in_channels, out_channels)])
            else:
                shape = weight.shape_for(in_channels, out_channels)
                arrays.append(keras.initializers.get(_initializer(weight, seed=0))(shape).numpy())
        return tuple(arrays)


def trainable_weights(layer: Primitive) -> list[Weight]:
    """The weights that the supernet holds."""
    return [weight for weight in layer.weights() if weight.trainable]


def run_elastic(
    layer: Primitive,
    weights: tuple[Tensor, ...],
    inputs: Tensor,
    in_channels: Tensor,
    out_channels: Tensor,
    execution: Execution,
) -> tuple[Tensor, Tensor]:
    """Runs a primitive at its active width.

    Args:
        layer: the template layer.
        weights: values of its trainable weights: their active parts when sliced, at maximum width when masked.
        inputs: `[batch, height, width, in]`: the active channels when sliced, all of them when masked.
        in_channels: active input channels, scalar int32.
        out_channels: active output channels, scalar int32.
        execution: `sliced` or `masked`.

    Returns:
        Outputs `[batch, height, width, out]`, likewise, and half the sum of squares of the active weights under weight
        decay, scalar.
    """
    penalty = tf.zeros([])
    active = []
    for weight, value in zip(trainable_weights(layer), weights, strict=True):
        if execution == "masked" and not layer.masks_output:
            value = _masked(weight, value, in_channels, out_channels)
        if weight.regularized:
            penalty += tf.nn.l2_loss(value)
        active.append(value if layer.float32_weights else tf.cast(value, inputs.dtype))
    outputs = layer.run(tuple(active), inputs)
    if execution == "masked" and layer.masks_output:
        outputs *= tf.cast(channel_mask(out_channels, outputs.shape[-1]), outputs.dtype)
    return outputs, penalty


def _initializer(weight: Weight, seed: int) -> Any:
    return weight.initializer(seed) if callable(weight.initializer) else weight.initializer


def active_index(weight: Weight, in_channels: Any, out_channels: Any) -> tuple[slice, ...]:
    """Where a weight's active part is: the first channels of each elastic axis."""
    channels = {IN: in_channels, OUT: out_channels}
    return tuple(slice(None if isinstance(size, int) else channels[size]) for size in weight.shape)


def _masked(weight: Weight, value: Tensor, in_channels: Tensor, out_channels: Tensor) -> Tensor:
    """The weight, zero where its channels are inactive."""
    channels = {IN: in_channels, OUT: out_channels}
    for axis, size in enumerate(weight.shape):
        if not isinstance(size, int):
            shape = [-1 if i == axis else 1 for i in range(len(weight.shape))]
            value = value * tf.reshape(channel_mask(channels[size], value.shape[axis]), shape)
    return value
