"""A first look at a TFLite file, before it goes to a device.

Walks the few fields of the flatbuffer that are needed, checking every offset. It makes
clear messages for ordinary mistakes (a truncated download, an ONNX file); the defence
against hostile files is the worker's own process with limits of memory and time.

Format: https://flatbuffers.dev/internals and tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from device_agents.errors import ModelFileError

IDENTIFIER = b"TFL3"
MAX_BYTES = 1 << 30
_MIN_BYTES = 16
_SUPPORTED_VERSION = 3
# Field numbers in schema.fbs.
_MODEL_VERSION, _MODEL_SUBGRAPHS = 0, 2
_SUBGRAPH_TENSORS, _SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS, _SUBGRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_NAME, _TENSOR_SIGNATURE = 3, 7
# Of a shape's signature; in the shape itself the dimension is 1 then.
_OPEN = 0xFFFFFFFF  # -1
# No model has as many; a hostile file may say so.
_MOST_INPUTS = 1000


@dataclass(frozen=True)
class ModelSummary:
    """What a file says about itself.

    Attributes:
        size_bytes: Length of the file.
        subgraphs: Number of subgraphs; the first is the one that runs.
        inputs: Inputs of the first subgraph.
        outputs: Outputs of the first subgraph.
        operators: Operators of the first subgraph.
    """

    size_bytes: int
    subgraphs: int
    inputs: int
    outputs: int
    operators: int


def inspect_model(model: bytes) -> ModelSummary:
    """Returns a summary of a TFLite file.

    Raises:
        ModelFileError: If the bytes cannot be a TFLite file.
    """
    _check_start(model)
    try:
        root = _Table(model, _u32(model, 0))
        version = root.u32(_MODEL_VERSION)
        subgraphs = root.vector(_MODEL_SUBGRAPHS)
        if version != _SUPPORTED_VERSION:
            raise ModelFileError("TFLite schema version not supported", expected="3", received=f"{version}")
        if subgraphs.length == 0:
            raise ModelFileError("The model has no subgraph, so there is nothing to run")
        first = subgraphs.table(0)
        return ModelSummary(
            size_bytes=len(model),
            subgraphs=subgraphs.length,
            inputs=first.vector(_SUBGRAPH_INPUTS).length,
            outputs=first.vector(_SUBGRAPH_OUTPUTS).length,
            operators=first.vector(_SUBGRAPH_OPERATORS).length,
        )
    except struct.error:
        raise _damaged(model) from None


def open_inputs(model: bytes) -> tuple[str, ...]:
    """Returns the names of the inputs with a dimension of any size, which is 1 unless something else is asked for.

    Raises:
        ModelFileError: If the bytes cannot be a TFLite file.
    """
    inspect_model(model)
    try:
        graph = _Table(model, _u32(model, 0)).vector(_MODEL_SUBGRAPHS).table(0)
        tensors, inputs = graph.vector(_SUBGRAPH_TENSORS), graph.vector(_SUBGRAPH_INPUTS)
        chosen = [tensors.table(inputs.u32(i)) for i in range(min(inputs.length, _MOST_INPUTS))]
        signatures = [tensor.vector(_TENSOR_SIGNATURE) for tensor in chosen]
        return tuple(
            tensor.text(_TENSOR_NAME)
            for tensor, signature in zip(chosen, signatures, strict=True)
            if any(signature.u32(i) == _OPEN for i in range(min(signature.length, _MOST_INPUTS)))
        )
    except struct.error:
        raise _damaged(model) from None


def _damaged(model: bytes) -> ModelFileError:
    return ModelFileError(
        f"The TFLite file is damaged or truncated: an offset leads outside its {len(model)} bytes",
        fix="export or download it again",
    )


def _check_start(model: bytes) -> None:
    if not _MIN_BYTES <= len(model) <= MAX_BYTES:
        raise ModelFileError(
            "Not a usable TFLite file", expected=f"{_MIN_BYTES} to {MAX_BYTES} bytes", received=f"{len(model)}"
        )
    if model[4:8] != IDENTIFIER:
        received = model[4:8].decode("ascii", "replace")
        raise ModelFileError(
            "Not a TFLite file", expected=f"{IDENTIFIER.decode()} in bytes 4 to 7", received=f"{received!r}"
        )


class _Table:
    """A flatbuffer table; any access outside the data raises `struct.error`."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start
        self._vtable = start - _i32(data, start)
        self._vtable_bytes = _u16(data, self._vtable)

    def _field(self, number: int) -> int | None:
        slot = 4 + 2 * number
        if slot + 2 > self._vtable_bytes:
            return None
        offset = _u16(self._data, self._vtable + slot)
        return self._start + offset if offset else None

    def u32(self, number: int) -> int:
        position = self._field(number)
        return 0 if position is None else _u32(self._data, position)

    def text(self, number: int) -> str:
        position = self._field(number)
        if position is None:
            return ""
        start = position + _u32(self._data, position)
        length = _u32(self._data, start)
        _check_range(self._data, start + 4, length)
        return self._data[start + 4 : start + 4 + length].decode(errors="replace")

    def vector(self, number: int) -> _Vector:
        position = self._field(number)
        if position is None:
            return _Vector(self._data, 0, 0)
        start = position + _u32(self._data, position)
        length = _u32(self._data, start)
        # Every vector that is read here has elements of four bytes.
        _check_range(self._data, start + 4, 4 * length)
        return _Vector(self._data, start + 4, length)


@dataclass(frozen=True)
class _Vector:
    data: bytes
    start: int
    length: int

    def u32(self, index: int) -> int:
        return _u32(self.data, self.start + 4 * index)

    def table(self, index: int) -> _Table:
        position = self.start + 4 * index
        return _Table(self.data, position + _u32(self.data, position))


def _check_range(data: bytes, start: int, count: int) -> None:
    # A negative offset would make `unpack_from` read from the end.
    if start < 0 or start + count > len(data):
        raise struct.error("outside the data")


def _read(data: bytes, start: int, layout: str) -> int:
    _check_range(data, start, struct.calcsize(layout))
    (value,) = struct.unpack_from(layout, data, start)
    return int(value)


def _u16(data: bytes, start: int) -> int:
    return _read(data, start, "<H")


def _i32(data: bytes, start: int) -> int:
    return _read(data, start, "<i")


def _u32(data: bytes, start: int) -> int:
    return _read(data, start, "<I")
