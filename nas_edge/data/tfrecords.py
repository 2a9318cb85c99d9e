"""Images from TFRecord files in the layout usual for ImageNet, `tfrecord:FOLDER`.

    FOLDER/train-00000-of-01024          or whatever begins with `train`
    FOLDER/validation-00000-of-00128     may be missing
    FOLDER/test-00000-of-00128           may be missing, or have no labels, as ImageNet's: less than any training label
    FOLDER/labels.txt                    one class name per line; may be missing

As in `folders.py`, architectures are scored on the validation images where there are labelled test images; otherwise
they are what is tested on.

Every record is a `tf.train.Example` with `image/encoded` (an image file, see `image_files.py`) and `image/class/label`
(one number).
Where the smallest label is 1, as in ImageNet's files, labels are counted from there. Class names are those of
`labels.txt`, or else of `image/class/text`, or else the numbers.

Opening reads everything once, checking checksums, labels and the headers of images, several files at once, and decodes
images where bad ones are to be skipped; then only the places of the records are kept, and images are read when asked
for. What was found in a file is kept, see `examined.py`.
"""

from __future__ import annotations

import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from nas_edge.data.dataset import (
    Dataset,
    EncodedImage,
    LeftOut,
    check_class_names,
    check_classes,
    check_labels,
    extension,
    settle_bad,
)
from nas_edge.data.examined import Examined, Stamp
from nas_edge.data.image_files import check_image
from nas_edge.data.threads import in_threads
from nas_edge.errors import DataError
from nas_edge.quiet import start_tensorflow
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable

# Of every record: length (8 bytes), its checksum (4), data, its checksum (4).
_BEFORE, _AFTER = 12, 4

_PREFIXES = ("train", "validation", "test")
_LABELS = "labels.txt"

# Findings of one depth do not stand for the other: headers say less.
_HEADERS = f"records and image headers 1, Pillow {PIL.__version__}"
_PIXELS = f"records and image pixels 1, Pillow {PIL.__version__}"


@dataclass(frozen=True)
class Place:
    """Where a record is."""

    file: Path
    offset: int
    length: int

    def __str__(self) -> str:
        return f"the image at byte {self.offset} of {printable(str(self.file))}"


class RecordImages:
    """Images in TFRecord files, read when asked for.

    Args:
        files: where they are.
        spans: position in `files`, offset and length of each record, `int64 [n, 3]`; a million images are not a million
            objects.
    """

    def __init__(self, files: Sequence[Path], spans: NDArray[np.int64]) -> None:
        self._files, self._spans = tuple(files), spans

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int, /) -> EncodedImage:
        number, offset, length = map(int, self._spans[index])
        place = Place(self._files[number], offset, length)
        try:
            with open_regular(place.file) as file:
                file.seek(place.offset)
                record = file.read(place.length)
        except OSError as error:
            raise DataError(f"cannot read {place}: {error.strerror or error}") from error
        return EncodedImage(_features(record, place)[0], place)


@dataclass
class _Index:
    """What a file holds.

    Attributes:
        spans: offset and length of each good record, `[2 n]`.
        labels: theirs, `[n]`.
        texts: of labels, the class name beside the first such label; "" for none.
        bad: what is wrong with the other records.
    """

    spans: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """As it is kept."""
        texts = sorted(self.texts.items())
        return zlib.compress(json.dumps([self.spans, self.labels, texts, self.bad]).encode())

    @classmethod
    def from_bytes(cls, content: bytes) -> _Index:
        """The inverse of `to_bytes`."""
        spans, labels, texts, bad = json.loads(zlib.decompress(content))
        return cls(spans, labels, dict(map(tuple, texts)), bad)


