"""One tiny trained-looking network, converted once for all tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nas_edge.export.convert import float32_tflite, run_converter
from nas_edge.export.quantize import quantized_tflite
from nas_edge.networks.keras_model import keras_model
from tests.support.exported import Exported, tiny_spec


@pytest.fixture(scope="session")
def exported() -> Exported:
    spec = tiny_spec()
    model = keras_model(spec, seed=1)
    images = np.random.default_rng(0).normal(size=(64, 12, 12, 1)).astype(np.float32)

    def integer_inside(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)

    mixed = run_converter(model, integer_inside)
    return Exported(
        spec, model, images, float32_tflite(model), quantized_tflite(model, "int8", lambda: [images]), mixed
    )
