"""Statistics of latency samples, in plain Python so that a board needs nothing more.

The interval of the median is distribution free: the number of samples below the
true median is Binomial(n, 1/2), so two order statistics enclose the median with a
known probability (H. A. David, H. N. Nagaraja, "Order Statistics", section 7.1).
It treats runs as independent. Runs on a real device are correlated for seconds at a
time, so a narrow interval alone does not make a number trustworthy; `verdicts` and
`visiting` look for drift and for load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

CONFIDENCE = 0.95
# With fewer samples not even (minimum, maximum) encloses the median with 95%.
MIN_SAMPLES_FOR_INTERVAL = 6
_EXACT_UP_TO = 500
_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class Statistics:
    """Summary of one measurement's samples, all times in milliseconds.

    Attributes:
        count: Number of samples.
        mad_ms: Median absolute deviation from the median, unscaled.
        interval_ms: Low and high end of the 95% confidence interval of the median,
            or None with fewer than six samples.
    """

    count: int
    median_ms: float
    mean_ms: float
    p5_ms: float
    p90_ms: float
    p95_ms: float
    min_ms: float
    max_ms: float
    mad_ms: float
    interval_ms: tuple[float, float] | None

    @property
    def relative_half_width(self) -> float | None:
        """Half the width of the interval divided by the median, if both exist."""
        return _relative_half_width(self.interval_ms, self.median_ms)


def summarize(samples_ms: Sequence[float]) -> Statistics:
    """Returns the statistics of at least one sample, in milliseconds."""
    if not samples_ms:
        raise ValueError("no samples to summarize; expected at least one")
    ordered = sorted(samples_ms)
    median = quantile(ordered, 0.5)
    return Statistics(
        count=len(ordered),
        median_ms=median,
        mean_ms=math.fsum(ordered) / len(ordered),
        p5_ms=quantile(ordered, 0.05),
        p90_ms=quantile(ordered, 0.90),
        p95_ms=quantile(ordered, 0.95),
        min_ms=ordered[0],
        max_ms=ordered[-1],
        mad_ms=quantile(sorted(abs(x - median) for x in ordered), 0.5),
        interval_ms=median_interval(ordered),
    )


def median_of(samples: Sequence[float]) -> float:
    """Returns the median of at least one sample."""
    return quantile(sorted(samples), 0.5)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Returns quantile `q` of sorted values, interpolating linearly between them."""
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return low + (high - low) * (position - below)


def median_interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95% confidence interval of the median of sorted values.

    Returns:
        (low, high), or None with fewer than six values.
    """
    count = len(ordered)
    if count < MIN_SAMPLES_FOR_INTERVAL:
        return None
    rank = _lower_rank(count)
    return ordered[rank - 1], ordered[count - rank]


def relative_half_width(samples_ms: Sequence[float]) -> float | None:
    """Returns half the interval's width over the median, or None if undefined."""
    ordered = sorted(samples_ms)
    interval = median_interval(ordered)
    return None if interval is None else _relative_half_width(interval, quantile(ordered, 0.5))


def _relative_half_width(interval: tuple[float, float] | None, median: float) -> float | None:
    if interval is None or median <= 0:
        return None
    return (interval[1] - interval[0]) / 2 / median


@lru_cache(maxsize=1024)  # it is most of the work of a summary, and counts repeat
def _lower_rank(count: int) -> int:
    """Largest rank r with P(X_(r) <= median <= X_(count+1-r)) >= 95%."""
    if count > _EXACT_UP_TO:
        return math.floor((count - _NORMAL_975 * math.sqrt(count)) / 2)
    tail = (1 - CONFIDENCE) / 2
    below, rank, ways = 0.0, 0, 1
    while True:
        below += ways / 2**count
        if below > tail:
            return rank
        ways = ways * (count - rank) // (rank + 1)  # the next binomial coefficient, exactly
        rank += 1
