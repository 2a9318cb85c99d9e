"""One tiny trained-looking network, converted once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_edge.export.convert import float32_tflite, run_converter
from nas_edge.export.quantize import int8_tflite
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.keras_model import keras_model
from nas_edge.networks.template import decode

LABELS = ("cat", "dog", "Größe 3")


@dataclass(frozen=True)
class Exported:
    spec: NetworkSpec
    model: keras.Model
    images: np.ndarray[Any, Any]
    float32: bytes
    int8: bytes
    mixed: bytes  # integer operators, float input and output


def tiny_spec() -> NetworkSpec:
    gate = L.sequential(
        pool=L.GlobalAveragePool(),
        reduce=L.Conv2D(4, use_bias=True),
        act=L.Activation("relu"),
        expand=L.Conv2D(8, use_bias=True),
        gate=L.Activation("sigmoid"),
    )
    return decode(
        L.sequential(
            conv=L.Conv2D(8, 3, 2),
            norm=L.BatchNorm(),
            act=L.Activation("hard_swish"),
            residual=L.Residual(
                L.sequential(depthwise=L.DepthwiseConv2D(3), norm=L.BatchNorm(), act=L.Activation("relu"))
            ),
            gate=L.Gate(gate),
            head=L.Conv2D(8, use_bias=True),
            head_act=L.Activation("hard_swish"),
            pool=L.GlobalAveragePool(),
            dropout=L.Dropout(0.2),
            logits=L.Conv2D(len(LABELS), use_bias=True),
            flatten=L.Flatten(),
        ),
        (12, 12, 1),
        {},
    )


@pytest.fixture(scope="session")
def exported() -> Exported:
    spec = tiny_spec()
    model = keras_model(spec, seed=1)
    images = np.random.default_rng(0).normal(size=(64, 12, 12, 1)).astype(np.float32)

    def integer_inside(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)

    mixed = run_converter(model, integer_inside)
    return Exported(spec, model, images, float32_tflite(model), int8_tflite(model, images), mixed)
