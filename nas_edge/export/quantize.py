"""Post-training conversion to any precision of the table (`networks.precisions`).

Where activations become integers, weights are quantised per output channel, and activations per tensor with the ranges
seen on a representative set (Jacob et al., 2018, arXiv:1712.05877).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_edge.errors import DataError
from nas_edge.export.convert import run_converter
from nas_edge.export.verify import check_precision
from nas_edge.networks.flatbuffer import compacted
from nas_edge.networks.precisions import PRECISIONS, Precision


def quantized_tflite(
    model: keras.Model, precision: Precision, representative: Callable[[], Iterable[np.ndarray[Any, Any]]]
) -> bytes:
    """Converts a model to a TFLite file with a fixed batch of one.

    Args:
        model: one input `[batch, height, width, channels]`, one output.
        precision: of the file.
        representative: reads batches, float32 `[n, height, width, channels]`, of training images preprocessed as at
            inference; up to a few hundred images suffice. Read where activations become integers.

    Returns:
        The file, with signature `serving_default` from `input` to `output_0`, of the types that the precision says.

    Raises:
        DataError: when the representative images do not fit the model, or contain NaN or infinity.
        ExportError: when the converter fails, or the file has an operator of another type than the precision's.
    """
    types, expected = PRECISIONS[precision], tuple(model.inputs[0].shape[1:])

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

    def configure(converter: Any) -> None:
        if types.weights != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if types.weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if types.calibrated:
            converter.representative_dataset = images
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(types.io)
        if types.operator_set:
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, types.operator_set)]

    file = run_converter(model, configure)
    if types.weights == "int8":
        file = compacted(file)
    check_precision(file, precision)
    return file
