"""A part of the data in batches, to evaluate with: memory grows with the batch, never with the data.

All batches have the same size, so that compiled functions of static shape are traced once, and each looks like the
others to whatever takes a batch's own statistics, as the shared weights do. The last one is filled up with images of
the first, which do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_edge.data.dataset import Indices
from nas_edge.errors import DataError
from nas_edge.tasks.base import Array, TaskData

# Batches whose statistics are averaged for batch norms: more of them change the average by less than a percent.
RECALIBRATION_BATCHES = 100


@dataclass(frozen=True)
class EvaluationBatch:
    """Some examples, and how many of them count.

    Attributes:
        inputs: float32 `[batch, height, width, channels]`.
        targets: `[batch, ...]`.
        count: the first so many count; the rest fills the batch up.
    """

    inputs: Array
    targets: Array
    count: int

    def counted(self, outputs: Array) -> tuple[Array, Array]:
        """Outputs `[count, ...]` and targets of the examples that count, of outputs `[batch, ...]`."""
        return outputs[: self.count], self.targets[: self.count]


def evaluation_batches(data: TaskData, indices: Indices, batch_size: int) -> Iterator[EvaluationBatch]:
    """Every example once, in the order given, in batches of one size.

    Args:
        data: of the run.
        indices: the examples; where a batch's own statistics matter, in the order of `mixed`.
        batch_size: examples per batch; fewer where there are not as many.

    Raises:
        DataError: when there are no examples.
    """
    count = len(indices)
    if count == 0:
        raise DataError("no images to evaluate", expected="at least one")
    size = min(batch_size, count)
    filled = np.concatenate([indices, indices[: -count % size]])
    for start, (inputs, targets) in zip(range(0, count, size), data.in_order(filled, size), strict=True):
        yield EvaluationBatch(inputs, targets, min(size, count - start))


def mixed(indices: Indices) -> Indices:
    """The same examples in an order in which each batch resembles the whole.

    Indices are ascending, and so often sorted by class: statistics of a batch of one class are those of no data that a
    network will see. The order depends on how many there are, and on nothing else.
    """
    order: Indices = np.random.default_rng(len(indices)).permutation(indices)
    return order


def statistics_sample(indices: Indices, batch_size: int) -> Indices:
    """Examples that tell batch norms their statistics: a mixed sample of `RECALIBRATION_BATCHES` batches, or all."""
    return mixed(indices)[: RECALIBRATION_BATCHES * batch_size]
