"""TFLite metadata: what a model's input and output mean, inside its file.

Android Studio, LiteRT's task libraries and other tools read it: name and description, normalisation and colour of the
input, and labels of the output, which are appended to the file as a ZIP archive.

Format: `metadata_schema.fbs` of tensorflow/tflite-support (identifier M001), Apache License 2.0. The maintained writer,
`tflite-support`, needs a protobuf that TensorFlow no longer runs with.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import flatbuffers

from nas_edge.data.preprocessing import Preprocessing
from nas_edge.errors import ExportError
from nas_edge.tasks.base import BundleSection

NAME = "TFLITE_METADATA"
_IDENTIFIER = b"M001"

# The oldest reader that knows all that is written here: images, normalisation and axis labels came with it.
_MIN_PARSER_VERSION = "1.0.0"

# Numbers of `metadata_schema.fbs`.
_IMAGE_PROPERTIES, _NORMALIZATION, _AXIS_LABELS = 2, 1, 2
_COLOURS = {3: 1, 1: 2}
_FIELDS = {"model": 8, "subgraph": 10, "tensor": 7, "content": 3, "image": 2, "unit": 2, "normalization": 2, "file": 5}


def with_metadata(model: bytes, preprocessing: Preprocessing, section: BundleSection) -> bytes:
    """A TFLite file with its metadata. Equal arguments give equal bytes.

    Args:
        model: a file with one input, an image, and one output.
        preprocessing: turns pixels into inputs.
        section: what the task says of it; files whose names end with `labels.txt` become labels of the output.

    Raises:
        ExportError: when the file is damaged.
    """
    from nas_edge.quiet import held_stderr

    with held_stderr():
        from tensorflow.lite.python import schema_py_generated as schema

    try:
        tree = schema.ModelT.InitFromPackedBuf(model, 0)
    except Exception as error:  # the generated code raises whatever it stumbles over
        raise ExportError("the file is damaged: it cannot be read as a TFLite model") from error
    labels = {name: content for name, content in section.files.items() if name.endswith("labels.txt")}
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(_metadata(preprocessing, section, sorted(labels)))
    entry.name, entry.buffer = NAME, len(tree.buffers)
    tree.buffers.append(buffer)
    tree.metadata = [*(one for one in tree.metadata or [] if _text(one.name) != NAME), entry]
    builder = flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output()) + _archive(labels)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


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
    image = _table(builder, "image", {}, {0: _COLOURS[preprocessing.channels]})
    content = _table(builder, "content", {1: image}, {0: _IMAGE_PROPERTIES})
    rules = preprocessing.manifest()
    says = f"{rules['crop']}, resized to {rules['input_size']} pixels ({rules['resize']}), {rules['colour']}"
    source = _table(
        builder,
        "tensor",
        {0: _string(builder, "image"), 1: _string(builder, says), 3: content, 4: _vector(builder, [unit])},
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
