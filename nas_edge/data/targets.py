"""Kinds of targets: what networks are to answer for each image, and what arrays of them must be.

    classes   one class number per image, [n]
    labels    of every label whether an image has it, [n, labels]
    values    numbers, [n, values]
    masks     a class number per pixel, [n, height, width]

A task names the kind that it learns. `sources.load` brings it along, or says that a source does not have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import check_classes, check_labels
from nas_edge.errors import DataError

# Of a pixel that no class is known of, which neither teaches nor counts; as in PASCAL VOC.
VOID = 255


@dataclass(frozen=True)
class TargetKind:
    """A kind of targets.

    Attributes:
        name: as messages and the cache of `procedural` name it.
        says: what they are, in a few words.
        names: what an .npz file calls the names of classes, labels or values.
        check: checks an array of them, named by its second argument, and brings it to the kind's type.
        count: how many classes, labels or values there are in a checked array.
        check_all: checks a whole training part with its names, or None, named by its third argument.
    """

    name: str
    says: str
    names: str
    check: Callable[[NDArray[Any], str], NDArray[Any]]
    count: Callable[[NDArray[Any]], int]
    check_all: Callable[[NDArray[Any], Sequence[str] | None, str], None]


def _check_label_flags(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{where} must be [n, labels], received {list(array.shape)}")
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise DataError(f"{where} must be 0 or 1 for each label, received {array.dtype} with other values")
    return array.astype(np.uint8)


def _check_values(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{where} must be [n] or [n, values], received {list(array.shape)}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} must be numbers, received {array.dtype}")
    if not np.isfinite(array).all():
        raise DataError(f"{where} has values that are not finite (NaN or infinity)")
    return array.astype(np.float32)


def _check_masks(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"{where} must be [n, height, width], received {list(array.shape)}")
    if array.dtype.kind not in "iu":
        raise DataError(f"{where} must be whole numbers, received {array.dtype}; save them as an integer array")
    if array.min() < 0 or array.max() > VOID:
        raise DataError(
            f"{where} must be class numbers from 0 to {VOID - 1}, or {VOID} where the class is unknown, "
            f"received {array.min()}..{array.max()}"
        )
    return array.astype(np.uint8, copy=False)


def _check_columns(array: NDArray[Any], names: Sequence[str] | None, where: str) -> None:
    if names is not None and len(names) != array.shape[1]:
        raise DataError(f"{where} has {array.shape[1]} columns but there are {len(names)} names")


def _check_label_columns(array: NDArray[Any], names: Sequence[str] | None, where: str) -> None:
    _check_columns(array, names, where)
    for state, columns in (("no", ~array.any(axis=0)), ("every", array.all(axis=0))):
        if columns.any():
            number = int(columns.argmax())
            label = names[number] if names else number
            raise DataError(f"{where}: {state} image has the label {label!r}, so it cannot be learned; leave it out")


def _check_varied(array: NDArray[Any], names: Sequence[str] | None, where: str) -> None:
    _check_columns(array, names, where)
    constant = np.ptp(array, axis=0) == 0
    if constant.any():
        number = int(constant.argmax())
        value = names[number] if names else number
        raise DataError(f"{where}: column {value!r} is the same for all images; leave it out")


def _mask_classes(array: NDArray[Any]) -> int:
    return int(np.max(array, initial=0, where=array != VOID)) + 1


def _check_mask_classes(array: NDArray[Any], names: Sequence[str] | None, where: str) -> None:
    largest = _mask_classes(array) - 1
    if names is not None and largest >= len(names):
        raise DataError(f"{where} has class {largest} but there are only {len(names)} class names")
    if largest < 1 and (array == VOID).any():
        raise DataError(
            f"{where} has no class but 0, and {VOID} means that the class is unknown; if {VOID} is the foreground, "
            "save it as 1"
        )
    if largest < 1:
        raise DataError(f"{where} has only one class; segmentation needs at least two")


def _number_of_classes(array: NDArray[Any]) -> int:
    return int(array.max()) + 1


def _columns(array: NDArray[Any]) -> int:
    return int(array.shape[1])


CLASSES = TargetKind(
    "classes", "a class number per image", "class_names", check_labels, _number_of_classes, check_classes
)
LABELS = TargetKind(
    "labels",
    "whether an image has each label, [n, labels]",
    "label_names",
    _check_label_flags,
    _columns,
    _check_label_columns,
)
VALUES = TargetKind("values", "numbers, [n, values]", "value_names", _check_values, _columns, _check_varied)
MASKS = TargetKind(
    "masks",
    "a class number per pixel, [n, height, width]",
    "class_names",
    _check_masks,
    _mask_classes,
    _check_mask_classes,
)

KINDS = {kind.name: kind for kind in (CLASSES, LABELS, VALUES, MASKS)}
