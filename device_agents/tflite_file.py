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
_SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS, _SUBGRAPH_OPERATORS = 1, 2, 3


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
            raise ModelFileError(f"TFLite schema version not supported. Expected 3. Received: {version}")
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
        raise ModelFileError(
            f"The TFLite file is damaged or truncated: an offset leads outside its "
            f"{len(model)} bytes. Export or download it again"
        ) from None


def _check_start(model: bytes) -> None:
    if not _MIN_BYTES <= len(model) <= MAX_BYTES:
        raise ModelFileError(
            f"Not a usable TFLite file. Expected {_MIN_BYTES} to {MAX_BYTES} bytes. Received: {len(model)}"
        )
    if model[4:8] != IDENTIFIER:
        raise ModelFileError(f"Not a TFLite file. Expected {IDENTIFIER!r} at byte 4. Received: {model[4:8]!r}")


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
