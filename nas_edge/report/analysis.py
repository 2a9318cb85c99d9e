"""The arithmetic of a report: pure functions on numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points

FloatArray = NDArray[np.float64]


def rolling_share(hits: Sequence[bool], window: int) -> list[float]:
    """Share of hits among the last `window` values, or among all while there are fewer."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(hits, dtype=np.float64))])
    ends = range(1, len(hits) + 1)
    return [float(total[end] - total[max(0, end - window)]) / min(end, window) for end in ends]


# With fewer architectures, a model fitted on half of them is meaningless.
FEWEST_FOR_PREDICTION = 60
# Keeps the latency of a choice seen once or never near 0; with many measurements it has no effect.
_PENALTY = 1.0


@dataclass(frozen=True)
class Prediction:
    """Test of the additive latency model.

    Attributes:
        fitted: number of architectures the model was fitted on.
        measured_ms: measured latencies of the others.
        predicted_ms: their predicted latencies.
    """

    fitted: int
    measured_ms: FloatArray
    predicted_ms: FloatArray

    @property
    def median_error(self) -> float:
        """Median absolute error, relative to the measured latency."""
        return float(np.median(np.abs(self.predicted_ms / self.measured_ms - 1)))

    @property
    def rank_correlation(self) -> float:
        """Spearman's rank correlation."""
        ranks = [np.argsort(np.argsort(values)) for values in (self.measured_ms, self.predicted_ms)]
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def predict(space: SearchSpace, measured: Sequence[tuple[Architecture, float]]) -> Prediction | None:
    """Fits half of the measurements with one time per choice, and predicts the other half.

    The model is `latency = base + sum over active decisions of time[decision, choice]`, by least squares with a small
    penalty on the times (ridge regression): what a latency table per decision would give. An architecture that was
    tried several times counts once, with its median, so that none is in both halves.

    Args:
        space: of the architectures.
        measured: architectures with latencies in ms.

    Returns:
        The prediction; None for fewer than `FEWEST_FOR_PREDICTION` architectures.
    """
    groups: dict[Architecture, list[float]] = {}
    for architecture, latency_ms in measured:
        groups.setdefault(architecture, []).append(latency_ms)
    if len(groups) < FEWEST_FOR_PREDICTION:
        return None
    features = Points(space).features(np.array([architecture.choices for architecture in groups]))
    latencies = np.array([median(values) for values in groups.values()])
    known, measured_ms = latencies[::2], latencies[1::2]
    centre, base = features[::2].mean(axis=0), known.mean()
    matrix = features[::2] - centre
    penalty = _PENALTY * np.eye(matrix.shape[1])
    times = np.linalg.solve(matrix.T @ matrix + penalty, matrix.T @ (known - base))
    return Prediction(len(known), measured_ms, base + (features[1::2] - centre) @ times)
