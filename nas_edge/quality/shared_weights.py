"""Quality of an architecture with the shared weights of a one-shot search, on all validation data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas_edge.errors import TrainingError
from nas_edge.latency.source import Candidate
from nas_edge.quality.source import Quality, QualitySource
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import one_hot_masks
from nas_edge.tasks.base import NetworkTask, RunningScore, TaskData
from nas_edge.training.batches import evaluation_batches, mixed


class SharedWeightsQuality(QualitySource):
    """Scores with the weights as they are, each batch with its own statistics, as the search does.

    Args:
        weights: the shared weights.
        task: what the quality is.
        data: whose validation part is used, whole.
        batch_size: examples that are scored at once.
    """

    def __init__(self, weights: SharedWeights, task: NetworkTask, data: TaskData, batch_size: int) -> None:
        self._weights, self._task, self._data, self._batch_size = weights, task, data, batch_size

    @property
    def name(self) -> str:
        """See `QualitySource`."""
        return "shared weights"

    def evaluate(self, candidate: Candidate) -> Quality:
        """See `QualitySource`."""
        return self.evaluate_all([candidate])[0]

    def evaluate_all(self, candidates: Sequence[Candidate]) -> list[Quality]:
        """See `QualitySource`; all are scored on a batch before the next one is read."""
        running = []
        for candidate in candidates:
            assert candidate.architecture is not None
            masks = one_hot_masks(self._weights.supernet.space, candidate.architecture)
            running.append((masks, RunningScore(self._task)))
        if not running:
            return []
        for batch in evaluation_batches(self._data, mixed(self._data.split.validation), self._batch_size):
            for masks, score in running:
                score.take(*batch.counted(self._weights.outputs(batch.inputs, masks)))
        values = [score.value() for _, score in running]
        if not all(map(math.isfinite, values)):
            raise TrainingError("the shared weights have diverged: what a network answers is not numbers")
        return list(map(Quality, values))
