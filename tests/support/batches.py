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
    """Made-up images; a batch is a function of seed and number."""

    def __init__(self, seed: int) -> None:
        self._seed, self._number = seed, 0

    def __next__(self) -> tuple[Any, Any]:
        """Images and labels."""
        rng = np.random.default_rng([self._seed, self._number])
        self._number += 1
        labels = rng.integers(3, size=8)
        return (rng.normal(size=(8, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32), labels

    def state(self) -> dict[str, int]:
        """The position."""
        return {"number": self._number}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes back to it."""
        self._number = state["number"]

    def settle(self) -> None:
        """Nothing is read ahead."""
