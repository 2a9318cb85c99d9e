"""Classification data sets of TensorFlow Datasets, `tfds:NAME` (extra `tfds`), read from their files when asked for.

Of the splits `train`, `validation` and `test`, those whose examples have labels are used: as in `folders.py`,
architectures are scored on the validation images where there are labelled test images; otherwise they are what is
tested on. ImageNet's test images have no labels, for example.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import Dataset, EncodedImage, LeftOut, check_class_names, check_classes, check_labels
from nas_edge.errors import DataError

_SPLITS = ("train", "validation", "test")


class TfdsDataset(Dataset):
    """Examples in the order of their files; runs that do not record it had them in that of a mixed stream."""

    @property
    def reading(self) -> int:
        """See `Dataset`."""
        return 2


class TfdsImages:
    """Encoded images of splits, one split after another.

    Args:
        name: of the data set, for errors.
        splits: random-access sources of examples by name.
    """

    def __init__(self, name: str, splits: dict[str, Sequence[Any]]) -> None:
        self._name, self._splits = name, splits
        self._ends = np.cumsum([len(split) for split in splits.values()])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int, /) -> EncodedImage:
        number = int(np.searchsorted(self._ends, index, side="right"))
        split = list(self._splits)[number]
        place = index - (int(self._ends[number - 1]) if number else 0)
        name = f"example {place} of {split} of tfds:{self._name}"
        try:
            content = self._splits[split][place]["image"]
        except Exception as error:  # of the data set's own reader
            raise DataError(f"{name} cannot be read: {_first_line(error)}") from error
        return EncodedImage(bytes(content), name)


def load_tfds(name: str) -> Dataset:
    """Opens the splits of a classification data set.

    Raises:
        DataError: when there is no such data set, or it has no images with labels.
    """
    try:
        tfds: Any = importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise DataError(f"tfds:{name} requires TensorFlow Datasets: pip install 'nas_edge[tfds]'") from error
    try:
        # The format that can be read at any place.
        builder = tfds.builder(name, file_format="array_record")
        builder.download_and_prepare()
        features = builder.info.features
        if "image" not in features or "label" not in features:
            raise DataError(f"tfds:{name} has no image and label; choose an image classification dataset")
        if "train" not in builder.info.splits:
            raise DataError(f"tfds:{name} has no train split")
        splits: dict[str, Sequence[Any]] = {}
        labels: list[NDArray[np.int64]] = []
        ignored = {}
        for split in (split for split in _SPLITS if split in builder.info.splits):
            source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
            found = np.array([int(source[i]["label"]) for i in range(len(source))], np.int64)
            if split != "train" and (found == -1).all():
                ignored[f"{split} images without labels"] = len(source)
                continue
            splits[split] = source
            labels.append(found)
    except DataError:
        raise
    except Exception as error:  # tfds raises its own types, not importable without it
        raise DataError(f"tfds:{name} cannot be loaded: {_first_line(error)}") from error
    checked = check_labels(np.concatenate(labels), f"label of tfds:{name}")
    names = tuple(str(n) for n in features["label"].names)
    check_class_names(names, f"tfds:{name}")
    ends = np.cumsum([len(part) for part in labels]).tolist()
    check_classes(checked[: ends[0]], names, f"label of tfds:{name}")
    return TfdsDataset(
        TfdsImages(name, splits),
        checked,
        names,
        ends[-2] if len(ends) > 1 else None,
        LeftOut(ignored),
        ends[-3] if len(ends) > 2 else None,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]
