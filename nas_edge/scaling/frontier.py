"""Which scaled networks are candidates for a latency: among the largest that meet it, those suggested by the device and
by published rules.

A network that is no smaller than another on any axis is at least as accurate, so candidates are networks of which no
axis can be increased further. Which of them is best is for accuracies to decide. Those that are tried:

    most multiply-adds        the most computation that the device does in the time
    EfficientNet              the rule optimised for accuracy and multiply-adds
    EfficientNet-X, GPU, TPU  rules optimised for accuracy and latency of an accelerator: deeper, hardly larger inputs

A network grows on all axes or shrinks on all: one axis is not traded for another unless nothing else comes close to the
latency.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np

from nas_edge.scaling.grid import BoolArray, FloatArray, Grid, grows, shrinks
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.published import SCALED_FAMILIES

# How far below the latency a candidate may be, unless there are no closer ones.
BAND = 0.05


def direction(family: str) -> FloatArray:
    """The direction in which a published family grows: a unit vector, logarithms of depth, width and input size."""
    first, *_, last = SCALED_FAMILIES[family]
    grown = np.array(
        [
            math.log(last.depth / first.depth),
            math.log(last.width / first.width),
            math.log(last.input_size / first.input_size),
        ]
    )
    unit: FloatArray = grown / np.linalg.norm(grown)
    return unit


def candidates(
    grid: Grid, latencies_ms: FloatArray, limit_ms: float, count: int, excluded: Collection[Architecture] = ()
) -> list[Architecture]:
    """The networks to try for a latency.

    Args:
        grid: all scaled versions.
        latencies_ms: predicted for every point, `[depths, widths, input sizes]`.
        limit_ms: what the prediction may not exceed.
        count: how many at most.
        excluded: those that were tried already.
    """
    largest = maximal(latencies_ms <= limit_ms)
    close = latencies_ms >= (1 - BAND) * limit_ms
    one_way = grows(grid) if latencies_ms[grid.base.choices] <= limit_ms else shrinks(grid)
    chosen: list[Architecture] = []
    for among in (largest & close & one_way, largest & close, largest & one_way, largest):
        for scores in _scores(grid):
            ranked = np.argsort(-np.where(among, scores, -np.inf), axis=None, kind="stable")
            for place in ranked[: int(among.sum())]:
                one = Architecture(tuple(map(int, np.unravel_index(place, among.shape))))
                if one not in chosen and one not in excluded:
                    chosen.append(one)
                    break
            if len(chosen) == count:
                return chosen
    return chosen


def maximal(feasible: BoolArray) -> BoolArray:
    """The feasible points that are infeasible after any increase of an axis, `[depths, widths, input sizes]`."""
    beyond = feasible.copy()  # this point, or one that is no smaller on any axis, is feasible
    for axis in range(beyond.ndim):
        beyond = np.flip(np.logical_or.accumulate(np.flip(beyond, axis), axis=axis), axis)
    dominated = np.zeros_like(feasible)
    for axis in range(beyond.ndim):
        before: list[slice] = [slice(None)] * beyond.ndim
        after: list[slice] = [slice(None)] * beyond.ndim
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        dominated[tuple(before)] |= beyond[tuple(after)]
    return feasible & ~dominated


def _scores(grid: Grid) -> Iterator[FloatArray]:
    """Scores of all points, by each rule."""
    yield grid.macs_growth
    length = np.linalg.norm(grid.points, axis=-1)
    for family in SCALED_FAMILIES:
        along = grid.points @ direction(family)
        # The cosine of the angle to the rule; the network that was found is on every rule's way.
        yield np.where(length > 0, np.abs(along) / np.maximum(length, 1e-12), 1.0)
