"""TFLite metadata, read back by field numbers of the public schema.

The official reader (`tflite-support`) cannot be installed beside TensorFlow; it was tried by hand and says the same.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from device_agents.tflite_file import inspect_model
from nas_edge.data.preprocessing import ImagePreprocessing
from nas_edge.errors import ExportError
from nas_edge.export import verify
from nas_edge.export.tflite_metadata import with_metadata
from nas_edge.tasks.base import BundleSection
from nas_edge.tasks.classification import labels_section
from tests.support.exported import LABELS, Exported

PREPROCESSING = ImagePreprocessing(12, 1, (127.5,), (60.0,), 0.875, "bicubic")


class Table:
    """A table of a FlatBuffer."""

    def __init__(self, buffer: bytes, place: int) -> None:
        self._buffer, self._place = buffer, place

    @classmethod
    def root(cls, buffer: bytes) -> Table:
        return cls(buffer, struct.unpack_from("<I", buffer)[0])

    def _of(self, field: int) -> int:
        vtable = self._place - struct.unpack_from("<i", self._buffer, self._place)[0]
        (length,) = struct.unpack_from("<H", self._buffer, vtable)
        if 4 + 2 * field >= length:
            return 0
        (offset,) = struct.unpack_from("<H", self._buffer, vtable + 4 + 2 * field)
        return self._place + int(offset) if offset else 0

    def _target(self, place: int) -> int:
        return place + int(struct.unpack_from("<I", self._buffer, place)[0])

    def number(self, field: int) -> int:
        return self._buffer[self._of(field)]

    def table(self, field: int) -> Table:
        return Table(self._buffer, self._target(self._of(field)))

    def text(self, field: int) -> str:
        place = self._target(self._of(field))
        (length,) = struct.unpack_from("<I", self._buffer, place)
        return self._buffer[place + 4 : place + 4 + length].decode()

    def tables(self, field: int) -> list[Table]:
        if not self._of(field):
            return []
        place = self._target(self._of(field))
        (count,) = struct.unpack_from("<I", self._buffer, place)
        return [Table(self._buffer, self._target(place + 4 + 4 * i)) for i in range(count)]

    def floats(self, field: int) -> list[float]:
        place = self._target(self._of(field))
        (count,) = struct.unpack_from("<I", self._buffer, place)
        return list(struct.unpack_from(f"<{count}f", self._buffer, place + 4))


def metadata_of(model: bytes) -> Table:
    tree: Any = schema.ModelT.InitFromPackedBuf(model, 0)
    (entry,) = [one for one in tree.metadata if one.name == b"TFLITE_METADATA"]
    buffer = bytes(tree.buffers[entry.buffer].data)
    assert buffer[4:8] == b"M001"
    return Table.root(buffer)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_file_says_how_to_feed_it_and_what_it_answers(exported: Exported, precision: str) -> None:
    plain: bytes = getattr(exported, precision)
    model = with_metadata(plain, PREPROCESSING, labels_section(LABELS))
    assert model == with_metadata(plain, PREPROCESSING, labels_section(LABELS))
    facts = metadata_of(model)
    assert facts.text(0) == "image classifier"
    (subgraph,) = facts.tables(3)
    (source,), (result,) = subgraph.tables(2), subgraph.tables(3)
    assert "centre square of 87.5%" in source.text(1)
    content = source.table(3)
    assert (content.number(0), content.table(1).number(0)) == (2, 2)  # an image, grey
    (unit,) = source.tables(4)
    assert unit.number(0) == 1
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([127.5], [60.0])
    assert result.text(0) == "logit"
    (labels,) = result.tables(6)
    assert (labels.text(0), labels.number(2)) == ("labels.txt", 2)
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(LABELS)


def test_the_network_stays_what_it_is(exported: Exported) -> None:
    model = with_metadata(exported.int8, PREPROCESSING, labels_section(LABELS))
    assert verify.input_output(model) == verify.input_output(exported.int8)
    assert verify.operator_histogram(model) == verify.operator_histogram(exported.int8)
    np.testing.assert_array_equal(
        verify.run_tflite(model, exported.images[:4]), verify.run_tflite(exported.int8, exported.images[:4])
    )
    assert replace(inspect_model(model), size_bytes=0) == replace(inspect_model(exported.int8), size_bytes=0)


def test_a_task_without_labels_has_no_archive(exported: Exported) -> None:
    section = BundleSection("meter", "tells how bright an image is", "the brightness", "brightness", (1,), "")
    model = with_metadata(exported.float32, PREPROCESSING, section)
    assert not zipfile.is_zipfile(io.BytesIO(model))
    assert metadata_of(model).tables(3)[0].tables(3)[0].tables(6) == []


def test_a_damaged_file_is_refused() -> None:
    with pytest.raises(ExportError, match="damaged"):
        with_metadata(b"\xff" * 40, PREPROCESSING, labels_section(LABELS))
