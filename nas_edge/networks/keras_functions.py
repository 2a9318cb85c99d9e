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
