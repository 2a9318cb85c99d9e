"""How much longer one model takes than another that was visited in the same rounds. Pure functions of measurements.

    d[r]      log(time of the model's visit / time of the reference's), round r     [rounds]
    ratio     exp(median of d over the rounds in which both visits were low)
    interval  the 2.5% and 97.5% quantiles of that over resampled rounds, widened by t(R - 1) / z * sqrt(R / (R - 1)),
              because R such rounds are few

Two visits of one round are close in time, so what changes slowly cancels out (Bulej et al., "Duet benchmarking",
arXiv:2001.05811). Disturbance does not: it comes and goes between two visits, and slows a memory-bound model more than
a compute-bound one. So only rounds count in which both visits are *low*, not much above the model's quiet latency.
Simulated (two states, quiet share 0.3 to 0.8, the models slowed by up to 75% and 22%, 60 rounds; see the tests), the
interval over all rounds covers the true ratio in 2 to 70% of cases, over the rounds where both are low in 90 to 100%.
Rounds are chosen anew in each resample, as what counts as low depends on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agents.api import Measurement
from device_agents.quiet import VisitSettings, time_of

_RESAMPLES = 1000
_NORMAL_975 = 1.959963984540054
# The median of fewer differences has no interval to speak of.
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Ratio:
    """How many times as long one model takes as another.

    Attributes:
        value: The ratio; below 1 is faster.
        interval: Its 95% interval.
        rounds: How many shared rounds it is known from; 0 where the two were not compared within rounds.
    """

    value: float
    interval: tuple[float, float]
    rounds: int

    @property
    def significant(self) -> bool:
        """True if the interval does not contain 1."""
        return not self.interval[0] <= 1 <= self.interval[1]

    def scaled(self, factor: float) -> Ratio:
        """Returns the ratio times a number that is known exactly."""
        low, high = self.interval
        return Ratio(self.value * factor, (low * factor, high * factor), self.rounds)

    def widened(self, spread: float) -> Ratio:
        """Returns the ratio with another, independent uncertainty: half the 95% interval of its logarithm."""
        low, high = (math.hypot(math.log(end / self.value), spread) for end in self.interval)
        return Ratio(self.value, (self.value * math.exp(-low), self.value * math.exp(high)), self.rounds)


def paired_ratio(
    measurement: Measurement, reference: Measurement, settings: VisitSettings | None = None, seed: int = 0
) -> Ratio | None:
    """Returns the time of a model over that of another one measured in the same rounds.

    Args:
        measurement: Of the model.
        reference: Of the other one, on the same device in the same session.
        settings: Those that both were visited with.
        seed: Of the resampling.

    Returns:
        The ratio, or None if both were low in fewer than `MIN_ROUNDS` rounds.
    """
    settings = settings or VisitSettings()
    times, reference_times = _times(measurement, settings), _times(reference, settings)
    shared = sorted(times.keys() & reference_times.keys())
    if len(shared) < MIN_ROUNDS:
        return None
    ours = np.array([[times[number] for number in shared]])
    theirs = np.array([[reference_times[number] for number in shared]])
    rounds = int(_both_low(ours, theirs, settings).sum())
    if rounds < MIN_ROUNDS:
        return None
    middle = float(_median_log_ratios(ours, theirs, settings)[0])
    chosen = np.random.default_rng(seed).integers(len(shared), size=(_RESAMPLES, len(shared)))
    resampled = _median_log_ratios(ours[0][chosen], theirs[0][chosen], settings)
    low, high = (np.nanquantile(resampled, (0.025, 0.975)) - middle) * _widening(rounds)
    # The point is inside by definition; rounding must not put it outside.
    return Ratio(math.exp(middle), (math.exp(middle + min(0.0, low)), math.exp(middle + max(0.0, high))), rounds)


def ratio_of_latencies(measurement: Measurement, reference: Measurement) -> Ratio | None:
    """Returns the ratio of two latencies that were measured apart, None where one has no interval.

    The ends of the intervals are added in quadrature, on a logarithmic scale.
    """
    ours, theirs = _bounds(measurement), _bounds(reference)
    if ours is None or theirs is None:
        return None
    (low, middle, high), (their_low, their_middle, their_high) = ours, theirs
    ratio = middle / their_middle
    down = math.hypot(math.log(middle / low), math.log(their_high / their_middle))
    up = math.hypot(math.log(high / middle), math.log(their_middle / their_low))
    return Ratio(ratio, (ratio * math.exp(-down), ratio * math.exp(up)), 0)


def _bounds(measurement: Measurement) -> tuple[float, float, float] | None:
    latency_ms, interval_ms = measurement.best_ms, measurement.interval_ms
    if latency_ms is None or interval_ms is None or not 0 < interval_ms[0] <= latency_ms <= interval_ms[1]:
        return None
    return interval_ms[0], latency_ms, interval_ms[1]


def _times(measurement: Measurement, settings: VisitSettings) -> dict[int, float]:
    """The time of the visit in each round, in milliseconds."""
    times: dict[int, float] = {}
    start = 0
    for visit in measurement.visits:
        samples_ms = measurement.samples_ms[start : start + visit.samples]
        start += visit.samples
        if samples_ms and min(samples_ms) > 0:
            times[visit.round] = time_of(samples_ms, settings)
    return times


def _both_low(ours: NDArray[np.float64], theirs: NDArray[np.float64], settings: VisitSettings) -> NDArray[np.bool_]:
    return _low(ours, settings) & _low(theirs, settings)


def _low(times: NDArray[np.float64], settings: VisitSettings) -> NDArray[np.bool_]:
    """Which visits are at most the tolerance above the quiet latency of their row, [resamples, rounds]."""
    lowest = times.min(axis=1, keepdims=True)
    agreeing = np.where(times <= lowest * (1 + settings.tolerance), times, np.nan)
    quiet = np.nanmedian(agreeing, axis=1, keepdims=True)
    low: NDArray[np.bool_] = times <= quiet * (1 + settings.tolerance)
    return low


def _median_log_ratios(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], settings: VisitSettings
) -> NDArray[np.float64]:
    """For each row, [resamples, rounds], the median over the rounds where both are low; not a number without any."""
    logs = np.where(_both_low(ours, theirs, settings), np.log(ours / theirs), np.nan)
    known = ~np.isnan(logs).all(axis=1)
    medians = np.full(len(logs), np.nan)
    medians[known] = np.nanmedian(logs[known], axis=1)
    return medians


def _widening(rounds: int) -> float:
    from scipy.special import stdtrit  # here, so that what does not compare starts quickly

    freedom = rounds - 1
    return float(stdtrit(freedom, 0.975)) / _NORMAL_975 * math.sqrt(rounds / freedom)
