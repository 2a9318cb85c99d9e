"""How sure a metric is, and whether two networks differ in it, for metrics that are no share of correct examples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nas_edge.tasks.base import Array, NetworkTask, PairedTest, RunningScore

_RESAMPLES = 1000
_SHARE = 0.95


def bootstrap_interval(count: int, quality: Callable[[Array], float]) -> tuple[float, float] | None:
    """95% interval of a metric, by how much it varies when examples are drawn again, with replacement.

    Args:
        count: of examples.
        quality: the metric's value, given how often each example was drawn, `[count]`; see `NetworkTask.drawn_again`.

    Returns:
        The interval, which contains the value itself; None for fewer than two examples, or where it cannot be computed.

    Source: the percentile method of Efron, 1979, "Bootstrap methods: another look at the jackknife"; 1,000 samples,
    from a fixed seed, so that equal statistics have equal intervals.
    """
    if count < 2:
        return None
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_RESAMPLES):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        found.append(quality(times))
    value, values = quality(np.ones(count, np.int64)), np.array(found)
    if not (np.isfinite(values).all() and np.isfinite(value)):
        return None
    low, high = np.quantile(values, [(1 - _SHARE) / 2, (1 + _SHARE) / 2])
    return min(float(low), value), max(float(high), value)


class ScoreWithInterval:
    """A task's metric over successive batches, with its interval.

    Args:
        task: whose metric.
    """

    def __init__(self, task: NetworkTask) -> None:
        self._task, self._score, self._count = task, RunningScore(task), 0
        # Statistics of each example, for tasks that bootstrap.
        self._each: list[Array] = []

    def take(self, outputs: Array, targets: Array) -> None:
        """Adds a batch."""
        self._score.take(outputs, targets)
        self._count += len(outputs)
        if self._task.bootstraps and np.isfinite(outputs).all():
            self._each += [self._task.statistics(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(outputs))]

    def value(self) -> float:
        """See `RunningScore`."""
        return self._score.value()

    def interval(self) -> tuple[float, float] | None:
        """95% interval of the value; None if it is not known, or if an output was not finite."""
        value = self.value()
        if not math.isfinite(value):
            return None
        if self._task.bootstraps:
            return bootstrap_interval(self._count, self._task.drawn_again(self._each))
        return self._task.metric.interval(value, self._count)


def wilcoxon_p_value(first: Array, second: Array) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of two networks' scores of the same examples.

    Args:
        first: a score per example, `[n]`.
        second: likewise.

    Source: Wilcoxon, 1945, "Individual comparisons by ranking methods"; examples with equal scores are left out.
    """
    from scipy.stats import wilcoxon

    # Rounded, so that sums in another order are ties all the same.
    differences = np.round(first.astype(np.float64) - second.astype(np.float64), 9)
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 1.0
    return float(wilcoxon(differences, method="asymptotic" if len(differences) > 25 else "auto").pvalue)


WILCOXON = PairedTest("Wilcoxon's signed-rank test", wilcoxon_p_value)
