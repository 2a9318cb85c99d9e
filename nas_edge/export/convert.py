"""Converts a Keras model to a TFLite file with TensorFlow's converter, for delivery.

Search candidates, whose weights do not matter, are written directly by `networks.tflite_model` in milliseconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from nas_edge.errors import DataError, ExportError
from nas_edge.quiet import held_stderr

_ERROR_LINES = 3


def float32_tflite(model: keras.Model) -> bytes:
    """Converts a model to a float32 TFLite file with a fixed batch of one.

    Args:
        model: one input `[batch, height, width, channels]`, one output.

    Returns:
        The file, with signature `serving_default` from `input` to `output_0`.

    Raises:
        ExportError: when the converter cannot convert the model.
    """
    return run_converter(model)


def run_converter(model: keras.Model, configure: Callable[[Any], None] | None = None) -> bytes:
    """Runs TensorFlow's converter without its log output.

    The file holds the model at inference, with its batch fixed to one: with a dynamic batch it would contain shape
    arithmetic that directly written files do not have.

    Args:
        model: one input, one output.
        configure: configures the `tf.lite.TFLiteConverter` before it runs.

    Raises:
        ExportError: with the last lines of its output, when it fails.
    """
    with held_stderr() as printed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            converter = _converter(model)
            if configure is not None:
                configure(converter)
            return bytes(converter.convert())
        except DataError:  # of representative images
            raise
        except Exception as e:  # The converter raises a dozen types, `Exception` itself among them.
            lines = [line for line in f"{printed()}\n{e}".splitlines() if line.strip()]
            raise ExportError(f"the TFLite converter failed: {' | '.join(lines[-_ERROR_LINES:])}") from e


def _converter(model: keras.Model) -> Any:
    # The converter does not calibrate a model that reads Keras 3 variables, hence the freezing.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec([1, *model.inputs[0].shape[1:]], tf.float32, name="input")
    function = tf.function(lambda images: model(images, training=False), input_signature=[signature])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    # Without some trackable object the file gets no signature; with the model itself it takes four times longer.
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module())
