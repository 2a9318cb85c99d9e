"""An int8 file in which some layers stay float32, to say what that gains and costs.

TensorFlow's converter does it: it calibrates once, and then quantises all but the layers that are named. The recipes of
ai-edge-quantizer (0.10) name layers likewise, but its ranges of activations lose more than such layers give back;
docs/quantization.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_edge.errors import ExportError
from nas_edge.export.convert import run_converter
from nas_edge.formatting import reason
from nas_edge.networks.flatbuffer import compacted
from nas_edge.quiet import held_stderr


def mixed_tflite(
    model: keras.Model, layers: Sequence[str], representative: Callable[[], Iterable[np.ndarray[Any, Any]]]
) -> bytes:
    """Converts a model to a TFLite file with int8 input and output, whose named layers compute in float32.

    Args:
        model: one input `[batch, height, width, channels]`, one output.
        layers: names of what operators write in the float32 file of the same model.
        representative: see `quantize.quantized_tflite`.

    Raises:
        ExportError: when the converter fails.
    """
    # The converter's own API for this, QuantizationDebugger, makes files with float input and output only.
    from tensorflow.lite.python.convert import mlir_quantize

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [image[None].astype(np.float32)] for batch in representative() for image in batch
        )
        converter._experimental_calibrate_only = True

    calibrated = run_converter(model, configure)
    with held_stderr():
        try:
            file = mlir_quantize(
                calibrated, denylisted_nodes=list(layers), input_data_type=tf.int8, output_data_type=tf.int8
            )
        except Exception as error:  # as `run_converter`: of a dozen types
            raise ExportError(f"the converter cannot leave layers in float32: {reason(error)}") from error
    return compacted(bytes(file))