def load_tfrecords(folder: Path, skip_bad: bool = False, workers: int = 0) -> Dataset:
    """Opens TFRecord files; see the top of this file.

    Args:
        folder: holds them.
        skip_bad: leaves out records whose image or label cannot be used, instead of refusing the files.
        workers: threads that read them.

    Raises:
        DataError: when they cannot be used.
    """
    parts, ignored = _parts(folder)
    start_tensorflow(deterministic=False)  # reading needs none, and it could not be switched off again
    files = list(chain(*parts.values()))
    indexes = dict(zip(files, _indexes(folder, files, skip_bad, workers), strict=True))
    labels = {part: [label for file in group for label in indexes[file].labels] for part, group in parts.items()}
    if "test" in parts and max(labels["test"], default=-1) < min(labels["train"], default=0):
        if labels["test"]:
            ignored["test records without labels"] = len(labels["test"])
        del parts["test"]
    groups = list(parts.values())
    files = list(chain(*groups))
    bad = [problem for file in files for problem in indexes[file].bad]
    counts = [sum(len(indexes[file].labels) for file in group) for group in groups]
    left_out = LeftOut(ignored, settle_bad(bad, sum(counts) + len(bad), skip_bad))
    where = f"image/class/label of {folder}"
    checked = check_labels(np.array([label for file in files for label in indexes[file].labels], np.int64), where)
    first = int(checked.min() == 1)
    checked -= np.int32(first)
    texts: dict[int, str] = {}
    for file in files:
        texts = {label - first: text for label, text in indexes[file].texts.items()} | texts
    names = _class_names(folder, texts, int(checked.max()) + 1)
    check_class_names(names, f"class names of {folder}")
    check_classes(checked[: counts[0]], names, where)
    spans = [
        np.insert(np.array(indexes[file].spans, np.int64).reshape(-1, 2), 0, number, axis=1)
        for number, file in enumerate(files)
    ]
    ends = np.cumsum(counts).tolist()
    return Dataset(
        RecordImages(files, np.concatenate(spans)),
        checked,
        names,
        ends[-2] if len(ends) > 1 else None,
        left_out,
        ends[-3] if len(ends) > 2 else None,
    )


def _indexes(folder: Path, files: Sequence[Path], decode: bool, workers: int) -> Iterator[_Index]:
    """What each file holds; those that were read before are not read again.

    Raises:
        DataError: for a file that is damaged.
    """
    examined = Examined(folder, _PIXELS if decode else _HEADERS)
    known = examined.known("")

    def index(file: Path) -> _Index:
        try:
            stamp = Stamp.of(file.stat())
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror or error}") from error
        before = known.get(file.name)
        if before is not None and before[0] == stamp:
            return _Index.from_bytes(before[1])
        found = _index(file, decode)
        examined.keep("", {file.name: (stamp, found.to_bytes())})
        return found

    return in_threads(index, files, workers)


def _index(file: Path, decode: bool) -> _Index:
    found = _Index()
    for place, record in _records(file):
        try:
            encoded, label, text = _features(record, place)
            check_image(io.BytesIO(encoded), place, decode)
        except DataError as error:
            found.bad.append(str(error))
            continue
        found.spans += (place.offset, place.length)
        found.labels.append(label)
        found.texts.setdefault(label, text)
    return found


def _parts(folder: Path) -> tuple[dict[str, list[Path]], dict[str, int]]:
    """The files of each part that there is, by prefix; and how many others there are, by extension."""
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        odd = [path for path in found if path.name.startswith(_PREFIXES) and not path.is_file()]
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}; expected tfrecord:FOLDER") from error
    if odd:
        raise DataError(f"{printable(str(odd[0]))} is not a regular file; replace or remove it")
    parts = {prefix: [path for path in found if path.name.startswith(prefix)] for prefix in _PREFIXES}
    if not parts["train"]:
        raise DataError(f"{folder} holds no TFRecord files; expected some whose names begin with train")
    used = {*chain(*parts.values()), folder / _LABELS}
    ignored = Counter(extension(path) for path in found if path not in used)
    return {prefix: files for prefix, files in parts.items() if files}, dict(ignored)


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
