"""What Keras' layers become in an int8 file, by the converter in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_edge.export.convert import run_converter

L = keras.layers
SIDE, CHANNELS = 8, 8
MASK = np.array([1, 1, 1, 1, 0, 0, 0, 0], np.float32)


class Apply(L.Layer):  # type: ignore[misc] # Keras has no types
    """A layer that applies a function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self._function = function

    def call(self, images: Any) -> Any:
        return self._function(images)


def _batch_norm() -> Any:
    """One whose factors differ from channel to channel, as after training."""
    return L.BatchNormalization(gamma_initializer=keras.initializers.RandomUniform(0.5, 1.5, seed=0))


def _shuffled(images: Any) -> Any:
    groups = tf.reshape(images, [-1, SIDE, SIDE, 2, CHANNELS // 2])
    return tf.reshape(tf.transpose(groups, [0, 1, 2, 4, 3]), [-1, SIDE, SIDE, CHANNELS])


# Layers after a convolution.
CONSTRUCTS: Mapping[str, Callable[[], Sequence[Any]]] = {
    "relu": lambda: [L.ReLU()],
    "relu6": lambda: [L.ReLU(6.0)],
    "hard swish": lambda: [L.Activation("hard_swish")],
    "hard sigmoid": lambda: [L.Activation("hard_sigmoid")],
    "swish": lambda: [L.Activation("swish")],
    "sigmoid": lambda: [L.Activation("sigmoid")],
    "tanh": lambda: [L.Activation("tanh")],
    "gelu": lambda: [L.Activation("gelu")],
    "elu": lambda: [L.ELU()],
    "leaky relu": lambda: [L.LeakyReLU()],
    "prelu, a slope per channel": lambda: [L.PReLU(shared_axes=[1, 2])],
    "softplus": lambda: [L.Activation("softplus")],
    "batch norm": lambda: [_batch_norm()],
    "batch norm after relu": lambda: [L.ReLU(), _batch_norm()],
    "layer norm": lambda: [L.LayerNormalization()],
    "rms norm": lambda: [L.RMSNormalization()],
    "group norm": lambda: [L.GroupNormalization(4)],
    "nearest up-sampling": lambda: [L.UpSampling2D(2)],
    "bilinear up-sampling": lambda: [L.UpSampling2D(2, interpolation="bilinear")],
    "nearest resizing": lambda: [L.Resizing(12, 12, interpolation="nearest")],
    "mask": lambda: [Apply(lambda images: images * MASK)],
    "mask after relu": lambda: [L.ReLU(), Apply(lambda images: images * MASK)],
    "global average pooling": lambda: [L.GlobalAveragePooling2D()],
    "global max pooling": lambda: [L.GlobalMaxPooling2D()],
    "average pooling": lambda: [L.AveragePooling2D(2)],
    "max pooling": lambda: [L.MaxPooling2D(2)],
    "dense on a vector": lambda: [L.Flatten(), L.Dense(4)],
    "dense on an image": lambda: [L.Dense(4)],
    "softmax": lambda: [L.GlobalAveragePooling2D(), L.Softmax()],
    "depthwise convolution": lambda: [L.DepthwiseConv2D(3)],
    "grouped convolution": lambda: [L.Conv2D(CHANNELS, 3, groups=2)],
    "transposed convolution": lambda: [L.Conv2DTranspose(CHANNELS, 3, strides=2, padding="same")],
    "3-D convolution": lambda: [L.Reshape((4, 4, 4, CHANNELS)), L.Conv3D(CHANNELS, 3)],
    "zero padding": lambda: [L.ZeroPadding2D(1)],
    "cropping": lambda: [L.Cropping2D(1)],
    "channel shuffle": lambda: [Apply(_shuffled)],
    "self-attention": lambda: [
        L.Reshape((SIDE * SIDE, CHANNELS)),
        Apply(lambda x: tf.matmul(tf.nn.softmax(tf.matmul(x, x, transpose_b=True)), x)),
    ],
    "dropout": lambda: [L.Dropout(0.5)],
}


def network(layers: Sequence[Any]) -> keras.Model:
    """A convolution, then the layers."""
    image = current = keras.Input((SIDE, SIDE, CHANNELS))
    for layer in (L.Conv2D(CHANNELS, 3, padding="same"), *layers):
        current = layer(current)
    return keras.Model(image, current)


def int8_file(model: keras.Model, batch: int | None = 1) -> bytes:
    """The model by the converter, all operators that can be int8 ones; with a batch of any size where it is None."""
    shape = tuple(model.inputs[0].shape[1:])
    images = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)

    def integer(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    if batch is not None:
        return run_converter(model, integer)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    integer(converter)
    return bytes(converter.convert())
