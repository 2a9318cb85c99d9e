"""Which layers suffer from quantisation: the noise that it adds to the output of each operator.

A float file and a quantised one are run on the same images with the built-in kernels, and the outputs of their
operators compared one by one. Noise adds up on the way, so a layer that is much worse than those before it is where to
look. Does not require TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from nas_edge.export.verify import Kernels, input_output, open_interpreter, tensor_info
from nas_edge.networks.tflite_model import OperatorInfo, operators

Array: TypeAlias = "np.ndarray[Any, Any]"

_KERNELS: Kernels = "built-in"  # of operators that XNNPACK takes, outputs cannot be read

# What turns types into each other, and so is in one of the files alone.
_CASTS = frozenset({"QUANTIZE", "DEQUANTIZE"})


@dataclass(frozen=True)
class LayerNoise:
    """What quantisation adds to the output of one operator.

    Attributes:
        layer: its name.
        operator: its kind, for example `CONV_2D`.
        sqnr_db: signal-to-quantisation-noise ratio, 10 log10 of the float outputs' power over the difference's, in dB;
            infinity becomes 200. The lower, the worse: each bit of precision is worth about 6 dB.
    """

    layer: str
    operator: str
    sqnr_db: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.layer} ({self.operator}) {self.sqnr_db:.1f} dB"


def layer_noise(
    real: bytes, quantized: bytes, images: Array, names: Sequence[str] | None = None
) -> tuple[LayerNoise, ...]:
    """Compares two files of one network operator by operator.

    Args:
        real: the float32 file.
        quantized: the other one.
        images: float32 `[n, height, width, channels]`, preprocessed; a dozen suffice.
        names: of the layers, in the order of the operators; None for those of the quantised file's tensors.

    Returns:
        A figure per operator that computes something, in the order of execution; none where the files do not have the
        same operators.

    Raises:
        ExportError: when the runtime cannot run a file.
    """
    ours, theirs = ([one for one in operators(file) if one.name not in _CASTS] for file in (real, quantized))
    if [one.name for one in ours] != [one.name for one in theirs]:
        return ()
    signal = np.zeros(len(ours))
    noise = np.zeros(len(ours))
    first, second = _Traced(real, ours), _Traced(quantized, theirs)
    for image in images:
        for place, (expected, received) in enumerate(zip(first(image), second(image), strict=True)):
            signal[place] += float(np.square(expected, dtype=np.float64).sum())
            noise[place] += float(np.square(expected.astype(np.float64) - received).sum())
    labels = names or [one.outputs[0].name for one in theirs]
    return tuple(
        LayerNoise(label, one.name, _decibels(*power))
        for label, one, *power in zip(labels, theirs, signal.tolist(), noise.tolist(), strict=True)
        if one.name != "RESHAPE"
    )


def worst(noises: Sequence[LayerNoise], count: int = 3) -> tuple[LayerNoise, ...]:
    """Those with the lowest ratios, the lowest first."""
    return tuple(sorted(noises, key=lambda one: one.sqnr_db)[:count])


def _decibels(signal: float, noise: float) -> float:
    if noise == 0 or signal == 0:
        return 200.0 if noise == 0 else -200.0
    return round(max(-200.0, min(200.0, 10 * math.log10(signal / noise))), 2)


class _Traced:
    """A file of which the output of every operator can be read."""

    def __init__(self, file: bytes, found: Sequence[OperatorInfo]) -> None:
        self._interpreter = open_interpreter(file, 1, _KERNELS, preserve_all=True)
        self._source = input_output(file)[0]
        self._feed = self._interpreter.get_input_details()[0]["index"]
        details = {one["name"]: one for one in self._interpreter.get_tensor_details()}
        self._outputs = [details[one.outputs[0].name] for one in found]

    def __call__(self, image: Array) -> list[Array]:
        self._interpreter.set_tensor(self._feed, self._source.quantize(image[None]))
        self._interpreter.invoke()
        return [
            tensor_info(details).dequantize(self._interpreter.get_tensor(details["index"])) for details in self._outputs
        ]
