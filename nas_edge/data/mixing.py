"""Changes to whole training batches: RandAugment, random erasing, mixup and cutmix, all of them Keras' layers.

They work on pixels, in the process that trains, after what `augmentation.py` does to each image. Mixup and cutmix mix
what is to be answered, too: class numbers become shares of each class, float32 `[batch, classes]`.

What is random about a batch follows from the stream's seed and the batch's number, so a stream resumes exactly.

Sources: arXiv:1909.13719 (RandAugment), 1708.04896 (random erasing), 1710.09412 (mixup), 1905.04899 (cutmix).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import Dataset

_PIXELS = (0, 255)


@dataclass(frozen=True)
class Mixing:
    """Which changes are made to training batches, in this order.

    Attributes:
        randaugment: number of operations, drawn anew for each batch; 0 for none.
        randaugment_magnitude: of each, 0 to 1.
        erasing: up to this probability, a part of an image becomes noise.
        mixup: alpha of the distribution of weights; 0 for none.
        cutmix: greatest alpha of the distribution of areas; 0 for none.
    """

    randaugment: int = 0
    randaugment_magnitude: float = 0.5
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes_targets(self) -> bool:
        """Whether targets of classes become shares of each class."""
        return bool(self.mixup or self.cutmix)

    def __bool__(self) -> bool:
        return bool(self.randaugment or self.erasing or self.mixes_targets)

    @cached_property
    def _layers(self) -> list[Any]:
        from keras import layers

        made: list[tuple[Any, Callable[[], Any]]] = [
            (
                self.randaugment,
                lambda: layers.RandAugment(
                    _PIXELS, num_ops=self.randaugment, factor=self.randaugment_magnitude, seed=0
                ),
            ),
            (self.erasing, lambda: layers.RandomErasing(self.erasing, value_range=_PIXELS, seed=0)),
            (self.mixup, lambda: layers.MixUp(self.mixup, seed=0)),
            (self.cutmix, lambda: layers.CutMix(self.cutmix, seed=0)),
        ]
        return [make() for wanted, make in made if wanted]

    def __call__(
        self, pixels: NDArray[np.float32], targets: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Changed pixels, 0 to 255, `[batch, size, size, channels]`, and their targets, `[batch, ...]`."""
        images: Any = pixels
        labels: Any = targets
        for layer in self._layers:
            layer.generator.state.assign(rng.integers(2**31, size=2))
            change = layer.get_random_transformation({"images": images, "labels": labels}, training=True)
            images = layer.transform_images(images, change, training=True)
            labels = layer.transform_labels(labels, change, training=True)
        return np.asarray(images, np.float32), np.asarray(labels)


def shares(dataset: Dataset, labels: NDArray[Any]) -> NDArray[Any]:
    """Targets that can be mixed: of classes, the share of each, float32 `[n, classes]`."""
    if labels.ndim != 1 or not dataset.class_names:
        return labels.astype(np.float32)
    one_hot: NDArray[np.float32] = np.eye(len(dataset.class_names), dtype=np.float32)[labels]
    return one_hot
