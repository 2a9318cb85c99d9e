"""What the candidates of a run say of each other's latencies: a small model that steadies a noisy number.

    log latency = base + size * log(multiply-adds) + sum over active decisions of effect[decision, choice]

fitted by ridge regression to what the run has measured, in the order of trials, each weighted by how well it is known.
A noisy latency is drawn towards what the model says of it, the more, the wider its own interval and the smaller the
model's error is: the mean of two normal distributions, weighted by their precisions (empirical Bayes: Efron and Morris,
"Stein's estimation rule and its competitors", JASA 1973). That error is held out: each measured latency is predicted
from all others. A latency that is known well is left alone, and so is one that the model contradicts: it is out of its
depth there.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agents.api import Verdict
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer
from nas_edge.networks.analysis import analyze
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points

FloatArray = NDArray[np.float64]

# Half of a 95% interval of a normal distribution, in standard deviations.
_HALF_INTERVAL = 1.96


@dataclass(frozen=True)
class PooledSettings:
    """When and how far latencies are adjusted.

    The weight of the size was chosen on the published Pixel-1 table: with it, the held-out error of 80 architectures of
    `proxylessnas` is 4%, and 7% without; of 320, 2% and 3.5%.

    Attributes:
        fewest: architectures with a latency to rely on, below which nothing is adjusted.
        most: latest measurements that the model is fitted to.
        known_well: an `ok` latency is left as it is where half of its interval is at most so much of it.
        accepted: a latency may be relied on where half of its 95% interval is at most so much of it.
        error_ok: least standard error of an `ok` latency, relatively.
        error_corrected: likewise of a `corrected` one, whose visits hardly agree.
        error_contended: standard error of a `contended` one.
        outlier: standard errors between latency and model above which the model is not believed.
        penalty: of the ridge regression.
        size_weight: how much less than a decision's effect that of the size is penalised, as a factor of its column.
    """

    fewest: int = 40
    most: int = 512
    known_well: float = 0.025
    accepted: float = 0.10
    error_ok: float = 0.005
    error_corrected: float = 0.04
    error_contended: float = 0.25
    outlier: float = 3.0
    penalty: float = 1.0
    size_weight: float = 5.0


@dataclass(frozen=True)
class _Known:
    architecture: Architecture
    answer: LatencyAnswer
    log_ms: float
    variance: float


@dataclass(frozen=True)
class _Model:
    """A fit: coefficients, and what its held-out errors say."""

    base: float
    centre: FloatArray  # [columns]
    effects: FloatArray  # [columns]
    inverse: FloatArray  # [columns, columns]
    of_base: float
    variance: float
    leverage: float

    def predict(self, row: FloatArray) -> tuple[float, float]:
        """Mean and variance of the log latency of an architecture."""
        at = row - self.centre
        leverage = self.of_base + float(at @ self.inverse @ at)
        # The held-out error is that of a typical architecture; less is known of one with rare choices.
        return self.base + float(at @ self.effects), self.variance * max(1.0, (1 + leverage) / (1 + self.leverage))


class PooledLatency:
    """The model of one run. What it says depends on what it has taken in and in which order, and on nothing else.

    Args:
        space: of the architectures.
        settings: None for the usual ones.
    """

    def __init__(self, space: SearchSpace, settings: PooledSettings | None = None) -> None:
        self._space, self._settings = space, settings or PooledSettings()
        self._points = Points(space)
        self._known: deque[_Known] = deque(maxlen=self._settings.most)
        self._rows: dict[Architecture, FloatArray] = {}
        self._model: _Model | None = None
        self._is_fitted = False

    @property
    def error(self) -> float | None:
        """Standard error of the model, relative to the latency, held out; None while it knows too little."""
        model = self._fitted()
        return None if model is None else math.sqrt(model.variance)

    def take(self, architecture: Architecture, answer: LatencyAnswer | None) -> None:
        """Takes in a latency, if it was measured in visits and may be relied on; one that it has counts once."""
        if answer is None or not answer.ok or not _is_of_visits(answer):
            return
        if any(one.architecture == architecture and one.answer == answer for one in self._known):
            return
        assert answer.best_ms is not None
        variance = relative_error(answer, self._settings) ** 2
        self._known.append(_Known(architecture, answer, math.log(answer.best_ms), variance))
        self._is_fitted = False

    def adjust(self, architecture: Architecture, answer: LatencyAnswer | None) -> AdjustedLatency | None:
        """Returns what a noisy latency becomes; None where it stays as it is."""
        if answer is None or not _is_of_visits(answer) or self._is_known_well(answer):
            return None
        model = self._fitted()
        if model is None:
            return None
        assert answer.best_ms is not None
        measured, noise = math.log(answer.best_ms), relative_error(answer, self._settings) ** 2
        mean, variance = model.predict(self._row(architecture))
        off = (measured - mean) / math.sqrt(noise + variance)
        contended = answer.verdict == Verdict.CONTENDED
        if off < -self._settings.outlier or (off > self._settings.outlier and not contended):
            return None
        joint = 1 / (1 / noise + 1 / variance)
        middle = joint * (measured / noise + mean / variance)
        if contended:  # disturbance only adds, so it was no faster than the network is
            middle = min(middle, measured)
        half = _HALF_INTERVAL * math.sqrt(joint)
        if contended and half > self._settings.accepted:
            return None
        verdict = Verdict.CORRECTED if contended else answer.verdict
        return AdjustedLatency(math.exp(middle), (math.exp(middle - half), math.exp(middle + half)), verdict)

    def _is_known_well(self, answer: LatencyAnswer) -> bool:
        return answer.verdict == Verdict.OK and _relative_half_width(answer) <= self._settings.known_well

    def _fitted(self) -> _Model | None:
        if not self._is_fitted:
            enough = len({one.architecture for one in self._known}) >= self._settings.fewest
            self._model, self._is_fitted = self._fit() if enough else None, True
        return self._model

    def _fit(self) -> _Model:
        known, settings = list(self._known), self._settings
        kept = {one.architecture for one in known}
        self._rows = {architecture: row for architecture, row in self._rows.items() if architecture in kept}
        rows = np.stack([self._row(one.architecture) for one in known])  # [measurements, columns]
        logs = np.array([one.log_ms for one in known])
        # A measurement of the usual error counts 1, a better one hardly more: the model's own error is larger.
        noise = np.array([one.variance for one in known])
        weights = settings.error_corrected**2 / (settings.error_corrected**2 + noise)
        total = float(weights.sum())
        centre, base = weights @ rows / total, float(weights @ logs / total)
        at = rows - centre
        inverse = np.linalg.inv(at.T @ (at * weights[:, None]) + settings.penalty * np.eye(rows.shape[1]))
        effects = inverse @ (at.T @ (weights * (logs - base)))
        leverages = 1 / total + np.einsum("ij,jk,ik->i", at, inverse, at)
        # Of a linear fit, the error at a point that was left out follows from the one with it.
        left = np.maximum(1 - weights * leverages, 1e-6)
        errors = (logs - base - at @ effects) / left
        return _Model(
            base,
            centre,
            effects,
            inverse,
            1 / total,
            max(float(weights @ errors**2) / total, settings.error_ok**2),
            float(np.mean(leverages / left)),
        )

    def _row(self, architecture: Architecture) -> FloatArray:
        row = self._rows.get(architecture)
        if row is None:
            network = self._space.build(architecture).network
            size = 0.0 if network is None else self._settings.size_weight * math.log(max(1, analyze(network).macs))
            row = self._rows[architecture] = np.append(self._points.features(np.array([architecture.choices]))[0], size)
        return row


def relative_error(answer: LatencyAnswer, settings: PooledSettings = PooledSettings()) -> float:
    """Standard error of a measured latency around the true one, as a share of it; from its verdict and its visits."""
    if answer.verdict == Verdict.CONTENDED:
        return settings.error_contended
    least = settings.error_ok if answer.verdict == Verdict.OK else settings.error_corrected
    if answer.interval_ms is None:  # looked up, and so known as it is; or too few samples to tell
        return least if answer.measurement is None else max(least, settings.error_corrected)
    return max(least, _relative_half_width(answer) / _HALF_INTERVAL)


def _is_of_visits(answer: LatencyAnswer) -> bool:
    measurement = answer.measurement
    may_be_used = answer.ok or answer.verdict == Verdict.CONTENDED
    return measurement is not None and measurement.best_ms is not None and bool(measurement.visits) and may_be_used


def _relative_half_width(answer: LatencyAnswer) -> float:
    if answer.interval_ms is None or not answer.best_ms:
        return math.inf
    return (answer.interval_ms[1] - answer.interval_ms[0]) / 2 / answer.best_ms
