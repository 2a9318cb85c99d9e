"""The Pareto front of latency and quality: which architectures no other one beats in both.

The front of a search is not only its winner: whoever ships a network may prefer a faster or a more accurate one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture


def pareto_front(latency_ms: Sequence[float], quality: Sequence[float]) -> list[bool]:
    """Which points are Pareto-optimal: no other is as fast and more accurate, or faster and as accurate.

    Of equal points only the first is.
    """
    order = sorted(range(len(latency_ms)), key=lambda i: (latency_ms[i], -quality[i], i))
    front = [False] * len(order)
    best = -math.inf
    for i in order:
        if quality[i] > best:
            front[i], best = True, quality[i]
    return front


def near_front(trials: Iterable[Trial], count: int) -> list[Architecture]:
    """At most `count` architectures: those on the Pareto front, then on the front of the others, and so on.

    A quality of one batch is mostly noise, so some that look dominated are not.

    Args:
        trials: whose qualities may be compared; those without latency or quality are left out.
        count: of architectures.
    """
    groups: dict[Architecture, list[tuple[float, float]]] = {}
    for trial in trials:
        if trial.latency_ms is not None and trial.quality is not None:
            groups.setdefault(trial.architecture, []).append((trial.latency_ms, trial.quality))
    left = [(a, median(ms for ms, _ in group), fmean(q for _, q in group)) for a, group in groups.items()]
    found: list[Architecture] = []
    while left and len(found) < count:
        on_front = pareto_front([ms for _, ms, _ in left], [quality for *_, quality in left])
        found += [point[0] for point, on in zip(left, on_front, strict=True) if on]
        left = [point for point, on in zip(left, on_front, strict=True) if not on]
    return found[:count]
