"""Where labelled images come from. Light: NumPy and Pillow only, and nothing is guessed about bad data.

    digits          scikit-learn's 1,797 real scans of handwritten digits, 8 x 8, one channel
    FILE.npz        arrays x and y, or x_train, y_train, x_test, y_test; optionally class_names
    FOLDER          one sub-folder per class with PNG or JPEG files, or train/ and test/ holding those
    tfrecord:FOLDER TFRecord files in the layout usual for ImageNet, see `tfrecords.py`
    tfds:NAME       a TensorFlow Datasets name (needs the extra `tfds`)

Whatever cannot be used is refused before a search starts, in one line that names the file and what to do.
"""

from __future__ import annotations

import importlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nas_edge.errors import DataError

Pixels: TypeAlias = NDArray[np.uint8]  # [n, height, width, channels]
Indices: TypeAlias = NDArray[np.int64]  # [n]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class Images(Protocol):
    """Images that are read when asked for: an array, or files."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`[n, height, width, channels]`."""

    def __getitem__(self, indices: Indices, /) -> Pixels:
        """The images at `indices`, `[len(indices), height, width, channels]`."""


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    Attributes:
        images: `uint8 [n, height, width, channels]`, one or three channels; an array or files read on demand.
        labels: `int32 [n]`, from 0 to the number of classes less one.
        class_names: one per class.
        test_start: where the test images that came with the data begin, or None when none came with it.
    """

    images: Images
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    test_start: int | None = None

    def __len__(self) -> int:
        return len(self.labels)


def load(source: str, image_size: int = 224) -> Dataset:
    """Opens a data source and checks it.

    Args:
        source: see the top of this file.
        image_size: side in pixels to which images of differing sizes (folders, TFDS) are brought when read; arrays
            keep their size.

    Raises:
        DataError: when the data cannot be used.
    """
    if source == "digits":
        return _load_digits()
    if source.startswith("tfds:"):
        return _load_tfds(source.removeprefix("tfds:"), image_size)
    if source.startswith("tfrecord:"):
        from nas_edge.data.tfrecords import load_tfrecords  # needs TensorFlow

        return load_tfrecords(Path(source.removeprefix("tfrecord:")).expanduser(), image_size)
    path = Path(source).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"cannot look at {source}: {error}") from error
    if is_folder:
        return _load_folder(path, image_size)
    if not exists:
        raise DataError(
            f"{source} does not exist; expected digits, a folder of class folders, a .npz file, tfrecord:FOLDER or "
            "tfds:NAME"
        )
    if path.suffix != ".npz":
        raise DataError(f"{source} is not a folder or a .npz file; images go into one folder per class")
    return _load_npz(path)


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """The centre square of an image, resized to `size` pixels with a bilinear filter (averaging when it shrinks)."""
    if image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Not resize(box=...), whose filter reaches outside the box.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BILINEAR)


# ---------------------------------------------------------------- arrays


def _load_digits() -> Dataset:
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError("the built-in digits need scikit-learn: pip install scikit-learn") from error
    digits = datasets.load_digits()
    # The scans count dark pixels in 4 x 4 cells, so 16 is black ink.
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    return Dataset(images, digits.target.astype(np.int32), tuple(str(name) for name in digits.target_names))


def _load_npz(path: Path) -> Dataset:
    try:
        # Opened here because numpy leaves a file that is no archive open.
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds a single array; save images and labels with numpy.savez(path, x=, y=)")
            arrays = {name: file[name] for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path} holds pickled objects, which are not opened; save plain number arrays") from error
        raise DataError(f"{path} cannot be read: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}); save it again with numpy.savez") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory; save images as uint8, or as files in class folders") from error

    if {"x_train", "y_train"} <= set(arrays):
        if ("x_test" in arrays) != ("y_test" in arrays):
            raise DataError(f"{path} has only one of x_test and y_test; give both or neither")
        parts = [("x_train", "y_train")] + ([("x_test", "y_test")] if "x_test" in arrays else [])
    elif {"x", "y"} <= set(arrays):
        parts = [("x", "y")]
    else:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path} must hold x and y, or x_train, y_train, x_test and y_test; found {found}")

    images = [_pixels(arrays[x], f"{x} of {path}") for x, _ in parts]
    labels = [check_labels(arrays[y], f"{y} of {path}") for _, y in parts]
    for (x, y), some_images, some_labels in zip(parts, images, labels, strict=True):
        if len(some_images) != len(some_labels):
            raise DataError(f"{path}: {x} has {len(some_images)} images but {y} has {len(some_labels)} labels")
    if len({part.shape[1:] for part in images}) > 1:
        raise DataError(f"{path}: x_train and x_test hold images of different shapes")
    names = tuple(str(name) for name in np.ravel(arrays["class_names"])) if "class_names" in arrays else None
    check_classes(labels[0], names, f"{parts[0][1]} of {path}")
    class_names = names or tuple(str(i) for i in range(int(labels[0].max()) + 1))
    if len(labels) == 2 and labels[1].max() >= len(class_names):
        raise DataError(f"y_test of {path} has label {labels[1].max()}, which no training image has")
    return Dataset(
        images[0] if len(images) == 1 else np.concatenate(images),
        np.concatenate(labels),
        class_names,
        len(labels[0]) if len(labels) == 2 else None,
    )


def _pixels(array: NDArray[Any], where: str) -> Pixels:
    """Checks an array of images and brings it to `uint8 [n, height, width, channels]`."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise DataError(
            f"{where} must be [n, height, width] or [n, height, width, 1 or 3], received {list(array.shape)}"
        )
    if array.dtype == np.uint8:
        return array
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"{where} must hold numbers, received {array.dtype}")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where} holds values that are not finite (NaN or infinity); remove those images")
    if np.issubdtype(array.dtype, np.integer):
        if low < 0 or high > 255:
            raise DataError(f"{where} must lie in 0..255, received {low}..{high}")
        return array.astype(np.uint8)
    if low < 0 or high > 1:
        raise DataError(f"{where} are fractions, so they must lie in 0..1, received {low:g}..{high:g}; or save uint8")
    return np.rint(array * 255.0).astype(np.uint8)


