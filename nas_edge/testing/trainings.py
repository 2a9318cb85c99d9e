"""A small network, and images that it learns to tell apart in no time."""

from __future__ import annotations

import numpy as np

from nas_edge.data.augmentation import Augmentation
from nas_edge.data.dataset import Dataset
from nas_edge.data.preprocessing import standardize
from nas_edge.data.splits import Split
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.template import decode
from nas_edge.spaces.blocks import classifier, conv_norm
from nas_edge.tasks.base import TaskData
from nas_edge.tasks.classification import Classification, ClassificationSettings

_SIDE = 8


def small_network(outputs: int = 2) -> NetworkSpec:
    """One convolution with batch norm, pooling, dropout and as many outputs as are asked for."""
    parts: dict[str, L.Layer] = {"stem": conv_norm(4, "relu", 3, 2), "pool": L.GlobalAveragePool()}
    parts |= classifier(outputs, 0.1)
    return decode(L.Sequential(tuple(parts.items())), (_SIDE, _SIDE, 1), {})


def bright_or_dark(images: int = 128) -> tuple[Classification, TaskData]:
    """Two classes of images, dark and bright ones, with some noise; a quarter each to score and to test with."""
    rng = np.random.default_rng(0)
    labels = np.arange(images, dtype=np.int32) % 2
    pixels = rng.normal(90, 25, (images, _SIDE, _SIDE, 1)) + 70 * labels[:, None, None, None]
    dataset = Dataset(np.clip(pixels, 0, 255).astype(np.uint8), labels, ("dark", "bright"))
    train, validation, test = np.split(np.arange(images), [images // 2, 3 * images // 4])
    preprocessing = standardize(dataset, train, _SIDE, 1)
    data = TaskData(dataset, Split(train, validation, test), preprocessing, Augmentation())
    return Classification(ClassificationSettings()), data
