"""Names, shapes and types of a model's inputs and outputs, which `benchmark_model` must be told and does not tell."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from device_agents.errors import ModelFileError
from device_agents.tflite_file import inspect_model

# tensorflow/lite/schema/schema.fbs, TensorType; types without a NumPy equivalent are left out.
_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8",
    10: "float64", 12: "uint64", 15: "uint32", 16: "uint16",
}  # fmt: skip


@dataclass(frozen=True)
class TensorSignature:
    """One input or output.

    Attributes:
        name: Its name in the graph.
        shape: Its dimensions.
        dtype: Name of its NumPy type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def read_signature(model: bytes) -> tuple[list[TensorSignature], list[TensorSignature]]:
    """Returns the inputs and the outputs of a TFLite file's first subgraph.

    Raises:
        ModelFileError: If it cannot be read, or a tensor is of a type that has no NumPy equivalent.
    """
    from ai_edge_litert import schema_py_generated as schema

    inspect_model(model)
    try:
        graph = schema.Model.GetRootAs(model, 0).Subgraphs(0)
        inputs = [_tensor(graph, graph.Inputs(i)) for i in range(graph.InputsLength())]
        outputs = [_tensor(graph, graph.Outputs(i)) for i in range(graph.OutputsLength())]
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"The inputs and outputs of the model cannot be read: {error}") from error
    return inputs, outputs


def _tensor(graph: Any, index: int) -> TensorSignature:
    tensor = graph.Tensors(index)
    dtype = _DTYPES.get(tensor.Type())
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    if dtype is None:
        raise ModelFileError(
            f"Tensor {name!r:.80} is of a type that cannot be exchanged", received=f"type {tensor.Type()}"
        )
    shape = tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))
    if not all(0 < d < 2**31 for d in shape):
        raise ModelFileError(f"Tensor {name!r:.80} has open dimensions", received=f"{shape}")
    return TensorSignature(name, shape, dtype)
