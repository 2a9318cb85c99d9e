"""Splits a dataset into training, validation and test images.

The shuffled images of each class are cut into three parts, so parts are disjoint and complete by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nas_edge.data.dataset import Dataset, Indices
from nas_edge.errors import ConfigError, DataError
from nas_edge.terminal import printable


@dataclass(frozen=True)
class Split:
    """Indices into a dataset, ascending, without overlap.

    Attributes:
        train: the weights are trained on these.
        validation: the rewards and the selection are computed on these.
        test: the accuracy of the delivered model is measured on these; used for nothing else.
    """

    train: Indices
    validation: Indices
    test: Indices


def split(
    dataset: Dataset,
    rng: np.random.Generator,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    validation_images: int | None = None,
) -> Split:
    """Splits a dataset, stratified by class where images have one.

    Each part gets its fraction of each class, rounded to the nearest image, but at least one image. Images with other
    targets count as of one class.

    Args:
        dataset: to split. If it comes with test images, they are the test part, and the rest is split in two; if it
            also comes with validation images, those are the validation part, and the rest trains.
        rng: shuffles the images; the same generator state gives the same split.
        validation_fraction: of the images, not counting given test images; not used when the dataset comes with
            validation images.
        test_fraction: of the images; not used when the dataset comes with test images.
        validation_images: exactly so many, in place of the fraction, of each class its share to the nearest image; of
            validation images that came with the dataset at most so many, and the others are not used.

    Raises:
        ConfigError: for fractions, or a number of images, that leave one of the parts empty.
        DataError: when a class has too few images to be in every part.
    """
    if dataset.validation_start is not None:
        return _as_given(dataset, rng, validation_images)
    given = dataset.test_start is not None
    fractions = (validation_fraction,) if given else (validation_fraction, test_fraction)
    if not all(fraction > 0 for fraction in fractions) or not sum(fractions) < 1:
        received = " and ".join(map(str, fractions))
        raise ConfigError(
            f"validation and test fractions must be positive and leave images to train on; received {received}"
        )

    labels, names = _strata(dataset)
    available = labels[: dataset.test_start]
    parts: list[list[Indices]] = [[], [], []]
    shares = None
    if validation_images is not None:
        shares = _shares(validation_images, np.bincount(available, minlength=len(names)))
    for label, name in enumerate(names):
        members = rng.permutation(np.flatnonzero(available == label))
        needed = 1 + len(fractions)
        if len(members) < needed:
            raise DataError(
                f"class {printable(name)!r} has {len(members)} image(s) to split, expected {needed} or more; add images"
            )
        held = [max(1, math.floor(fraction * len(members) + 0.5)) for fraction in fractions]
        if shares is not None:
            held[0] = shares[label]
        while len(members) - sum(held) < 1:
            held[held.index(max(held))] -= 1
        cuts = np.cumsum(held)
        for part, indices in zip((1, 2, 0) if not given else (1, 0), np.split(members, cuts), strict=True):
            parts[part].append(indices)
    if given:
        parts[2] = [np.arange(dataset.test_start or 0, len(dataset))]
    return Split(*(np.sort(np.concatenate(part)).astype(np.int64) for part in parts))


def _strata(dataset: Dataset) -> tuple[Indices, tuple[str, ...]]:
    """Which class each image is of, `[n]`, and the names of the classes; one class where targets are no classes."""
    labels = dataset.labels
    if isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu":
        return labels, dataset.class_names
    return np.zeros(len(dataset), np.int64), ("all",)


def _as_given(dataset: Dataset, rng: np.random.Generator, validation_images: int | None) -> Split:
    """The parts that the dataset came in."""
    ends = [end for end in (dataset.validation_start, dataset.test_start) if end is not None]
    train, validation, test = np.split(np.arange(len(dataset)), ends)
    if validation_images is not None:
        validation = _some(validation, _strata(dataset)[0][validation], validation_images, rng)
    return Split(train, validation, test)


def _some(indices: Indices, labels: Indices, images: int, rng: np.random.Generator) -> Indices:
    """At most so many of the images at `indices`, of each class its share to the nearest image."""
    if images >= len(indices):
        return indices
    shuffled = rng.permutation(len(indices))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(indices[by_class[np.arange(images) * len(indices) // images]])


def _shares(images: int, sizes: Indices) -> list[int]:
    """How many of so many images each class gives: its share, rounded so that the sum is exact, and at least one.

    Source: the method of largest remainders.

    Raises:
        ConfigError: when there are fewer images than classes, or more than half of all images.
    """
    if not len(sizes) <= images <= sizes.sum() / 2:
        raise ConfigError(
            "data.validation_images must leave as many to train with, and have one of each class",
            expected=f"{len(sizes)} to {sizes.sum() // 2}",
            received=f"{images}",
        )
    exact = images * sizes / sizes.sum()
    shares = np.maximum(1, np.floor(exact).astype(int))
    for label in np.argsort(-(exact - np.floor(exact)), kind="stable"):
        shares[label] += shares.sum() < images
    while shares.sum() > images:  # classes of less than one image got one
        shares[np.argmax(shares)] -= 1
    return shares.tolist()  # type: ignore[no-any-return]
