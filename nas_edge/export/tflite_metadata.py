"""TFLite metadata: what a model's input and output mean, inside its file.

Android Studio, LiteRT's task libraries and other tools read it: name and description, normalisation and colour of the
input, and labels of the output, which are appended to the file as a ZIP archive.

Format: `metadata_schema.fbs` of tensorflow/tflite-support (identifier M001), Apache License 2.0. The maintained writer,
`tflite-support`, needs a protobuf that TensorFlow no longer runs with.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

import flatbuffers

from nas_edge.data.preprocessing import Preprocessing
from nas_edge.errors import ExportError
from nas_edge.export.inputs import INPUTS
from nas_edge.tasks.base import BundleSection

NAME = "TFLITE_METADATA"
_IDENTIFIER = b"M001"

# The oldest reader that knows all that is written here: images, features, normalisation and axis labels came with it.
_MIN_PARSER_VERSION = "1.0.0"

# Fields of the root table of TFLite's schema.
_BUFFERS, _METADATA = 4, 6

# Numbers of `metadata_schema.fbs`.
_NORMALIZATION, _AXIS_LABELS = 1, 2
_FIELDS = {
    "model": 8,
    "subgraph": 10,
    "tensor": 7,
    "content": 3,
    "properties": 2,
    "unit": 2,
    "normalization": 2,
    "file": 5,
}


def with_metadata(model: bytes, preprocessing: Preprocessing, section: BundleSection) -> bytes:
    """A TFLite file with its metadata. Equal arguments give equal bytes.

    Args:
        model: a file with one input and one output.
        preprocessing: turns examples into inputs.
        section: what the task says of it; files whose names end with `labels.txt` become labels of the output.

    Raises:
        ExportError: when the file is damaged.
    """
    labels = {name: content for name, content in section.files.items() if name.endswith("labels.txt")}
    try:
        described = _prefixed(model, _metadata(preprocessing, section, sorted(labels)))
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise ExportError("the file is damaged: it cannot be read as a TFLite model") from error
    return described + _archive(labels)


class _Table:
    """A table of a FlatBuffer.

    Args:
        content: the FlatBuffer.
        place: where the table is.
    """

    def __init__(self, content: bytes, place: int) -> None:
        self._content, self._place = content, place
        vtable = place - _number("<i", content, place)
        self._fields = [_number("<H", content, vtable + at) for at in range(4, _number("<H", content, vtable), 2)]

    def inline(self, field: int) -> int:
        """Where a field lies in the table; 0 if it is absent."""
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._place + offset if offset else 0

    def target(self, field: int) -> int:
        """Where what a field refers to begins; 0 if it is absent."""
        place = self.inline(field)
        return _followed(self._content, place) if place else 0

    def entries(self, field: int) -> list[int]:
        """Where the tables of a vector are."""
        place = self.target(field)
        if not place:
            return []
        return [_followed(self._content, place + 4 + 4 * i) for i in range(_number("<I", self._content, place))]

    def text(self, field: int) -> str:
        """A text; empty if it is absent."""
        place = self.target(field)
        return self._content[place + 4 : place + 4 + _number("<I", self._content, place)].decode() if place else ""


def _number(form: str, content: bytes, place: int) -> int:
    return int(struct.unpack_from(form, content, place)[0])


def _followed(content: bytes, place: int) -> int:
    return place + _number("<I", content, place)


def _prefixed(model: bytes, metadata: bytes) -> bytes:
    """A model with one more buffer and its entry.

    The model itself is not written anew: a new root table goes before it and refers to its parts, so that weights stay
    bit for bit what was tested, and aligned to 16 bytes as the schema wants. (What TensorFlow's generated classes write
    is not.)
    """
    if model[4:8] != b"TFL3":
        raise ValueError("not a TFLite file")
    root = _Table(model, _followed(model, 0))
    buffers = root.entries(_BUFFERS)
    kept = [place for place in root.entries(_METADATA) if _Table(model, place).text(0) != NAME]
    # Two vectors of references, the tables of buffer and entry with the name, the content, and the root table.
    vectors = 4 + 4 * (len(buffers) + 1), 4 + 4 * (len(kept) + 1)
    root_at = 8 + 20
    at_buffers = root_at + 4 + 8 * 4
    at_metadata = at_buffers + vectors[0]
    at_buffer = at_metadata + vectors[1] + 8
    at_entry = at_buffer + 8 + 8
    at_name = at_entry + 12
    at_content = _aligned(at_name + 4 + len(NAME) + 1 + 4) - 4  # a vector's content follows its length
    at_model = _aligned(at_content + 4 + len(metadata))
    whole = bytearray(at_model)
    whole[:8] = struct.pack("<I4s", root_at, b"TFL3")
    struct.pack_into("<10H", whole, 8, 20, 36, *(4 + 4 * field for field in range(8)))
    struct.pack_into("<iI", whole, root_at, 20, _number("<I", model, root.inline(0)) if root.inline(0) else 0)
    for field in range(1, 8):
        place, target = root_at + 4 + 4 * field, root.target(field)
        if field in (_BUFFERS, _METADATA):
            struct.pack_into("<I", whole, place, (at_buffers if field == _BUFFERS else at_metadata) - place)
        elif target:
            struct.pack_into("<I", whole, place, at_model + target - place)
        else:
            struct.pack_into("<H", whole, 8 + 4 + 2 * field, 0)
    for at, entries, new in ((at_buffers, buffers, at_buffer), (at_metadata, kept, at_entry)):
        struct.pack_into("<I", whole, at, len(entries) + 1)
        for i, target in enumerate([*(at_model + entry for entry in entries), new], 1):
            struct.pack_into("<I", whole, at + 4 * i, target - at - 4 * i)
    struct.pack_into("<3H", whole, at_buffer - 8, 6, 8, 4)
    struct.pack_into("<iI", whole, at_buffer, 8, at_content - at_buffer - 4)
    struct.pack_into("<4H", whole, at_entry - 8, 8, 12, 4, 8)
    struct.pack_into("<iII", whole, at_entry, 8, at_name - at_entry - 4, len(buffers))
    struct.pack_into(f"<I{len(NAME)}s", whole, at_name, len(NAME), NAME.encode())
    struct.pack_into(f"<I{len(metadata)}s", whole, at_content, len(metadata), metadata)
    return bytes(whole) + model


def _aligned(place: int) -> int:
    return -(-place // 16) * 16


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Files as a ZIP archive to append; nothing where there are none."""
    if not files:
        return b""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return stream.getvalue()


