"""Images from TFRecord files in the layout usual for ImageNet, `tfrecord:FOLDER`.

    FOLDER/train-00000-of-01024          or whatever begins with `train`
    FOLDER/validation-00000-of-00128     the test images; or `test...`; may be missing
    FOLDER/labels.txt                    one class name per line; may be missing

Every record is a `tf.train.Example` with `image/encoded` (an image file, see `image_files.py`) and `image/class/label`
(one number).
Where the smallest label is 1, as in ImageNet's files, labels are counted from there. Class names are those of
`labels.txt`, or else of `image/class/text`, or else the numbers.

Opening reads everything once, checking checksums, labels and the headers of images; then only the places of the records
are kept, and images are read when asked for.
"""

from __future__ import annotations

import io
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import (
    Dataset,
    Indices,
    LeftOut,
    Pixels,
    check_class_names,
    check_classes,
    check_labels,
    extension,
    settle_bad,
)
from nas_edge.data.image_files import check_image, read_image
from nas_edge.errors import DataError
from nas_edge.quiet import start_tensorflow
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable

# Of every record: length (8 bytes), its checksum (4), data, its checksum (4).
_BEFORE, _AFTER = 12, 4

_PREFIXES = ("train", "validation", "test")
_LABELS = "labels.txt"


@dataclass(frozen=True)
class Place:
    """Where a record is."""

    file: Path
    offset: int
    length: int

    def __str__(self) -> str:
        return f"the image at byte {self.offset} of {printable(str(self.file))}"


class RecordImages:
    """Images in TFRecord files, decoded when asked for, so that memory is bounded by a batch.

    Args:
        files: where they are.
        spans: position in `files`, offset and length of each record, `int64 [n, 3]`; a million images are not a million
            objects.
        size: side of the square they are brought to.
    """

    def __init__(self, files: Sequence[Path], spans: NDArray[np.int64], size: int) -> None:
        self._files, self._spans, self._size = tuple(files), spans, size

    @property
    def shape(self) -> tuple[int, ...]:
        """`[n, size, size, 3]`."""
        return (len(self._spans), self._size, self._size, 3)

    def __getitem__(self, indices: Indices, /) -> Pixels:
        pixels = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for row, index in enumerate(indices):
            number, offset, length = map(int, self._spans[int(index)])
            place = Place(self._files[number], offset, length)
            try:
                with place.file.open("rb") as file:
                    file.seek(place.offset)
                    record = file.read(place.length)
            except OSError as error:
                raise DataError(f"cannot read {place}: {error.strerror or error}") from error
            pixels[row] = read_image(io.BytesIO(_features(record, place)[0]), place, self._size)
        return pixels


def load_tfrecords(folder: Path, size: int, skip_bad: bool = False) -> Dataset:
    """Opens TFRecord files; see the top of this file.

    Args:
        folder: holds them.
        size: side in pixels to which images are brought when read.
        skip_bad: leaves out records whose image or label cannot be used, instead of refusing the files.

    Raises:
        DataError: when they cannot be used.
    """
    groups, ignored = _groups(folder)
    start_tensorflow()
    files: list[Path] = []
    spans, labels, counts = array("q"), array("q"), []
    texts: dict[int, str] = {}
    bad: list[str] = []
    for group in groups:
        for file in group:
            for place, record in _records(file):
                try:
                    encoded, label, text = _features(record, place)
                    check_image(io.BytesIO(encoded), place, size)
                except DataError as error:
                    bad.append(str(error))
                    continue
                spans.extend((len(files), place.offset, place.length))
                labels.append(label)
                texts.setdefault(label, text)
            files.append(file)
        counts.append(len(labels))
    left_out = LeftOut(ignored, settle_bad(bad, len(labels) + len(bad), skip_bad))
    where = f"image/class/label of {folder}"
    checked = check_labels(np.array(labels, np.int32), where)
    first = int(checked.min() == 1)
    checked -= np.int32(first)
    names = _class_names(folder, {label - first: text for label, text in texts.items()}, int(checked.max()) + 1)
    check_class_names(names, f"class names of {folder}")
    check_classes(checked[: counts[0]], names, where)
    images = RecordImages(files, np.array(spans, np.int64).reshape(-1, 3), size)
    return Dataset(images, checked, names, counts[0] if len(counts) == 2 else None, left_out)


def _groups(folder: Path) -> tuple[list[list[Path]], dict[str, int]]:
    """The files to train with and, if there are any, to test with; and how many others there are, by extension."""
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        odd = [path for path in found if path.name.startswith(_PREFIXES) and not path.is_file()]
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}; expected tfrecord:FOLDER") from error
    if odd:
        raise DataError(f"{printable(str(odd[0]))} is not a regular file; replace or remove it")
    by_prefix = {prefix: [path for path in found if path.name.startswith(prefix)] for prefix in _PREFIXES}
    if not by_prefix["train"]:
        raise DataError(f"{folder} holds no TFRecord files; expected some whose names begin with train")
    groups = [by_prefix["train"], by_prefix["validation"] or by_prefix["test"]]
    used = {path for group in groups for path in group} | {folder / _LABELS}
    ignored = Counter(extension(path) for path in found if path not in used)
    return [group for group in groups if group], dict(ignored)


def _records(file: Path) -> Iterator[tuple[Place, bytes]]:
    """The records of a file, their checksums checked, with their places."""
    import tensorflow as tf

    offset = 0
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            yield Place(file, offset + _BEFORE, len(record)), record
            offset += _BEFORE + len(record) + _AFTER
        whole = offset == file.stat().st_size  # a few bytes too many are taken for the end
    except (tf.errors.OpError, OSError):
        whole = False
    if not whole:
        raise DataError(
            f"{printable(str(file))} is damaged or truncated from byte {offset} on; download or write it again"
        )


def _features(record: bytes, place: Place) -> tuple[bytes, int, str]:
    """Encoded image, label and class name ("" if there is none) of a record."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        features: Any = tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        raise DataError(f"{place} is not a tf.train.Example ({printable(str(error))})") from error
    encoded, label = features["image/encoded"].bytes_list.value, features["image/class/label"].int64_list.value
    if len(encoded) != 1 or len(label) != 1:
        raise DataError(
            f"{place} must have one image/encoded and one image/class/label; received {len(encoded)} and {len(label)}"
        )
    text = features["image/class/text"].bytes_list.value
    return encoded[0], label[0], text[0].decode("utf-8", "replace") if text else ""


def _class_names(folder: Path, texts: dict[int, str], classes: int) -> tuple[str, ...]:
    file = folder / _LABELS
    if file.exists():
        try:
            with open_regular(file) as stream:
                return tuple(stream.read().decode().splitlines())
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 text, from byte {error.start} on; save it again as UTF-8") from error
        except OSError as error:
            raise DataError(f"cannot read the class names {file}: {error.strerror or error}") from error
    if all(texts.values()):
        return tuple(texts.get(label, str(label)) for label in range(classes))
    return tuple(map(str, range(classes)))
