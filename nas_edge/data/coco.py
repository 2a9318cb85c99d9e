"""`coco:FOLDER`: image folders with boxes in COCO's format (https://cocodataset.org/#format-data).

    FOLDER/annotations/instances_train2017.json     FOLDER/train2017/*.jpg
    FOLDER/annotations/instances_val2017.json       FOLDER/val2017/*.jpg

Each `instances_NAME.json` annotates the images in the folder NAME, which begins with `train`, `val` or `test`. Only the
first is required; as in `folders.py`, `val` is tested on if there is no `test`.

Read are `images` (`id`, `file_name`, `width`, `height`), `categories` (`id`, `name`) and `annotations` (`image_id`,
`category_id`, `bbox` as left, top, width and height in pixels, `iscrowd`). Crowds are neither trained on nor counted.
Boxes without area are left out, and so are categories that no training image has. Images without boxes are kept.

The files may come from anywhere, so any problem is one line that names the file and the entry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import Dataset, LeftOut, check_class_names, settle_bad
from nas_edge.data.folders import FolderFiles
from nas_edge.data.image_files import problem_with_file, read_whole, upright_size
from nas_edge.data.targets import MOST_BOXES, NONE
from nas_edge.data.threads import in_threads
from nas_edge.errors import DataError
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable

_FILES = "instances_*.json"
_PARTS = ("train", "val", "test")

# The largest side of an image, in pixels.
_LONGEST_SIDE = 65_535

# Files that one thread checks at a time.
_CHECKED_TOGETHER = 64


@dataclass(frozen=True)
class _Image:
    """An image of a file.

    Attributes:
        name: of its file, with slashes, within the part's folder.
        size: width and height in pixels.
        boxes: for each, the category's id in the file, left, top, right, bottom and whether it is a crowd.
    """

    name: str
    size: tuple[int, int]
    boxes: list[tuple[int, float, float, float, float, bool]]


@dataclass(frozen=True)
class _Part:
    """One part of the data: to train with, to score with or to test with.

    Attributes:
        file: with the annotations.
        folder: of the images.
        images: in the order of the file.
        categories: names by number.
    """

    file: Path
    folder: Path
    images: Sequence[_Image]
    categories: Mapping[int, str]


def load_coco(folder: Path, skip_bad: bool = False, workers: int = 0) -> Dataset:
    """Opens annotated image folders; see the top of this file.

    Args:
        folder: holds the folders of images and `annotations`.
        skip_bad: leaves out images that cannot be read, or are of another size than annotated.
        workers: threads that check images.

    Raises:
        DataError: when it cannot be used.
    """
    parts = [_read(file, folder / file.stem.removeprefix("instances_")) for file in _annotation_files(folder)]
    names = _class_names(parts)
    kept: list[list[_Image]] = []
    bad: list[str] = []
    for part in parts:
        problems = _problems(part, skip_bad, workers)
        bad += filter(None, problems)
        kept.append([image for image, problem in zip(part.images, problems, strict=True) if not problem])
    skipped = settle_bad(bad, sum(len(part.images) for part in parts), skip_bad)
    for part, images in zip(parts, kept, strict=True):
        if not images:
            raise DataError(f"{printable(str(part.file))} has no usable images")
    ends = np.cumsum([len(images) for images in kept]).tolist()
    return Dataset(
        FolderFiles(
            ((part.folder, [image.name for image in images]) for part, images in zip(parts, kept, strict=True)),
            read_whole,
        ),
        _boxes(parts, kept, names),
        tuple(names),
        ends[-2] if len(ends) > 1 else None,
        LeftOut(skipped=skipped),
        ends[-3] if len(ends) > 2 else None,
    )


def _annotation_files(folder: Path) -> list[Path]:
    """The annotation file of each part, beginning with the training part."""
    within = folder / "annotations"
    try:
        found = sorted(within.glob(_FILES))
    except OSError as error:
        raise DataError(f"cannot list {printable(str(within))}: {error.strerror or error}") from error
    by_part = {part: [file for file in found if file.stem.startswith(f"instances_{part}")] for part in _PARTS}
    for part, files in by_part.items():
        if len(files) > 1:
            both = " and ".join(printable(file.name) for file in files[:2])
            raise DataError(f"{printable(str(within))} holds both {both}; keep one file that begins with {part}")
    if not by_part["train"]:
        raise DataError(
            f"{printable(str(within))} holds no instances_train*.json",
            expected="annotations in COCO's format, instances_NAME.json for the images in the folder NAME beside it",
            received=", ".join(printable(file.name) for file in found) or "none",
        )
    return list(chain.from_iterable(by_part.values()))


# ---------------------------------------------------------------- reading a file


def _read(file: Path, folder: Path) -> _Part:
    if not folder.is_dir():
        raise DataError(
            f"{printable(str(file))} annotates images in {printable(str(folder))}, which is not a directory"
        )
    try:
        with open_regular(file) as stream:
            content = json.load(stream)
    except OSError as error:
        raise DataError(f"cannot read {printable(str(file))}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(str(file))} is not JSON: {printable(str(error))}") from None
    except MemoryError as error:
        raise DataError(f"{printable(str(file))} does not fit in memory") from error
    lists = [
        content.get(name) if isinstance(content, dict) else None for name in ("images", "categories", "annotations")
    ]
    if not all(isinstance(entries, list) for entries in lists):
        raise DataError(
            f"{printable(str(file))} is not in COCO's format", expected="lists `images`, `categories` and `annotations`"
        )
    images, categories = (
        _by_id(file, name, entries) for name, entries in zip(("images", "categories"), lists, strict=False)
    )
    found = {number: _image(file, where, entry) for number, (where, entry) in images.items()}
    names = {number: _text(file, where, entry, "name") for number, (where, entry) in categories.items()}
    check_class_names(list(names.values()), printable(str(file)))
    for place, entry in enumerate(lists[2] or ()):
        _take_box(file, f"annotations[{place}]", entry, found, names)
    return _Part(file, folder, list(found.values()), names)


def _wrong(file: Path, where: str, what: str, received: object) -> DataError:
    shown = printable(repr(received)[:80])
    return DataError(f"{printable(str(file))}: {where}: {what}", received=shown)


def _by_id(file: Path, name: str, entries: Any) -> dict[int, tuple[str, dict[str, Any]]]:
    """Where each entry is, and the entry, by its `id`."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for place, entry in enumerate(entries):
        where = f"{name}[{place}]"
        number = entry.get("id") if isinstance(entry, dict) else None
        if not _is_integer(number):
            raise _wrong(file, where, "expected an object with an integer `id`", entry)
        if number in found:
            raise _wrong(file, where, f"has the same `id` as {found[number][0]}", number)
        found[number] = where, entry
    return found