def check_labels(array: NDArray[Any], where: str) -> NDArray[np.int32]:
    """Checks labels and brings them to `int32 [n]`."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) == 0:
        raise DataError(f"{where} must be one class number per image, [n], received {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{where} must be whole numbers, received {array.dtype}; save them as an integer array")
    if array.min() < 0 or array.max() >= 2**31 - 1:
        raise DataError(f"{where} must be class numbers from 0, received {array.min()}..{array.max()}")
    return array.astype(np.int32)


def check_classes(labels: NDArray[np.int32], names: Sequence[str] | None, where: str) -> None:
    """Every class, named or up to the largest label, must have an image, and there must be two."""
    classes = len(names) if names is not None else int(labels.max()) + 1
    if labels.max() >= classes:
        raise DataError(f"{where} has label {labels.max()} but there are only {classes} class names")
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(f"{where} has images of one class only; there is nothing to tell apart")
    if len(present) < classes:
        # Not np.arange(classes): a stray label such as 2**30 must not allocate that much.
        missing = next(i for i, label in enumerate([*present.tolist(), classes]) if label != i)
        raise DataError(
            f"{where} has no image with label {missing}, of {classes} classes; number them from 0 without gaps"
        )


# ---------------------------------------------------------------- folders


class FolderImages:
    """Image files, decoded when asked for, so that memory is bounded by a batch.

    Args:
        files: one per image.
        size: side of the square they are brought to.
    """

    def __init__(self, files: Sequence[Path], size: int) -> None:
        self.files = tuple(files)
        self._size = size

    @property
    def shape(self) -> tuple[int, ...]:
        """`[n, size, size, 3]`."""
        return (len(self.files), self._size, self._size, 3)

    def __getitem__(self, indices: Indices, /) -> Pixels:
        pixels = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for row, index in enumerate(indices):
            file = self.files[int(index)]
            pixels[row] = read_image(file, file, self._size)
        return pixels


def read_image(source: Path | BinaryIO, name: object, size: int) -> Pixels:
    """Decodes one image to `uint8 [size, size, 3]`, upright as its EXIF orientation says.

    Args:
        source: the file.
        name: what it is called in errors.
        size: side of the square it is brought to.

    Raises:
        DataError: when it cannot be decoded.
    """
    try:
        with Image.open(source) as file:
            if file.mode.startswith(("I", "F")):
                raise DataError(f"{name} has more than 8 bits per channel ({file.mode}); convert it to 8 bits")
            upright = ImageOps.exif_transpose(file)
            if upright.has_transparency_data:  # a palette's transparency must be resolved before it can be dropped
                upright = upright.convert("RGBA")
            return np.asarray(fit_square(upright.convert("RGB"), size))
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not a PNG or JPEG image; replace or remove it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be decoded ({error}); replace or remove it") from error


def _load_folder(folder: Path, size: int) -> Dataset:
    try:
        parts = _sub_folders(folder)
        if {"train", "test"} <= {part.name for part in parts}:
            extra = [part.name for part in parts if part.name not in ("train", "test")]
            if extra:
                raise DataError(
                    f"{folder} holds {extra[0]}/ beside train/ and test/; move its images into train/, of which the "
                    "validation part is taken"
                )
            train, test = _sub_folders(folder / "train"), _sub_folders(folder / "test")
            if [c.name for c in train] != [c.name for c in test]:
                raise DataError(f"{folder}: train/ and test/ must hold the same class folders")
            classes, groups = train, [train, test]
        else:
            classes, groups = parts, [parts]
        if len(classes) < 2:
            raise DataError(f"{folder} must hold one sub-folder per class, at least two; found {len(classes)}")
        files, labels, counts = [], [], []
        for group in groups:
            for label, class_folder in enumerate(group):
                found = _image_files(class_folder)
                files += found
                labels += [label] * len(found)
            counts.append(len(files))
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error}") from error
    for file in files:
        _check_file(file, size)
    return Dataset(
        FolderImages(files, size),
        np.array(labels, np.int32),
        tuple(c.name for c in classes),
        counts[0] if len(groups) == 2 else None,
    )


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise DataError(f"class folder {folder} holds no PNG or JPEG files; add some or remove the folder")
    return found


def _check_file(path: Path, size: int) -> None:
    try:
        with path.open("rb") as file:
            check_image(file, path, size)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); replace or remove it") from error


def check_image(source: BinaryIO, name: object, size: int) -> None:
    """Finds unreadable images without decoding them all: the header must parse and the end marker be there.

    One without its end marker is decoded to see; cameras append data to files that are whole. Arguments and errors are
    those of `read_image`.
    """
    try:
        with Image.open(source) as image:
            whole = not image.mode.startswith(("I", "F"))
            source.seek(max(0, source.seek(0, io.SEEK_END) - 12))
            whole = whole and source.read().endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        whole = False
    if not whole:
        source.seek(0)
        read_image(source, name, size)


# ---------------------------------------------------------------- TensorFlow Datasets


def _load_tfds(name: str, size: int) -> Dataset:
    """Reads the splits `train` and, if there is one, `test` of a classification dataset into memory."""
    try:
        tfds: Any = importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise DataError(f"tfds:{name} needs TensorFlow Datasets: pip install 'nas_edge[tfds]'") from error
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
        features = builder.info.features
        if "image" not in features or "label" not in features:
            raise DataError(f"tfds:{name} has no image and label; choose an image classification dataset")
        splits = [split for split in ("train", "test") if split in builder.info.splits]
        if "train" not in splits:
            raise DataError(f"tfds:{name} has no train split")
        images, labels, counts = [], [], []
        for split in splits:
            for example in tfds.as_numpy(builder.as_dataset(split=split)):
                images.append(_fit_array(example["image"], size))
                labels.append(int(example["label"]))
            counts.append(len(labels))
    except DataError:
        raise
    except Exception as error:  # tfds raises its own types, not importable without it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"tfds:{name} cannot be loaded: {reason}") from error
    checked = check_labels(np.array(labels), f"label of tfds:{name}")
    names = tuple(str(n) for n in features["label"].names)
    check_classes(checked[: counts[0]], names, f"label of tfds:{name}")
    return Dataset(np.stack(images), checked, names, counts[0] if len(splits) == 2 else None)


def _fit_array(image: Pixels, size: int) -> Pixels:
    grey = image.shape[-1] == 1
    fitted = np.asarray(fit_square(Image.fromarray(image[..., 0] if grey else image), size))
    return fitted[..., None] if grey else fitted
