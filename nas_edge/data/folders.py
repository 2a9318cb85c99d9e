"""Image files in one folder per class, or in train/ and test/ holding those.

    FOLDER/cat/*.jpg          FOLDER/train/cat/*.jpg
    FOLDER/dog/*.png          FOLDER/test/cat/*.jpg

Folders and files whose names begin with a dot are not looked at. What else is not an image in a class folder is ignored
and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas_edge.data.dataset import (
    MISPLACED,
    SUB_FOLDER,
    Dataset,
    LeftOut,
    check_class_names,
    extension,
    settle_bad,
)
from nas_edge.data.image_files import IMAGE_SUFFIXES, SUPPORTED, FolderImages, problem_with_file
from nas_edge.errors import DataError
from nas_edge.terminal import printable


def load_folder(folder: Path, size: int, skip_bad: bool = False) -> Dataset:
    """Opens a folder of images and checks every file; see the top of this file.

    Args:
        folder: holds the class folders.
        size: side in pixels to which images are brought when read.
        skip_bad: leaves out images that cannot be read, instead of refusing the folder.

    Raises:
        DataError: when it cannot be used.
    """
    ignored: Counter[str] = Counter()
    try:
        names, groups = _class_folders(folder, ignored)
        listed = [[_image_files(class_folder, ignored) for class_folder in group] for group in groups]
    except OSError as error:
        raise DataError(f"cannot list {printable(str(error.filename or folder))}: {error.strerror or error}") from error
    check_class_names(names, str(folder))
    _refuse_empty(groups, listed, f"holds no images (supported: {SUPPORTED})", LeftOut(dict(ignored)))
    every = [file for group in listed for found in group for file in found]
    problems = {file: problem for file in every if (problem := problem_with_file(file, size))}
    left_out = LeftOut(dict(ignored), settle_bad(list(problems.values()), len(every), skip_bad))
    listed = [[[file for file in found if file not in problems] for found in group] for group in listed]
    _refuse_empty(groups, listed, "holds only bad images", left_out)
    files = [file for group in listed for found in group for file in found]
    labels = [label for group in listed for label, found in enumerate(group) for _ in found]
    return Dataset(
        FolderImages(files, size),
        np.array(labels, np.int32),
        tuple(names),
        sum(map(len, listed[0])) if len(listed) == 2 else None,
        left_out,
    )


def _refuse_empty(
    groups: Sequence[Sequence[Path]], listed: Sequence[Sequence[Sequence[Path]]], why: str, left_out: LeftOut
) -> None:
    empty = [
        printable(str(path))
        for group, files in zip(groups, listed, strict=True)
        for path, found in zip(group, files, strict=True)
        if not found
    ]
    if empty:
        more = f" (and {len(empty) - 1} other class folders)" if len(empty) > 1 else ""
        also = f"; {'; '.join(left_out.lines())}" if left_out.lines() else ""
        raise DataError(f"class folder {empty[0]}{more} {why}; add some or remove the folder{also}")


def _class_folders(folder: Path, ignored: Counter[str]) -> tuple[list[str], list[list[Path]]]:
    """Class names, and the class folders of each part: of all images, or of those of train/ and of test/."""
    parts = _sub_folders(folder, ignored)
    groups = [parts]
    if {"train", "test"} <= {part.name for part in parts}:
        extra = [part.name for part in parts if part.name not in ("train", "test")]
        if extra:
            raise DataError(
                f"{folder} holds {printable(extra[0])}/ beside train/ and test/; move its images into train/, which is "
                "split into a training and a validation part"
            )
        groups = [_sub_folders(folder / part, ignored) for part in ("train", "test")]
        train, test = ({path.name for path in group} for group in groups)
        if train != test:
            only = printable(min(train ^ test))
            raise DataError(
                f"{folder}: train/ and test/ must hold the same class folders; {only} is only in "
                f"{'train' if min(train ^ test) in train else 'test'}/"
            )
    names = [path.name for path in groups[0]]
    if len(names) < 2:
        raise DataError(f"{folder} must hold one sub-folder per class, at least two; found {len(names)}")
    return names, groups


def _sub_folders(folder: Path, ignored: Counter[str]) -> list[Path]:
    """Class folders, in order; files beside them are counted in `ignored`."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found.append(path)
        elif path.is_symlink() and not path.exists():
            raise DataError(f"{printable(str(path))} is a broken link; mend or remove it")
        else:
            ignored[MISPLACED if path.suffix.lower() in IMAGE_SUFFIXES else extension(path)] += 1
    return found


def _image_files(folder: Path, ignored: Counter[str]) -> list[Path]:
    """Everything with the name of an image, in order; what else there is is counted in `ignored`."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            ignored[SUB_FOLDER] += 1
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        else:
            ignored[extension(path)] += 1
    return found