def _image(file: Path, where: str, entry: Mapping[str, Any]) -> _Image:
    name = _text(file, where, entry, "file_name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise _wrong(file, where, "`file_name` must be a path within the folder of images", name)
    width, height = entry.get("width"), entry.get("height")
    if not (_is_side(width) and _is_side(height)):
        raise _wrong(file, where, f"expected `width` and `height` from 1 to {_LONGEST_SIDE} pixels", (width, height))
    return _Image(name, (width, height), [])


def _take_box(file: Path, where: str, entry: Any, images: Mapping[int, _Image], names: Mapping[int, str]) -> None:
    """Adds an annotation to its image."""
    if not isinstance(entry, dict):
        raise _wrong(file, where, "expected an object", entry)
    for key, known in (("image_id", images), ("category_id", names)):
        if not _is_integer(entry.get(key)) or entry[key] not in known:
            raise _wrong(
                file,
                where,
                f"`{key}` is not the `id` of any of the {'images' if known is images else 'categories'}",
                entry.get(key),
            )
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        raise _wrong(file, where, "`bbox` must be left, top, width and height in pixels", box)
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _wrong(file, where, "`iscrowd` must be 0 or 1", crowd)
    image = images[entry["image_id"]]
    width, height = image.size
    left, top = max(0.0, float(box[0])), max(0.0, float(box[1]))
    right, bottom = min(float(width), float(box[0]) + float(box[2])), min(float(height), float(box[1]) + float(box[3]))
    if left >= right or top >= bottom:
        return
    if len(image.boxes) == MOST_BOXES:
        raise _wrong(file, where, f"its image has more than {MOST_BOXES} boxes", image.name)
    image.boxes.append((entry["category_id"], left, top, right, bottom, bool(crowd)))


def _text(file: Path, where: str, entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(file, where, f"expected a non-empty string as `{key}`", value)
    return value


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_side(value: object) -> TypeGuard[int]:
    return _is_integer(value) and 0 < value <= _LONGEST_SIDE


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


# ---------------------------------------------------------------- all files together


def _class_names(parts: Sequence[_Part]) -> list[str]:
    """The names of the categories in training images, in the order of their ids."""
    train, *others = parts
    taught = {box[0] for image in train.images for box in image.boxes if not box[5]}
    names = [train.categories[number] for number in sorted(taught)]
    if not names:
        raise DataError(f"{printable(str(train.file))} has no boxes to train on")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"{printable(str(train.file))} has two categories called {printable(repeated)!r}; rename one")
    for part in others:
        used = {part.categories[box[0]] for image in part.images for box in image.boxes}
        if used - set(names):
            raise DataError(
                f"{printable(str(part.file))} has boxes of {printable(min(used - set(names)))!r}, but "
                f"{printable(str(train.file))} has none"
            )
    return names


def _boxes(parts: Sequence[_Part], kept: Sequence[Sequence[_Image]], names: Sequence[str]) -> NDArray[np.float32]:
    """All boxes in the stored form of `boxes.py`."""
    numbers = {name: number for number, name in enumerate(names)}
    most = max((len(image.boxes) for images in kept for image in images), default=0)
    stored = np.zeros((sum(map(len, kept)), max(1, most), 8), np.float32)
    stored[..., 0] = NONE
    rows = iter(stored)
    for part, images in zip(parts, kept, strict=True):
        for image, row in zip(images, rows, strict=False):
            row[:, 6:] = image.size
            # Categories that occur only as crowds are not learned.
            boxes = [(numbers.get(part.categories[box[0]], NONE), *box[1:]) for box in image.boxes]
            if boxes:
                row[: len(boxes), :6] = boxes
    return stored


def _problems(part: _Part, decode: bool, workers: int) -> list[str]:
    """What is wrong with each image; empty if nothing is."""
    starts = range(0, len(part.images), _CHECKED_TOGETHER)
    together = [part.images[start : start + _CHECKED_TOGETHER] for start in starts]
    return list(chain.from_iterable(in_threads(partial(_problems_of, part.folder, decode), together, workers)))


def _problems_of(folder: Path, decode: bool, images: Sequence[_Image]) -> list[str]:
    return [_problem(folder / image.name, image.size, decode) for image in images]


def _problem(path: Path, size: tuple[int, int], decode: bool) -> str:
    problem = problem_with_file(path, decode)
    if problem:
        return problem
    found = upright_size(path)
    if found == size:
        return ""
    sides = [" x ".join(map(str, one)) for one in (found, size)]
    return f"{printable(str(path))} is {sides[0]} pixels (width x height, upright) but annotated as {sides[1]}"
