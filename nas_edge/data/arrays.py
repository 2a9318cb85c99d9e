"""Images as arrays: an .npz file, or the digits that come with scikit-learn.

An .npz file holds x and y, or x_train and y_train with x_val and y_val, x_test and y_test, or both; optionally
class_names. Images are `[n, height, width]` or `[n, height, width, 1 or 3]`, as integers 0..255 or fractions 0..1;
what y is depends on the kind of targets, see `targets.py`: of classes it is class numbers from 0. With x_val
alone, those are the images to test on, as in `folders.py`.

The images of a file are not read into memory but mapped; a compressed file (`numpy.savez_compressed`) is unpacked into
a temporary one at each start.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import (
    Dataset,
    Indices,
    LeftOut,
    Pixels,
    check_class_names,
    settle_bad,
)
from nas_edge.data.targets import CLASSES, TargetKind
from nas_edge.errors import DataError
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable

# Values that are checked at a time.
_CHECKED_VALUES = 2**24

# Sizes of a member's header in an archive: the fixed part, and where the lengths of name and extra field stand in it.
_LOCAL_HEADER, _LENGTHS = 30, 26


def load_digits() -> Dataset:
    """scikit-learn's 1,797 scans of handwritten digits, `uint8 [n, 8, 8, 1]`."""
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError("the digits data set requires scikit-learn: pip install scikit-learn") from error
    digits = datasets.load_digits()
    # The scans count dark pixels in 4 x 4 cells, so 16 is black ink.
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    return Dataset(images, digits.target.astype(np.int32), tuple(str(name) for name in digits.target_names))


@dataclass(frozen=True)
class _Part:
    """Mapped images of one array of a file.

    Attributes:
        array: as it is stored.
        kept: positions of the images that are used; None for all.
        to_pixels: brings some of them to `uint8`.
    """

    array: NDArray[Any]
    kept: Indices | None
    to_pixels: Callable[[NDArray[Any]], Pixels]

    def __len__(self) -> int:
        return len(self.array) if self.kept is None else len(self.kept)

    def __getitem__(self, index: int) -> Pixels:
        image = self.array[index if self.kept is None else self.kept[index]]
        return self.to_pixels(image if image.ndim == 3 else image[..., None])


class MappedImages:
    """Images of the arrays of a file, one array after another; read when asked for.

    Args:
        parts: the arrays.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts, self._ends = list(parts), np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int, /) -> Pixels:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[number][index - (int(self._ends[number - 1]) if number else 0)]


def load_npz(path: Path, skip_bad: bool, kind: TargetKind = CLASSES) -> Dataset:
    """Opens an .npz file; see the top of this file.

    Args:
        path: of the file.
        skip_bad: leaves out images with values that are not finite, instead of refusing the file.
        kind: what y is.

    Raises:
        DataError: when it cannot be used.
    """
    arrays = _read(path)
    names = _parts_of(arrays, path)
    parts, labels, bad = [], [], []
    for x, y in names:
        where = f"{x} of {path}"
        finite = _finite(arrays[x], where)
        some_labels = kind.check(arrays[y], f"{y} of {path}")
        if len(finite) != len(some_labels):
            raise DataError(f"{path}: {x} has {len(finite)} images but {y} has {len(some_labels)} labels")
        height, width = arrays[x].shape[1:3]
        some_labels = kind.fit(some_labels, (height, width), path, y, x)
        bad += [f"image {i} of {x} holds values that are not finite (NaN or infinity)" for i in np.flatnonzero(~finite)]
        kept = None if finite.all() else np.flatnonzero(finite)
        parts.append((arrays[x], kept, where))
        labels.append(some_labels if kept is None else some_labels[kept])
    skipped = settle_bad(bad, sum(len(array) for array, _, _ in parts), skip_bad, str(path))
    mapped = [_mapped(*part) for part in parts]
    if len({part.array.shape[1:] for part in mapped}) > 1:
        together = " and ".join(x for x, _ in names)
        raise DataError(f"{path}: {together} hold images of different shapes")
    class_names = tuple(str(name) for name in np.ravel(arrays[kind.names])) if kind.names in arrays else None
    kind.check_all(labels[0], class_names, f"{names[0][1]} of {path}")
    class_names = class_names or tuple(str(i) for i in range(kind.count(labels[0])))
    check_class_names(class_names, f"{kind.names} of {path}")
    _check_different(class_names, f"{kind.names} of {path}")
    for some, (_, y) in zip(labels[1:], names[1:], strict=True):
        if some.ndim == 2 and some.shape[1:] != labels[0].shape[1:]:
            raise DataError(f"{y} of {path} has {some.shape[1]} columns, and {names[0][1]} {labels[0].shape[1]}")
        if len(some) and kind.count(some) > len(class_names):
            raise DataError(f"{y} of {path} has label {kind.count(some) - 1}, which no training image has")
    ends = np.cumsum([len(some) for some in labels]).tolist()
    return Dataset(
        MappedImages(mapped),
        kind.join(labels),
        class_names,
        ends[-2] if len(ends) > 1 else None,
        LeftOut(skipped=skipped),
        ends[-3] if len(ends) > 2 else None,
    )


def _parts_of(arrays: dict[str, NDArray[Any]], path: Path) -> list[tuple[str, str]]:
    """Names of images and labels of each part: to train with, to score and to test."""
    if {"x_train", "y_train"} <= set(arrays):
        for part in ("val", "test"):
            if (f"x_{part}" in arrays) != (f"y_{part}" in arrays):
                raise DataError(f"{path} has only one of x_{part} and y_{part}; give both or neither")
        return [(f"x_{part}", f"y_{part}") for part in ("train", "val", "test") if f"x_{part}" in arrays]
    if {"x", "y"} <= set(arrays):
        return [("x", "y")]
    found = printable(", ".join(sorted(arrays))) or "nothing"
    raise DataError(
        f"{path} must hold x and y, or x_train and y_train with x_val, y_val, x_test, y_test; found {found}"
    )


def _check_different(names: Sequence[str], where: str) -> None:
    """Results are told by name."""
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise DataError(f"{where} has {printable(repeated[0])!r} more than once; give each a name of its own")


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name, mapped."""
    try:
        # Opened here because numpy leaves a file that is no archive open.
        with open_regular(path) as raw:
            if not zipfile.is_zipfile(raw):
                raw.seek(0)
                np.load(raw, allow_pickle=False)  # says what is wrong with it, if it is no array
                raise DataError(f"{path} holds a single array; save images and labels with numpy.savez(path, x=, y=)")
            with zipfile.ZipFile(raw) as archive:
                members = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
                return {entry.filename[:-4]: _map(path, raw, archive, entry) for entry in members}
    except ValueError as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise DataError(f"{path} holds pickled objects, which are not opened; save plain number arrays") from error
        raise DataError(f"{path} cannot be read: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}); save it again with numpy.savez") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory; save images as uint8, or as files in class folders") from error


