"""The representative set: training images that ranges of activations are taken from. Free of TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_edge.data.dataset import Indices
from nas_edge.seeds import generator
from nas_edge.tasks.base import TaskData


@dataclass(frozen=True)
class RepresentativeSet:
    """Some training images.

    Attributes:
        indices: of the images, ascending.
        seed: of the run, from which the choice follows.
        per_class: least and greatest number of images of a class; None where there are no classes.
    """

    indices: Indices
    seed: int
    per_class: tuple[int, int] | None

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "images": len(self.indices),
            "seed": self.seed,
            "per_class": None if self.per_class is None else list(self.per_class),
        }


def representative_set(data: TaskData, images: int, seed: int) -> RepresentativeSet:
    """Draws training images, as many of every class as far as there are any; of data without classes, any.

    Args:
        data: of the run.
        images: how many, at most.
        seed: of the run.
    """
    train = generator(seed, "representative").permutation(data.split.train)
    count = min(images, len(train))
    if not data.dataset.class_names:
        return RepresentativeSet(np.sort(train[:count]), seed, None)
    labels = np.asarray(data.dataset.labels[train])
    if labels.ndim != 1:
        return RepresentativeSet(np.sort(train[:count]), seed, None)
    rank = np.empty(len(train), np.int64)  # which image of its class each is, in the drawn order
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen = np.argsort(rank, kind="stable")[:count]
    counts = np.bincount(labels[chosen], minlength=len(data.dataset.class_names))
    return RepresentativeSet(np.sort(train[chosen]), seed, (int(counts.min()), int(counts.max())))
