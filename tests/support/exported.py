"""One tiny trained-looking network, and its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
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


def tiny_spec(channels: int = 1) -> NetworkSpec:
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
        (12, 12, channels),
        {},
    )
