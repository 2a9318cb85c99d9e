"""The arithmetic of a report: pure functions on numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nas_edge.latency.models.accuracy import Accuracy, accuracy_of
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.subject import Observation, Subject, chosen_values
from nas_edge.spaces.decisions import Architecture, SearchSpace

FloatArray = NDArray[np.float64]


def rolling_share(hits: Sequence[bool], window: int) -> list[float]:
    """Share of hits among the last `window` values, or among all while there are fewer."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(hits, dtype=np.float64))])
    ends = range(1, len(hits) + 1)
    return [float(total[end] - total[max(0, end - window)]) / min(end, window) for end in ends]


# With fewer architectures, a model fitted on half of them is meaningless.
FEWEST_FOR_PREDICTION = 60
# More take longer to fit, and change little.
MOST_FOR_PREDICTION = 1_000


@dataclass(frozen=True)
class Prediction:
    """Test of the model of decisions, see `nas_edge.latency.models.decisions`.

    Attributes:
        fitted: number of architectures the model was fitted on.
        measured_ms: measured latencies of the others.
        predicted_ms: their predicted latencies.
    """

    fitted: int
    measured_ms: FloatArray
    predicted_ms: FloatArray

    @property
    def accuracy(self) -> Accuracy:
        """The figures, as those of a latency model's file."""
        return accuracy_of(self.predicted_ms, self.measured_ms)


def predict(space: SearchSpace, measured: Sequence[tuple[Architecture, float]]) -> Prediction | None:
    """Fits a latency model to half of the measurements, and predicts the other half.

    An architecture that was tried several times counts once, with its median, so that none is in both halves.

    Args:
        space: of the architectures.
        measured: architectures with latencies in ms.

    Returns:
        The prediction; None for fewer than `FEWEST_FOR_PREDICTION` architectures, or where they are all alike.
    """
    groups: dict[Architecture, list[float]] = {}
    for architecture, latency_ms in measured:
        groups.setdefault(architecture, []).append(latency_ms)
    if len(groups) < FEWEST_FOR_PREDICTION:
        return None
    known = [
        Observation(Subject(None, chosen_values(space, architecture)), median(latencies_ms))
        for architecture, latencies_ms in groups.items()
    ]
    known = known[:: -(-len(known) // MOST_FOR_PREDICTION)]
    fitted, others = known[::2], known[1::2]
    with threadpool_limits(1):  # a report is the same whenever it is written
        model = DecisionModel.fit(fitted)
    if model is None:
        return None
    predicted_ms = model.predict([one.subject for one in others]).latency_ms
    return Prediction(len(fitted), np.array([one.latency_ms for one in others]), predicted_ms)
