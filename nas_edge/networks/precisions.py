"""What networks are stored and computed in: the table of precisions. A new one is one line of it.

Everything that depends on the precision follows from these facts: how `tflite_model` writes a candidate, how the
converter is configured for what is delivered, the memory of the resource model, and what the hardware gate allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

Precision: TypeAlias = str  # a name in PRECISIONS

# Of one value, by NumPy's name of its type. The command line reads this table, and is to start without NumPy.
_BYTES = {"int8": 1, "int16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class NumberTypes:
    """What one precision means.

    Attributes:
        what: in a few words.
        weights: NumPy's name of what kernels are stored in.
        activations: the same of what operators read and write.
        io: the same of the network's input and output.
        operator_set: the member of `tf.lite.OpsSet` that the converter is held to; "" for its default.
        least_kernel: kernels of fewer values stay float32, as in the converter.
        without: operators that have no kernel in it.
    """

    what: str
    weights: str
    activations: str
    io: str
    operator_set: str = ""
    least_kernel: int = 0
    without: frozenset[str] = frozenset()

    @property
    def calibrated(self) -> bool:
        """Whether activations are quantised, by ranges that representative examples show."""
        return self.activations != "float32"

    @property
    def activation_bytes(self) -> int:
        """Of one value of an activation."""
        return _BYTES[self.activations]

    @property
    def weight_bytes(self) -> int:
        """Of one value of a kernel; small kernels may take more, see `least_kernel`."""
        return _BYTES[self.weights]

    @property
    def bias(self) -> str:
        """NumPy's name of what biases are stored in."""
        return {"int8": "int32", "int16": "int64"}.get(self.activations, "float32")

    @property
    def casts(self) -> frozenset[str]:
        """Operators that turn one type into another, and so may have others than the rest of the file."""
        if self.calibrated:
            return frozenset() if self.io == self.activations else frozenset({"QUANTIZE", "DEQUANTIZE"})
        return frozenset({"DEQUANTIZE"}) if self.weights == "float16" else frozenset()

    @property
    def operator_dtypes(self) -> frozenset[str]:
        """Types of what all other operators read and write, by their names in TFLite's schema."""
        kernels = {"float32"} if self.casts == {"DEQUANTIZE"} else {self.weights}
        # INT32: shapes and axes.
        return frozenset(name.upper() for name in (self.activations, self.bias, *kernels)) | {"INT32"}


PRECISIONS: MappingProxyType[Precision, NumberTypes] = MappingProxyType(
    {
        "int8": NumberTypes("full integer", "int8", "int8", "int8", "TFLITE_BUILTINS_INT8"),
        "int8-float-io": NumberTypes("float outside", "int8", "int8", "float32", "TFLITE_BUILTINS_INT8"),
        "int16x8": NumberTypes(
            "int16 activations, int8 weights",
            "int8",
            "int16",
            "int16",
            "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
            without=frozenset({"HARD_SWISH", "L2_NORMALIZATION"}),
        ),
        "float16": NumberTypes("float16 weights, computed in float32", "float16", "float32", "float32"),
        "dynamic": NumberTypes("int8 weights, ranges found on the fly", "int8", "float32", "float32", "", 1024),
        "float32": NumberTypes("as trained", "float32", "float32", "float32"),
    }
)