def _metadata(preprocessing: Preprocessing, section: BundleSection, labels: Sequence[str]) -> bytes:
    builder = flatbuffers.Builder(1024)
    mean, std = (_floats(builder, values) for values in (preprocessing.mean, preprocessing.std))
    normalization = _table(builder, "normalization", {0: mean, 1: std})
    unit = _table(builder, "unit", {1: normalization}, {0: _NORMALIZATION})
    rules, kind = preprocessing.manifest(), INPUTS[preprocessing.kind]
    number, numbers = kind.properties(rules)
    properties = _table(builder, "properties", {}, numbers)
    content = _table(builder, "content", {1: properties}, {0: number})
    source = _table(
        builder,
        "tensor",
        {
            0: _string(builder, kind.example),
            1: _string(builder, kind.says(rules)),
            3: content,
            4: _vector(builder, [unit]),
        },
    )
    files = [
        _table(builder, "file", {0: _string(builder, name), 1: _string(builder, "labels")}, {2: _AXIS_LABELS})
        for name in labels
    ]
    outputs = {0: _string(builder, section.output), 1: _string(builder, section.answer)}
    result = _table(builder, "tensor", outputs | ({6: _vector(builder, files)} if files else {}))
    subgraph = _table(builder, "subgraph", {2: _vector(builder, [source]), 3: _vector(builder, [result])})
    model = _table(
        builder,
        "model",
        {
            0: _string(builder, section.title),
            1: _string(builder, section.says),
            3: _vector(builder, [subgraph]),
            7: _string(builder, _MIN_PARSER_VERSION),
        },
    )
    builder.Finish(model, _IDENTIFIER)
    return bytes(builder.Output())


def _table(
    builder: flatbuffers.Builder, kind: str, offsets: Mapping[int, int], numbers: Mapping[int, int] | None = None
) -> int:
    """A table with references and small numbers by their field's number."""
    builder.StartObject(_FIELDS[kind])
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, number in (numbers or {}).items():
        builder.PrependUint8Slot(field, number, 0)
    return int(builder.EndObject())


def _string(builder: flatbuffers.Builder, text: str) -> int:
    return int(builder.CreateString(text))


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())
