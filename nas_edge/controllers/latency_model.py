"""Latencies of architectures, predicted from those of others of the same run; see `surrogate_models`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points


class LatencyModel:
    """Predicts latencies.

    Args:
        space: of the architectures.
        timed: architectures with their latencies, milliseconds, at least one; the latest count, where there are many.
    """

    def __init__(self, space: SearchSpace, timed: Sequence[tuple[Architecture, float]]) -> None:
        from nas_edge.controllers.surrogate_models import MOST_ROWS, Posterior, fit_kernel, inputs_of

        self._points = Points(space)
        known = list(dict(timed).items())[-MOST_ROWS:]
        inputs = inputs_of(self._points, np.array([architecture.choices for architecture, _ in known]))
        logarithms = np.log([latency_ms for _, latency_ms in known])
        with threadpool_limits(1):
            self._posterior = Posterior(fit_kernel(self._points, inputs, logarithms), inputs, logarithms)

    def predict_ms(self, architectures: Sequence[Architecture]) -> list[float]:
        """The median of what each latency may be, milliseconds."""
        from nas_edge.controllers.surrogate_models import inputs_of

        inputs = inputs_of(self._points, np.array([architecture.choices for architecture in architectures]))
        with threadpool_limits(1):
            means, _ = self._posterior.each(inputs)
        return [float(latency_ms) for latency_ms in np.exp(means)]
