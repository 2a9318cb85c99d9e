"""Classification data sets of TensorFlow Datasets, `tfds:NAME` (extra `tfds`)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from PIL import Image

from nas_edge.data.dataset import Dataset, Pixels, check_class_names, check_classes, check_labels
from nas_edge.data.image_files import fit_square
from nas_edge.errors import DataError


def load_tfds(name: str, size: int) -> Dataset:
    """Reads the splits `train` and, if there is one, `test` of a classification dataset into memory.

    Raises:
        DataError: when there is no such dataset, or it has no images with labels.
    """
    try:
        tfds: Any = importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise DataError(f"tfds:{name} requires TensorFlow Datasets: pip install 'nas_edge[tfds]'") from error
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
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise DataError(f"tfds:{name} cannot be loaded: {reason}") from error
    checked = check_labels(np.array(labels), f"label of tfds:{name}")
    names = tuple(str(n) for n in features["label"].names)
    check_class_names(names, f"tfds:{name}")
    check_classes(checked[: counts[0]], names, f"label of tfds:{name}")
    return Dataset(np.stack(images), checked, names, counts[0] if len(splits) == 2 else None)


def _fit_array(image: Pixels, size: int) -> Pixels:
    grey = image.shape[-1] == 1
    fitted = np.asarray(fit_square(Image.fromarray(image[..., 0] if grey else image), size))
    return fitted[..., None] if grey else fitted
