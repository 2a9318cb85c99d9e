"""How TFLite files are packed: every list of numbers that several tensors have is in the file once.

A quantised file has a zero point of 8 bytes for each output channel of a kernel, and of its bias, all of them 0: two
thirds of what there is per channel beside the weights. A FlatBuffer may refer to one vector from many tables, and so
one vector of zeros serves all kernels and biases with as many channels. What is read from the file stays the same, to
the bit.

Format: https://flatbuffers.dev/internals/ and the public schema that ai-edge-litert ships.
"""

from __future__ import annotations

import struct
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from nas_edge.formatting import reason

IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16  # the schema's force_align, which the generated Python code ignores


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Writes equal vectors of numbers once."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 - overridden
        """Where a vector is, newly written or not."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


class AlignedBuffer:
    """A tensor's values in the file, written in one copy at the alignment the runtime needs; never shared, so that what
    is timed reads as many bytes as its tensors have.

    Args:
        values: in the type they are stored in.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        little_endian = values.dtype.newbyteorder("<")
        self._bytes = np.ascontiguousarray(values, little_endian).reshape(-1).view(np.uint8)

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the schema's object API calls it so)
        """Writes it."""
        from ai_edge_litert import schema_py_generated as schema

        size = self._bytes.size
        builder.StartVector(1, size, _BUFFER_ALIGNMENT)
        builder.head -= size
        builder.Bytes[builder.head : builder.head + size] = self._bytes.data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def pack(model: Any, size: int) -> bytes:
    """A model as a file.

    Args:
        model: a `ModelT`, whose buffers with values are `AlignedBuffer`s.
        size: about how many bytes it takes; more are found when needed.
    """
    builder = SharingBuilder(size)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])  # one copy less than builder.Output()


def compacted(file: bytes) -> bytes:
    """A file that is read as the same model, to the bit, and is no longer than it has to be.

    Args:
        file: a TFLite file as a converter wrote it, without metadata appended.

    Raises:
        ValueError: when it is damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(file)
        if any(buffer.offset for buffer in model.buffers):  # weights beside the FlatBuffer: files above 2 GB
            return file
        model.buffers = [buffer if buffer.data is None else AlignedBuffer(buffer.data) for buffer in model.buffers]
        return pack(model, len(file))
    except (struct.error, LookupError, TypeError, OverflowError) as error:
        raise ValueError(f"the TFLite file is damaged ({reason(error)})") from None
