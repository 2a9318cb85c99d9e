"""What a model is run on while it is timed: examples in turns where they fit, else random values."""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass
from typing import Any, Mapping

import numpy as np

from .spec import RANDOM_VALUES
from .tensors import Array, random_input

_SEED = 0


@dataclass(frozen=True)
class Examples:
    """Inputs as a float network takes them.

    Attributes:
        values: float32 [examples, ...].
        digest: Tells them from others.
    """

    values: Array
    digest: str

    @classmethod
    def of(cls, values: Array) -> Examples:
        """Returns values with their digest; raises ValueError if there are none, or others than float32."""
        if values.dtype != np.float32 or values.ndim < 2 or not values.size:
            raise ValueError(f"Examples must be float32 [examples, ...]; received {values.dtype} {values.shape}")
        content = hashlib.sha256(str(values.shape).encode() + np.ascontiguousarray(values).tobytes())
        return cls(values, content.hexdigest()[:16])


class FedModel:
    """An interpreter with its tensors allocated, and what it is run on.

    Args:
        interpreter: Runs the model.
        examples: What its input is set to, one example after another; None, or examples that are not of the input's
            shape, for random values, the same ones each time.

    Attributes:
        inputs: The examples' digest, or `RANDOM_VALUES`.
    """

    def __init__(self, interpreter: Any, examples: Examples | None) -> None:
        self._interpreter = interpreter
        details = interpreter.get_input_details()
        values = None if examples is None or len(details) != 1 else as_input(details[0], examples.values)
        if examples is None or values is None:
            self.inputs, self._turns = RANDOM_VALUES, None
            rng = np.random.default_rng(_SEED)
            for detail in details:
                interpreter.set_tensor(detail["index"], random_input(detail, rng))
        else:
            self.inputs, self._index = examples.digest, details[0]["index"]
            # One by one, so that setting an input is a copy and nothing else.
            self._turns = itertools.cycle([np.ascontiguousarray(values[i : i + 1]) for i in range(len(values))])

    def invoke_ms(self) -> float:
        """Runs the model once, on the next example, and returns how long that took, in milliseconds."""
        if self._turns is not None:
            self._interpreter.set_tensor(self._index, next(self._turns))
        start_ns = time.perf_counter_ns()
        self._interpreter.invoke()
        return (time.perf_counter_ns() - start_ns) / 1e6


def as_input(detail: Mapping[str, Any], values: Array) -> Array | None:
    """Returns values in an input's type, quantised as the file says; None where they do not fit.

    Args:
        detail: The input's entry of `get_input_details()`.
        values: float32 [examples, ...].

    Source: real = scale * (quantised - zero point), the TFLite quantisation specification.
    """
    shape, dtype = tuple(int(d) for d in detail["shape"]), np.dtype(detail["dtype"])
    if shape != (1, *values.shape[1:]):
        return None
    if dtype.kind == "f":
        return values.astype(dtype)
    parameters = detail.get("quantization_parameters", {})
    scales, zero_points = parameters.get("scales", ()), parameters.get("zero_points", ())
    if dtype.kind not in "iu" or len(scales) != 1 or not scales[0] > 0:
        return None
    limits = np.iinfo(dtype)
    quantised = np.rint(values / np.float32(scales[0])) + int(zero_points[0])
    return np.asarray(np.clip(quantised, limits.min, limits.max)).astype(dtype)
