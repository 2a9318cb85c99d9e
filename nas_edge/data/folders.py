"""Files in one folder per class, or in train/, val/ and test/ holding those; images, or another `FileKind`.

    FOLDER/cat/*.jpg          FOLDER/train/cat/*.jpg
    FOLDER/dog/*.png          FOLDER/val/cat/*.jpg      or valid/, validation/
                              FOLDER/test/cat/*.jpg

Beside train/ there is val/ or test/ or both. Architectures are scored on the images of val/ where there is a test/ to
test on; alone, val/ is what is tested on, as usual for ImageNet, and a part of train/ scores architectures.

Folders and files whose names begin with a dot are not looked at. What else is not an example in a class folder is
ignored and counted. Every file is checked before the search, by several threads, and decoded where bad ones are to be
skipped; what was found is kept, see `examined.py`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from nas_edge.data.dataset import (
    MISPLACED,
    SUB_FOLDER,
    Dataset,
    LeftOut,
    check_class_names,
    extension,
    settle_bad,
)
from nas_edge.data.examined import Examined, Stamp
from nas_edge.data.image_files import IMAGE_SUFFIXES, SUPPORTED, problem_with_file, read_whole
from nas_edge.data.threads import in_threads
from nas_edge.errors import DataError
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable

# What the parts of a data set may be called.
_TRAIN, _VALIDATION, _TEST = ("train",), ("val", "valid", "validation"), ("test",)

# Files that one thread checks at a time.
_CHECKED_TOGETHER = 64


@dataclass(frozen=True)
class FileKind:
    """The kind of files to look for.

    Attributes:
        example: what a file contains, such as `image`.
        suffixes: of their names, in lower case.
        supported: the formats that are read, for messages.
        problem: what is wrong with a file, naming it, empty if nothing is; with True it decodes the whole file.
        examiners: name what `problem` examines, without and with decoding, with its version; findings of one depth are
            not used for the other.
        read: reads a file.
        aside: names of folders beside the class folders that hold something else.
        lists: text files beside the class folders that name files, `CLASS/FILE` in each line: those of the validation
            part and those of the test part. All other files are for training.
    """

    example: str
    suffixes: Collection[str]
    supported: str
    problem: Callable[[Path, bool], str]
    examiners: tuple[str, str]
    read: Callable[[Path], Any]
    aside: Collection[str] = ()
    lists: tuple[str, str] | None = None

    @property
    def examples(self) -> str:
        """Several of them."""
        return f"{self.example}s"


IMAGE_FILES = FileKind(
    example="image",
    suffixes=IMAGE_SUFFIXES,
    supported=SUPPORTED,
    problem=problem_with_file,
    examiners=(f"image headers 1, Pillow {PIL.__version__}", f"image pixels 1, Pillow {PIL.__version__}"),
    read=read_whole,
)


class FolderFiles:
    """Files, read when asked for. Of a million of them, the names take 30 MB.

    Args:
        folders: with the names of their files, in order.
        read: reads one.
    """

    def __init__(self, folders: Iterable[tuple[Path, Sequence[str]]], read: Callable[[Path], Any]) -> None:
        self._read = read
        self._folders: list[Path] = []
        names, starts, counts = bytearray(), [0], []
        for folder, files in folders:
            self._folders.append(folder)
            counts.append(len(files))
            for file in files:
                names += os.fsencode(file)
                starts.append(len(names))
        self._names, self._starts = bytes(names), np.array(starts, np.int64)
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def path(self, index: int) -> Path:
        """Where an example is."""
        name = self._names[self._starts[index] : self._starts[index + 1]]
        return self._folders[int(np.searchsorted(self._ends, index, side="right"))] / os.fsdecode(name)

    def __getitem__(self, index: int, /) -> Any:
        return self._read(self.path(index))


@dataclass
class _ClassFolder:
    """A class's files in one part of the data.

    Attributes:
        folder: where they are.
        files: their names, in order.
        bad: what is wrong with those that cannot be read, by name.
    """

    folder: Path
    files: list[str]
    bad: dict[str, str]

    @property
    def good(self) -> list[str]:
        """Names of the files that can be read."""
        return [file for file in self.files if file not in self.bad] if self.bad else self.files


def load_folder(folder: Path, skip_bad: bool = False, workers: int = 0, files: FileKind = IMAGE_FILES) -> Dataset:
    """Opens a folder of examples and checks every file; see the top of this file.

    Args:
        folder: holds the class folders.
        skip_bad: leaves out files that cannot be read, instead of refusing the folder. All are decoded to see: a run
            must not stop at one of them later.
        workers: threads that check.
        files: what to look for.

    Raises:
        DataError: when it cannot be used.
    """
    ignored: Counter[str] = Counter()
    try:
        names, parts = _class_folders(folder, files, ignored)
        listed = [[_ClassFolder(path, _file_names(path, files, ignored), {}) for path in part] for part in parts]
    except OSError as error:
        raise DataError(f"cannot list {printable(str(error.filename or folder))}: {error.strerror or error}") from error
    check_class_names(names, str(folder))
    every = list(chain.from_iterable(listed))
    left_out = LeftOut(dict(ignored), example=files.example)
    _refuse_empty(every, f"holds no {files.examples} (supported: {files.supported})", left_out)
    examined = Examined(folder, files.examiners[skip_bad])
    for found in every:
        _check(found, examined, files, skip_bad, workers)
    problems = [problem for found in every for problem in found.bad.values()]
    total = sum(len(found.files) for found in every)
    left_out = replace(left_out, skipped=settle_bad(problems, total, skip_bad, example=files.example))
    for found in every:
        found.files, found.bad = found.good, {}
    _refuse_empty(every, f"holds only bad {files.examples}", left_out)
    if files.lists is not None and len(listed) == 1:
        listed = _as_listed(folder, listed[0], files.lists)
    counts = [[len(found.files) for found in part] for part in listed]
    labels = np.concatenate([np.repeat(np.arange(len(names), dtype=np.int32), part) for part in counts])
    ends = np.cumsum([sum(part) for part in counts]).tolist()
    return Dataset(
        FolderFiles(((found.folder, found.files) for part in listed for found in part), files.read),
        labels,
        tuple(names),
        ends[-2] if len(ends) > 1 else None,
        left_out,
        ends[-3] if len(ends) > 2 else None,
    )


def _as_listed(folder: Path, every: Sequence[_ClassFolder], lists: tuple[str, str]) -> list[list[_ClassFolder]]:
    """The parts to train, score and test with, given by the lists that exist; see `FileKind.lists`.

    Lines about missing files are ignored, since a folder may hold only some classes of a data set.
    """
    named = {name: _lines(folder / name) for name in lists if (folder / name).exists()}
    parts = []
    for name, lines in named.items():
        part = []
        for found in every:
            chosen = [file for file in found.files if f"{found.folder.name}/{file}" in lines]
            if not chosen:
                raise DataError(f"{folder / name} lists no file of class {printable(found.folder.name)!r}; add some")
            part.append(_ClassFolder(found.folder, chosen, {}))
        parts.append(part)
    taken = set(chain.from_iterable(named.values()))
    rest = [[file for file in found.files if f"{found.folder.name}/{file}" not in taken] for found in every]
    for found, files in zip(every, rest, strict=True):
        if not files:
            raise DataError(
                f"{' and '.join(named)} of {folder} list every file of class {printable(found.folder.name)!r}; leave "
                "some for training"
            )
    if twice := sorted(line for line in taken if all(line in lines for lines in named.values()) and len(named) > 1):
        raise DataError(f"{printable(twice[0])} is in both {' and '.join(named)} of {folder}; keep it in one of them")
    return [[_ClassFolder(found.folder, files, {}) for found, files in zip(every, rest, strict=True)], *parts]


def _lines(file: Path) -> set[str]:
    """The lines of a text file."""
    try:
        with open_regular(file) as stream:
            return {line.strip() for line in stream.read().decode().splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{printable(str(file))} cannot be read as lines of text: {error}") from error


def _check(found: _ClassFolder, examined: Examined, files: FileKind, decode: bool, workers: int) -> None:
    """Finds the bad files of a folder; those that were examined before are not opened."""
    known = examined.known(str(found.folder))
    stamps: dict[str, Stamp] = {}
    within = str(found.folder) + os.sep
    for file in found.files:
        try:
            stamps[file] = Stamp.of(os.stat(within + file))  # noqa: PTH116 # a million paths would take a minute
        except OSError:
            continue  # what is wrong is said when it is opened
    results = {name: text for name, (stamp, text) in known.items() if stamps.get(name) == stamp}
    unknown = [file for file in found.files if file not in results]
    together = [unknown[start : start + _CHECKED_TOGETHER] for start in range(0, len(unknown), _CHECKED_TOGETHER)]
    fresh: dict[str, str] = {}
    look = partial(_problems, found.folder, files, decode)
    for some, problems in zip(together, in_threads(look, together, workers), strict=True):
        fresh |= zip(some, problems, strict=True)
    kept = {name: (stamps[name], problem.encode()) for name, problem in fresh.items() if name in stamps}
    gone = known.keys() - set(found.files)
    if kept or gone:
        examined.keep(str(found.folder), kept, gone)
    texts = {name: text.decode() for name, text in results.items() if text} | {n: p for n, p in fresh.items() if p}
    found.bad = {name: texts[name] for name in found.files if name in texts} if texts else {}


def _problems(folder: Path, files: FileKind, decode: bool, names: Sequence[str]) -> list[str]:
    return [files.problem(folder / name, decode) for name in names]


def _refuse_empty(every: Sequence[_ClassFolder], why: str, left_out: LeftOut) -> None:
    empty = [printable(str(found.folder)) for found in every if not found.files]
    if empty:
        more = f" (and {len(empty) - 1} other class folders)" if len(empty) > 1 else ""
        also = f"; {'; '.join(left_out.lines())}" if left_out.lines() else ""
        raise DataError(f"class folder {empty[0]}{more} {why}; add some or remove the folder{also}")


def _class_folders(folder: Path, files: FileKind, ignored: Counter[str]) -> tuple[list[str], list[list[Path]]]:
    """Class names, and the class folders of each part: of all files, or of those to train, score and test with."""
    found = _sub_folders(folder, files, ignored)
    by_name = {path.name: path for path in found}
    given = [_only(folder, by_name, names, files) for names in (_TRAIN, _VALIDATION, _TEST)]
    named = [path for path in given if path is not None]
    groups = [found]
    if given[0] is not None and len(named) > 1:
        extra = [path.name for path in found if path not in named]
        if extra:
            beside = " and ".join(f"{path.name}/" for path in named)
            raise DataError(
                f"{folder} holds {printable(extra[0])}/ beside {beside}; move its {files.examples} into one of these"
            )
        groups = [_sub_folders(path, files, ignored) for path in named]
        for path, group in zip(named[1:], groups[1:], strict=True):
            differing = {one.name for one in groups[0]} ^ {one.name for one in group}
            if differing:
                only = min(differing)
                where = path if any(one.name == only for one in group) else named[0]
                raise DataError(
                    f"{folder}: {named[0].name}/ and {path.name}/ must hold the same class folders; {printable(only)} "
                    f"is only in {where.name}/"
                )
    names = [path.name for path in groups[0]]
    if len(names) < 2:
        raise DataError(f"{folder} must hold one sub-folder per class, at least two; found {len(names)}")
    return names, groups


def _only(folder: Path, by_name: dict[str, Path], names: Sequence[str], files: FileKind) -> Path | None:
    """The folder with one of these names."""
    found = [by_name[name] for name in names if name in by_name]
    if len(found) > 1 and "train" in by_name:
        both = f"{found[0].name}/ and {found[1].name}/"
        raise DataError(f"{folder} holds both {both}; move the {files.examples} into one of them")
    return found[0] if found else None


def _sub_folders(folder: Path, files: FileKind, ignored: Counter[str]) -> list[Path]:
    """Class folders, in order; files beside them are counted in `ignored`."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in (*files.aside, *(files.lists or ())):
            continue
        if path.is_dir():
            found.append(path)
        elif path.is_symlink() and not path.exists():
            raise DataError(f"{printable(str(path))} is a broken link; mend or remove it")
        else:
            misplaced = path.suffix.lower() in files.suffixes
            ignored[f"{files.example} {MISPLACED}" if misplaced else extension(path)] += 1
    return found


def _file_names(folder: Path, files: FileKind, ignored: Counter[str]) -> list[str]:
    """Names of everything with the name of an example, in order; what else there is is counted in `ignored`."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 # a million paths would take seconds
            if _is_folder(entry):
                ignored[SUB_FOLDER] += 1
            elif suffix in files.suffixes:
                found.append(entry.name)
            else:
                ignored[extension(Path(entry.name))] += 1
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which is said when it is opened
        return False
