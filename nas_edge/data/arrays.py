"""Images that fit in memory: an .npz file, or the digits that come with scikit-learn.

An .npz file holds x and y, or x_train, y_train, x_test and y_test; optionally class_names. Images are
`[n, height, width]` or `[n, height, width, 1 or 3]`, as integers 0..255 or fractions 0..1; labels are class
numbers from 0.
"""

from __future__ import annotations

import importlib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import Dataset, LeftOut, Pixels, check_class_names, check_classes, check_labels, settle_bad
from nas_edge.errors import DataError
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable


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


def load_npz(path: Path, skip_bad: bool) -> Dataset:
    """Opens an .npz file; see the top of this file.

    Args:
        path: of the file.
        skip_bad: leaves out images with values that are not finite, instead of refusing the file.

    Raises:
        DataError: when it cannot be used.
    """
    arrays = _read(path)
    if {"x_train", "y_train"} <= set(arrays):
        if ("x_test" in arrays) != ("y_test" in arrays):
            raise DataError(f"{path} has only one of x_test and y_test; give both or neither")
        parts = [("x_train", "y_train")] + ([("x_test", "y_test")] if "x_test" in arrays else [])
    elif {"x", "y"} <= set(arrays):
        parts = [("x", "y")]
    else:
        found = printable(", ".join(sorted(arrays))) or "nothing"
        raise DataError(f"{path} must hold x and y, or x_train, y_train, x_test and y_test; found {found}")

    images, labels, bad = [], [], []
    for x, y in parts:
        finite = _finite(arrays[x], f"{x} of {path}")
        some_images, some_labels = arrays[x], check_labels(arrays[y], f"{y} of {path}")
        if len(finite) != len(some_labels):
            raise DataError(f"{path}: {x} has {len(finite)} images but {y} has {len(some_labels)} labels")
        bad += [f"image {i} of {x} holds values that are not finite (NaN or infinity)" for i in np.flatnonzero(~finite)]
        if skip_bad and not finite.all():
            some_images, some_labels = some_images[finite], some_labels[finite]
        images.append(some_images)
        labels.append(some_labels)
    skipped = settle_bad(bad, sum(map(len, images)), skip_bad, str(path))
    pixels = [_pixels(part, f"{x} of {path}") for part, (x, _) in zip(images, parts, strict=True)]
    if len({part.shape[1:] for part in pixels}) > 1:
        raise DataError(f"{path}: x_train and x_test hold images of different shapes")
    names = tuple(str(name) for name in np.ravel(arrays["class_names"])) if "class_names" in arrays else None
    check_classes(labels[0], names, f"{parts[0][1]} of {path}")
    class_names = names or tuple(str(i) for i in range(int(labels[0].max()) + 1))
    check_class_names(class_names, f"class_names of {path}")
    if len(labels) == 2 and labels[1].max(initial=0) >= len(class_names):
        raise DataError(f"y_test of {path} has label {labels[1].max()}, which no training image has")
    return Dataset(
        pixels[0] if len(pixels) == 1 else np.concatenate(pixels),
        np.concatenate(labels),
        class_names,
        len(labels[0]) if len(labels) == 2 else None,
        LeftOut(skipped=skipped),
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name."""
    try:
        # Opened here because numpy leaves a file that is no archive open.
        with open_regular(path) as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds a single array; save images and labels with numpy.savez(path, x=, y=)")
            return {name: file[name] for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path} holds pickled objects, which are not opened; save plain number arrays") from error
        raise DataError(f"{path} cannot be read: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}); save it again with numpy.savez") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory; save images as uint8, or as files in class folders") from error


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
    return np.array([np.isfinite(image).all() for image in array])


def _pixels(array: NDArray[Any], where: str) -> Pixels:
    """Brings an array of images that `_finite` accepts to `uint8 [n, height, width, channels]`."""
    if len(array) == 0:
        raise DataError(f"{where} has no images without NaN or infinity")
    if array.ndim == 3:
        array = array[..., None]
    if array.dtype == np.uint8:
        return array
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.integer):
        if low < 0 or high > 255:
            raise DataError(f"{where} must be in 0..255, received {low}..{high}")
        return array.astype(np.uint8)
    if low < 0 or high > 1:
        raise DataError(
            f"{where} holds fractions, which must be in 0..1, received {low:g}..{high:g}; scale them, or save uint8"
        )
    return np.rint(array * 255.0).astype(np.uint8)
