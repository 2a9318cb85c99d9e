"""Which image is trained on, which is searched with, which is only ever tested on.

One shuffled list per class is cut in three, so the parts are disjoint and cover everything by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nas_edge.data.dataset import Dataset, Indices
from nas_edge.errors import ConfigError, DataError


@dataclass(frozen=True)
class Split:
    """Indices into a dataset, ascending, without overlap.

    Attributes:
        train: what weights learn from.
        validation: what the controller's rewards and the selection are judged on.
        test: what the delivered model's accuracy is reported on, and nothing else.
    """

    train: Indices
    validation: Indices
    test: Indices


def split(
    dataset: Dataset,
    rng: np.random.Generator,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Split:
    """Splits a dataset, every class in the same proportions.

    Each class gives each part its share rounded to the nearest image, but at least one.

    Args:
        dataset: what to split. Test images that came with it are the test part, and the rest is split in two.
        rng: the order images are dealt in; the same generator state gives the same split.
        validation_fraction: share of the images that validate, those of a given test part not counted.
        test_fraction: share that tests; not used when test images came with the data.

    Raises:
        ConfigError: for fractions that leave no part of the data to one of the three.
        DataError: when a class has too few images to be in every part.
    """
    given = dataset.test_start is not None
    fractions = (validation_fraction,) if given else (validation_fraction, test_fraction)
    if not all(fraction > 0 for fraction in fractions) or not sum(fractions) < 1:
        received = " and ".join(map(str, fractions))
        raise ConfigError(f"validation and test fractions must be positive and leave some to train on; got {received}")

    available = dataset.labels[: dataset.test_start]
    parts: list[list[Indices]] = [[], [], []]
    for label, name in enumerate(dataset.class_names):
        members = rng.permutation(np.flatnonzero(available == label))
        needed = 1 + len(fractions)
        if len(members) < needed:
            raise DataError(f"class {name!r} has {len(members)} image(s) to split; it needs at least {needed}")
        held = [max(1, math.floor(fraction * len(members) + 0.5)) for fraction in fractions]
        while len(members) - sum(held) < 1:
            held[held.index(max(held))] -= 1
        cuts = np.cumsum(held)
        for part, indices in zip((1, 2, 0) if not given else (1, 0), np.split(members, cuts), strict=True):
            parts[part].append(indices)
    if given:
        parts[2] = [np.arange(dataset.test_start or 0, len(dataset))]
    train, validation, test = (np.sort(np.concatenate(part)).astype(np.int64) for part in parts)
    return Split(train, validation, test)