def _map(path: Path, raw: BinaryIO, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """An array of an archive, its checksum verified."""
    if entry.compress_type == zipfile.ZIP_STORED:
        with archive.open(entry) as stream:
            while stream.read(2**20):
                pass  # the end of it is where the checksum is compared
        raw.seek(entry.header_offset + _LENGTHS)
        lengths = np.frombuffer(raw.read(4), "<u2")
        return _mapped_file(path, entry.header_offset + _LOCAL_HEADER + int(lengths.sum()))
    with tempfile.NamedTemporaryFile(prefix="nas-edge-") as unpacked:
        with archive.open(entry) as stream:
            shutil.copyfileobj(stream, unpacked, 2**20)
        unpacked.flush()
        # The mapping keeps what it maps, also when the file has lost its name.
        return _mapped_file(Path(unpacked.name), 0)


def _mapped_file(path: Path, offset: int) -> NDArray[Any]:
    """The array whose header begins at `offset`, in bytes."""
    with path.open("rb") as file:
        file.seek(offset)
        version = np.lib.format.read_magic(file)
        forms: Any = np.lib.format
        read_header = forms.read_array_header_1_0 if version == (1, 0) else forms.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if 0 in shape or not shape:
        whole: NDArray[Any] = np.fromfile(path, dtype, int(np.prod(shape)), offset=start).reshape(shape)
        return whole
    return np.memmap(path, dtype, "r", start, shape, "F" if is_fortran else "C")


def _finite(array: NDArray[Any], where: str) -> NDArray[np.bool_]:
    """Checks the shape and type of an array of images and tells which images have no NaN and no infinity, `[n]`."""
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (1, 3)) or 0 in array.shape:
        raise DataError(
            f"{where} must be [n, height, width] or [n, height, width, 1 or 3], received {list(array.shape)}"
        )
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"{where} must hold numbers, received {array.dtype}")
    if np.issubdtype(array.dtype, np.integer):
        return np.ones(len(array), np.bool_)
    axes = tuple(range(1, array.ndim))
    return np.concatenate([np.isfinite(some).all(axis=axes) for some in _slices(array)])


def _mapped(array: NDArray[Any], kept: Indices | None, where: str) -> _Part:
    """Images that `_finite` accepts, of which those that are used are `uint8` or can be brought to it."""
    if kept is not None and len(kept) == 0:
        raise DataError(f"{where} has no images without NaN or infinity")
    if array.dtype == np.uint8:
        return _Part(array, kept, np.asarray)
    low, high = _extent(array, kept)
    if np.issubdtype(array.dtype, np.integer):
        if low < 0 or high > 255:
            raise DataError(f"{where} must be in 0..255, received {low}..{high}")
        return _Part(array, kept, _of_integers)
    if low < 0 or high > 1:
        raise DataError(
            f"{where} holds fractions, which must be in 0..1, received {low:g}..{high:g}; scale them, or save uint8"
        )
    return _Part(array, kept, _of_fractions)


def _extent(array: NDArray[Any], kept: Indices | None) -> tuple[Any, Any]:
    """The least and the greatest value."""
    extents = []
    for start, some in zip(_starts(array), _slices(array), strict=True):
        if kept is not None:
            some = some[kept[(start <= kept) & (kept < start + len(some))] - start]
        if len(some):
            extents.append((some.min(), some.max()))
    return min(low for low, _ in extents), max(high for _, high in extents)


def _starts(array: NDArray[Any]) -> range:
    return range(0, len(array), max(1, _CHECKED_VALUES // max(1, int(np.prod(array.shape[1:])))))


def _slices(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in parts, so that not all of it is in memory at once."""
    starts = _starts(array)
    return (array[start : start + starts.step] for start in starts)


def _of_integers(image: NDArray[Any]) -> Pixels:
    return image.astype(np.uint8)


def _of_fractions(image: NDArray[Any]) -> Pixels:
    return np.rint(image * 255.0).astype(np.uint8)
