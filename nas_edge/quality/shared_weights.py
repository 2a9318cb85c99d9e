"""Quality of an architecture with the shared weights of a one-shot search, on all validation data."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

from nas_edge.errors import TrainingError
from nas_edge.latency.source import Candidate
from nas_edge.quality.source import Quality, QualitySource
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import one_hot_masks
from nas_edge.tasks.base import TaskData


class SharedWeightsQuality(QualitySource):
    """Scores with the weights as they are.

    Args:
        weights: the shared weights.
        data: whose validation part is used, whole.
    """

    def __init__(self, weights: SharedWeights, data: TaskData) -> None:
        self._weights, self._data = weights, data

    @property
    def name(self) -> str:
        """See `QualitySource`."""
        return "shared weights"

    @cached_property
    def _validation(self) -> tuple[Any, Any]:
        return self._data.arrays(self._data.split.validation)

    def evaluate(self, candidate: Candidate) -> Quality:
        """See `QualitySource`."""
        assert candidate.architecture is not None
        inputs, targets = self._validation
        masks = one_hot_masks(self._weights.supernet.space, candidate.architecture)
        quality = self._weights.quality(inputs, targets, masks)
        if not math.isfinite(quality):
            raise TrainingError("the shared weights have diverged: what a network answers is not numbers")
        return Quality(quality)
