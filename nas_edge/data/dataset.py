"""Examples as the rest of the project sees them, and the checks that every source of them shares.

A source hands out examples as they are stored: encoded images are decoded, cropped and resized by whoever makes batches
(`loading.py`), so that a random crop is taken from the original. What is stored is known to the source and to the
preprocessing that goes with it; most are images.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.errors import BadImagesError, DataError
from nas_edge.terminal import printable

Pixels: TypeAlias = NDArray[np.uint8]  # [n, height, width, channels], or of one image [height, width, channels]
Indices: TypeAlias = NDArray[np.int64]  # [n]

SUB_FOLDER = "sub-folder"
NO_EXTENSION = "no extension"
MISPLACED = "outside the class folders"

# How many bad images, or types of ignored files, a message names before it only counts.
_NAMED = 10

# What follows the last dot of a strange name may be a text of its own.
_LONGEST_EXTENSION = 12


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file, in one of `image_files.IMAGE_TYPES`.

    Attributes:
        content: of the file.
        name: what it is called in errors; anything with a text.
    """

    content: bytes
    name: object


StoredImage: TypeAlias = Pixels | EncodedImage
StoredImages: TypeAlias = Pixels | Sequence[StoredImage]


class Stored(Protocol):
    """Examples as they are stored, read when asked for; images are `uint8 [n, height, width, channels]`, or files.

    What Grain calls a random-access data source.
    """

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int, /) -> Any:
        """One of them, a `StoredImage` if it is an image; may be asked for from several threads at once."""


