"""Full-integer post-training quantisation: int8 weights, activations, input and output.

Weights are quantised per output channel, activations per tensor with the ranges seen on a representative set
(Jacob et al., 2018, arXiv:1712.05877).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_edge.errors import DataError
from nas_edge.export.convert import run_converter
from nas_edge.export.verify import check_int8


def int8_tflite(model: keras.Model, representative: Callable[[], Iterable[np.ndarray[Any, Any]]]) -> bytes:
    """Converts a model to a TFLite file with integer operators only and a fixed batch of one.

    Args:
        model: one input `[batch, height, width, channels]`, one output.
        representative: reads batches, float32 `[n, height, width, channels]`, of training images preprocessed as at
            inference; up to a few hundred images suffice.

    Returns:
        The file, with signature `serving_default` from `input` to `output_0`, both int8.

    Raises:
        DataError: when the representative images do not fit the model, or contain NaN or infinity.
        ExportError: when the converter fails, or the file still has a float operator.
    """
    expected = tuple(model.inputs[0].shape[1:])

    def images() -> Iterator[list[np.ndarray[Any, Any]]]:
        for batch in representative():
            if batch.ndim != 4 or len(batch) == 0 or batch.shape[1:] != expected:
                raise DataError(
                    "the representative images have the wrong shape",
                    expected=f"[n, {', '.join(map(str, expected))}] with n >= 1",
                    received=f"{list(batch.shape)}",
                )
            if not np.isfinite(batch).all():
                raise DataError("representative images contain NaN or infinity")
            yield from ([image[None].astype(np.float32)] for image in batch)

    def full_integer(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = images
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    file = run_converter(model, full_integer)
    check_int8(file)
    return file
