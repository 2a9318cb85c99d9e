"""Made-up images to train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class BrightnessBatches:
    """Three classes told apart by brightness."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self

    def __next__(self) -> tuple[Any, Any]:
        """Images and labels."""
        labels = self._rng.integers(3, size=16).astype(np.int32)
        images = self._rng.normal(scale=0.3, size=(16, 8, 8, 1)) + labels[:, None, None, None] - 1
        return images.astype(np.float32), labels

    def settle(self) -> None:
        """Nothing is read ahead."""


class SeededBatches:
    """Made-up images; a batch is a function of seed and number.

    Args:
        seed: Of all batches.
        size: Images in a batch.
        shape: Of an image, [height, width, channels].
    """

    def __init__(self, seed: int, size: int = 8, shape: tuple[int, ...] = (8, 8, 1)) -> None:
        self._seed, self._number = seed, 0
        self._size, self._shape = size, shape

    def __next__(self) -> tuple[Any, Any]:
        """Images and labels."""
        rng = np.random.default_rng([self._seed, self._number])
        self._number += 1
        labels = rng.integers(3, size=self._size)
        images = rng.normal(size=(self._size, *self._shape)) + labels[:, None, None, None]
        return images.astype(np.float32), labels

    def skip(self) -> None:
        """Passes over a batch."""
        self._number += 1

    def state(self) -> dict[str, int]:
        """The position."""
        return {"number": self._number}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes back to it."""
        self._number = state["number"]

    def settle(self) -> None:
        """Nothing is read ahead."""
