"""Kinds of targets: what networks are to answer for each image, and what arrays of them must be.

    classes   one class number per image, [n]
    labels    of every label whether an image has it, [n, labels]
    values    numbers, [n, values]
    masks     a class number per pixel, [n, height, width]
    boxes     boxes around objects with a class each, [n, boxes, 5 or 6], see `boxes.py`

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

# The class of a row that holds no box.
NONE = -1

# Largest number of boxes in one image; every image has as many rows as the one with the most.
MOST_BOXES = 1000


def _as_they_are(array: NDArray[Any], size: tuple[int, int], path: object, y: str, x: str) -> NDArray[Any]:
    return array


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
        fit: adapts checked targets to images of a height and width; the path and the names of y and x are for messages.
        join: joins the arrays of several parts.
    """

    name: str
    says: str
    names: str
    check: Callable[[NDArray[Any], str], NDArray[Any]]
    count: Callable[[NDArray[Any]], int]
    check_all: Callable[[NDArray[Any], Sequence[str] | None, str], None]
    fit: Callable[[NDArray[Any], tuple[int, int], object, str, str], NDArray[Any]] = _as_they_are
    join: Callable[[Sequence[NDArray[Any]]], NDArray[Any]] = np.concatenate


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


def _fit_masks(array: NDArray[Any], size: tuple[int, int], path: object, y: str, x: str) -> NDArray[Any]:
    if array.shape[1:] != size:
        sizes = [" x ".join(map(str, shape)) for shape in (array.shape[1:], size)]
        raise DataError(
            f"{path}: masks of {y} are {sizes[0]} (height x width) but images of {x} {sizes[1]}; "
            "save each mask in the size of its image"
        )
    return array


def _check_boxes(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    if array.ndim != 3 or 0 in array.shape or array.shape[2] not in (5, 6):
        raise DataError(
            f"{where} must be [n, boxes, 5 or 6]: class, left, top, right, bottom and perhaps ignored, received "
            f"{list(array.shape)}"
        )
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} must be numbers, received {array.dtype}")
    if array.shape[1] > MOST_BOXES:
        raise DataError(f"{where} has {array.shape[1]} boxes per image, expected {MOST_BOXES} or fewer")
    boxes = np.zeros((*array.shape[:2], 6), np.float32)
    boxes[..., : array.shape[2]] = array
    there = boxes[..., 0] != NONE
    wrong = ~np.isfinite(boxes).all(axis=2)
    with np.errstate(invalid="ignore"):
        wrong |= there & ((boxes[..., 0] < 0) | (boxes[..., 0] != np.rint(boxes[..., 0])) | (boxes[..., 0] >= 2**24))
        wrong |= there & ((boxes[..., 3:5] <= boxes[..., 1:3]).any(axis=2) | ~np.isin(boxes[..., 5], (0, 1)))
    if wrong.any():
        image, box = map(int, np.argwhere(wrong)[0])
        raise DataError(
            f"{where}: box {box} of image {image} must be a class number (or {NONE} for none), left < right, "
            f"top < bottom, and 0 or 1, received {boxes[image, box].tolist()}"
        )
    return boxes


def _fit_boxes(array: NDArray[Any], size: tuple[int, int], path: object, y: str, x: str) -> NDArray[Any]:
    """Boxes in their stored form: clipped to their images, with the images' width and height."""
    height, width = size
    boxes = np.zeros((*array.shape[:2], 8), np.float32)
    boxes[..., :6], boxes[..., 6:] = array, (width, height)
    boxes[..., 1:5] = np.clip(boxes[..., 1:5], 0, (width, height, width, height))
    outside = (boxes[..., 0] != NONE) & (boxes[..., 3:5] <= boxes[..., 1:3]).any(axis=2)
    if outside.any():
        image, box = map(int, np.argwhere(outside)[0])
        raise DataError(
            f"{path}: box {box} of image {image} of {y} lies outside of its image in {x}",
            expected=f"left, top, right and bottom in pixels of {width} x {height} (width x height)",
            received=f"{array[image, box, 1:5].tolist()}",
        )
    return boxes


def _join_boxes(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    most = max(part.shape[1] for part in parts)
    return np.concatenate([with_rows(part, most) for part in parts])


def with_rows(boxes: NDArray[Any], rows: int) -> NDArray[Any]:
    """Boxes `[n, boxes, columns]`, padded to `rows` per image; every row keeps the image's size."""
    more = np.zeros((len(boxes), rows - boxes.shape[1], boxes.shape[2]), boxes.dtype)
    more[..., 0], more[..., 6:] = NONE, boxes[:, :1, 6:]
    return np.concatenate([boxes, more], axis=1)


def _box_classes(array: NDArray[Any]) -> int:
    return int(array[..., 0].max()) + 1


def _check_box_classes(array: NDArray[Any], names: Sequence[str] | None, where: str) -> None:
    taught = np.unique(array[(array[..., 0] != NONE) & (array[..., 5] == 0), 0]).astype(int).tolist()
    if not taught:
        raise DataError(f"{where} has no boxes; detection needs at least one")
    classes = len(names) if names is not None else _box_classes(array)
    if _box_classes(array) > classes:
        raise DataError(f"{where} has class {_box_classes(array) - 1} but there are only {classes} class names")
    # Not range(classes): a stray class such as 2**23 must not allocate that much.
    missing = next((i for i, label in enumerate([*taught, classes]) if label != i), classes)
    if missing < classes:
        label = names[missing] if names else missing
        raise DataError(f"{where}: no box has the class {label!r}, so it cannot be learned; leave the class out")


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
    _fit_masks,
)
BOXES = TargetKind(
    "boxes",
    "a class, left, top, right and bottom per box, [n, boxes, 5]",
    "class_names",
    _check_boxes,
    _box_classes,
    _check_box_classes,
    _fit_boxes,
    _join_boxes,
)

KINDS = {kind.name: kind for kind in (CLASSES, LABELS, VALUES, MASKS, BOXES)}