class Targets(Protocol):
    """What a network is to answer for each example: an array, or what is read when asked for (a mask, boxes)."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, indices: Indices, /) -> NDArray[Any]:
        """Those of the examples at `indices`, `[len(indices), ...]`; may be asked for from several threads at once."""


@dataclass(frozen=True)
class LeftOut:
    """What a source holds and the dataset does not.

    Attributes:
        ignored: number of entries that are not examples in a class folder, by extension, or by `SUB_FOLDER`,
            `NO_EXTENSION` or what ends with `MISPLACED`. Hidden files are not counted.
        skipped: for each bad example that was skipped, which one it is and what is wrong with it.
        example: what one is called.
    """

    ignored: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    example: str = "image"

    def lines(self) -> tuple[str, ...]:
        """What to tell the user, a line each; none when nothing was left out."""
        lines = []
        if self.ignored:
            counts = Counter(self.ignored).most_common()
            named = [f"{extension} ({count:,})" for extension, count in counts[:_NAMED]]
            if len(counts) > _NAMED:
                named.append(f"other types ({sum(count for _, count in counts[_NAMED:]):,})")
            nouns = ("entry", "entries") if SUB_FOLDER in self.ignored else ("file", "files")
            total = sum(self.ignored.values())
            one, several = (
                f"{nouns[0]} that is not a usable {self.example}",
                f"{nouns[1]} that are not usable {self.example}s",
            )
            says = one if total == 1 else several
            lines.append(f"ignored {total:,} {says}: {', '.join(named)}")
        if self.skipped:
            bad = f"bad {self.example}" if len(self.skipped) == 1 else f"bad {self.example}s"
            lines.append(f"skipped {len(self.skipped):,} {bad}: {_first_of(self.skipped)}")
        return tuple(lines)

    def to_json(self) -> dict[str, Any]:
        """For the record of a run, as JSON values."""
        return {"ignored": dict(self.ignored), "skipped": list(self.skipped)}


@dataclass(frozen=True)
class Dataset:
    """Examples and what a network is to answer for each.

    Attributes:
        images: the examples, as they are stored; images are all of one or all of three channels.
        labels: the task's targets, `[n, ...]`, an array or read on demand; of a classifier an array `int32 [n]`, from 0
            to the number of classes less one.
        class_names: one per class, label or value; none where there are no such.
        test_start: where the test images that came with the data begin, or None when none came with it.
        left_out: what the source holds and this does not.
        validation_start: where the validation images that came with the data begin, which end where the test images
            begin; None when none came with it. There are none without test images.
        target_scale: of values that were standardised, mean and standard deviation of each, `[2, values]`.
        target_view: makes a network's targets of stored ones where those change with the image; None where they do not.
    """

    images: Stored
    labels: Any
    class_names: tuple[str, ...] = ()
    test_start: int | None = None
    left_out: LeftOut = field(default_factory=LeftOut)
    validation_start: int | None = None
    target_scale: Any = None
    target_view: Any = None  # masks.MaskView

    def __len__(self) -> int:
        return len(self.labels)

    def to_json(self) -> dict[str, Any]:
        """What a run records of its data, to know them again, as JSON values."""
        facts: dict[str, Any] = {**self.left_out.to_json(), "examples": len(self), "reading": self.reading}
        if isinstance(self.labels, np.ndarray):
            facts["targets"] = hashlib.sha256(np.ascontiguousarray(self.labels).tobytes()).hexdigest()[:16]
        return facts

    @property
    def reading(self) -> int:
        """Which version of order and parts this is: 1 is that of runs which do not record it."""
        return 1 if self.validation_start is None else 2

    @property
    def channels(self) -> Literal[1, 3]:
        """Channels of the images: 1 for arrays of grey images, else 3."""
        first = self.images[0]
        return 1 if isinstance(first, np.ndarray) and first.shape[-1] == 1 else 3

    def stored(self, indices: Indices) -> Any:
        """The examples at `indices`, as they are stored; of images, `StoredImages`."""
        if isinstance(self.images, np.ndarray):
            return self.images[indices]
        return [self.images[int(index)] for index in indices]


def settle_bad(
    bad: Sequence[str], total: int, skip_bad: bool, where: str = "", example: str = "image"
) -> tuple[str, ...]:
    """Refuses bad examples, all in one error, unless they are to be skipped.

    Args:
        bad: which example, and what is wrong with it, for each.
        total: how many were checked.
        skip_bad: whether to go on without them.
        where: the file they are in, where `bad` does not name it.
        example: what one is called.

    Returns:
        `bad`, for `LeftOut.skipped`.

    Raises:
        BadImagesError: when there is one and `skip_bad` is off.
    """
    if not bad or skip_bad:
        return tuple(bad)
    begins = f"{where}: " if where else ""
    if len(bad) == 1:
        raise BadImagesError(f"{begins}{bad[0]}", fix="replace or remove it, or skip it with --skip-bad")
    raise BadImagesError(
        f"{begins}{len(bad):,} of {total:,} {example}s cannot be used: {_first_of(bad)}",
        fix="replace or remove them, or skip them with --skip-bad",
    )


def _first_of(bad: Sequence[str]) -> str:
    more = [f"and {len(bad) - _NAMED:,} more"] if len(bad) > _NAMED else []
    return "; ".join([*bad[:_NAMED], *more])


def extension(path: Path) -> str:
    """The extension of an ignored file, as `LeftOut.ignored` names it."""
    return printable(path.suffix.lower()[:_LONGEST_EXTENSION]) or NO_EXTENSION


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
        raise DataError(f"{where} has images of only one class; a classifier needs at least two")
    if len(present) < classes:
        # Not np.arange(classes): a stray label such as 2**30 must not allocate that much.
        missing = next(i for i, label in enumerate([*present.tolist(), classes]) if label != i)
        raise DataError(
            f"{where} has no image with label {missing}, of {classes} classes; number them from 0 without gaps"
        )


def check_class_names(names: Sequence[str], where: str) -> None:
    """A name must be a line of text, as in a bundle's `labels.txt`.

    Raises:
        DataError: for the first that is not.
    """
    for name in names:
        if name.splitlines() != [name] or any("\ud800" <= c <= "\udfff" for c in name):
            shown = repr(printable(name))
            raise DataError(f"{where}: a class name must be one line of UTF-8 text; received {shown}; rename the class")
