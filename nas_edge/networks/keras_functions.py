"""Functions and initialisers that Keras layers are made of. They follow the TuNAS reference code."""

from __future__ import annotations

import math
from typing import Any

import keras

# Standard deviation of a unit normal truncated at two standard deviations.
_TRUNCATED_STDDEV = 0.87962566


@keras.saving.register_keras_serializable(package="nas_edge")  # type: ignore[untyped-decorator]  # Keras has no types
def hard_swish(x: Any) -> Any:
    """`x * relu6(x + 3) / 6` (MobileNetV3, arXiv:1905.02244).

    The factors stand in the order in which the TFLite converter recognises one HARD_SWISH operator.
    """
    return x * keras.ops.relu6(x + 3.0) * (1.0 / 6.0)


def depthwise_he_normal(kernel_size: int, seed: int) -> keras.initializers.Initializer:
    """He-normal for a depthwise kernel, whose fan-in is `k * k`; Keras would count the channels as well.

    Source: `rematlib/depthwise_initializers.py`.
    """
    stddev = math.sqrt(2.0) / kernel_size / _TRUNCATED_STDDEV
    return keras.initializers.TruncatedNormal(stddev=stddev, seed=seed)


@keras.saving.register_keras_serializable(package="nas_edge")  # type: ignore[untyped-decorator]
def l2_normalize(x: Any) -> Any:
    """Each vector along the last axis divided by its length, as the TFLite converter recognises L2_NORMALIZATION."""
    import tensorflow as tf

    return tf.nn.l2_normalize(x, axis=-1)


def resize(x: Any, height: int, width: int) -> Any:
    """Bilinear resizing, see `primitives.resize`; `[batch, height, width, channels]`."""
    import tensorflow as tf

    if tuple(x.shape[1:3]) == (height, width):
        return x
    # The kernel gives float32 whatever it reads.
    resized = tf.raw_ops.ResizeBilinear(images=x, size=[height, width], align_corners=False, half_pixel_centers=False)
    return tf.cast(resized, x.dtype)


@keras.saving.register_keras_serializable(package="nas_edge")
class Resizing(keras.layers.Layer):  # type: ignore[misc]
    """`resize` as a layer.

    Args:
        height: of the output.
        width: of the output.
        keywords: of any layer.
    """

    def __init__(self, height: int, width: int, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._size = height, width

    def call(self, inputs: Any) -> Any:
        """Resizes."""
        return resize(inputs, *self._size)

    def compute_output_shape(self, shape: Any) -> Any:
        """Of the output."""
        return (shape[0], *self._size, shape[-1])

    def get_config(self) -> dict[str, Any]:
        """To make it again."""
        return {**super().get_config(), "height": self._size[0], "width": self._size[1]}


def flatten_places(x: Any) -> Any:
    """`[batch, height, width, channels]` to `[batch, height * width, 1, channels]`."""
    import tensorflow as tf

    _, height, width, channels = x.shape
    places = -1 if height is None or width is None else height * width
    batch = tf.shape(x)[0] if places == -1 else -1
    return tf.reshape(x, [batch, places, 1, tf.shape(x)[-1] if channels is None else channels])


@keras.saving.register_keras_serializable(package="nas_edge")
class FlatteningPlaces(keras.layers.Layer):  # type: ignore[misc]
    """`flatten_places` as a layer."""

    def call(self, inputs: Any) -> Any:
        """Reshapes."""
        return flatten_places(inputs)

    def compute_output_shape(self, shape: Any) -> Any:
        """Of the output."""
        return (shape[0], shape[1] * shape[2], 1, shape[3])
