"""Which scaled networks are measured to fit a law: each axis alone, then those most informative about all terms.

First the network that was found, then each axis alone as far as the targets reach, then repeatedly the network whose
latency is the most uncertain given those before, for a law with all squares and products (a greedy D-optimal design:
Fedorov, "Theory of Optimal Experiments", 1972). Like candidates, sampled networks grow on all axes or shrink on all: a
deep and narrow one says little about the candidates. The sample follows from the network and the targets alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from nas_edge.scaling.grid import AXES, BoolArray, FloatArray, Grid, at, grows, shrinks
from nas_edge.spaces.decisions import Architecture

NETWORKS = 14
# Factors by which multiply-adds are varied: beyond the targets, and at least around the network that was found.
_MARGIN, _LEAST = 1.3, 2.0
_PRIOR = 1e-3


def sample(grid: Grid, base_ms: float, targets_ms: Sequence[float], count: int = NETWORKS) -> list[Architecture]:
    """The networks to measure, beginning with the one that was found.

    Args:
        grid: all scaled versions.
        base_ms: latency of the network that was found.
        targets_ms: latencies to meet.
        count: how many; at least `2 * len(AXES) + 1` to vary each axis alone in both directions.
    """
    low = min(-math.log(_LEAST), math.log(min(targets_ms) / base_ms / _MARGIN))
    high = max(math.log(_LEAST), math.log(max(targets_ms) / base_ms * _MARGIN))
    wanted = _between(grid.macs_growth, low, high) & (grows(grid) | shrinks(grid))
    within = [Architecture(tuple(map(int, row))) for row in np.argwhere(wanted)]
    chosen = list(dict.fromkeys([grid.base, *_alone(grid, within)]))[:count]
    if not within:
        return chosen
    features = _all_terms(at(grid.points, within))
    places = {architecture: i for i, architecture in enumerate(within)}
    information = _PRIOR * np.eye(features.shape[1])
    for architecture in chosen:
        if architecture in places:
            row = features[places[architecture]]
            information += np.outer(row, row)
    while len(chosen) < min(count, len(within)):
        unknown = np.einsum("ij,jk,ik->i", features, np.linalg.inv(information), features)
        unknown[[places[one] for one in chosen if one in places]] = -1.0
        place = int(np.argmax(unknown))
        chosen.append(within[place])
        information += np.outer(features[place], features[place])
    return chosen


def alone(grid: Grid, architecture: Architecture) -> int | None:
    """The axis on which a network differs from the one that was found, if there is exactly one."""
    differing = [i for i in range(len(AXES)) if architecture.choices[i] != grid.base.choices[i]]
    return differing[0] if len(differing) == 1 else None


def _between(growth: FloatArray, low: float, high: float) -> BoolArray:
    return (growth >= low) & (growth <= high)


def _alone(grid: Grid, within: Sequence[Architecture]) -> Iterator[Architecture]:
    """The furthest step within range along each axis, up and down; if none is within, the nearest one beyond."""
    inside = set(within)
    for axis in range(len(AXES)):
        base = grid.base.choices[axis]
        up = [grid.along(axis, step) for step in range(base + 1, len(grid.decisions[axis].choices))]
        down = [grid.along(axis, step) for step in range(base - 1, -1, -1)]
        for steps in (up, down):
            yield from ([one for one in steps if one in inside] or steps[:1])[-1:]


def _all_terms(points: FloatArray) -> FloatArray:
    """The terms of a law with all squares and products, each scaled to about the same size, `[n, 10]`."""
    unit = points / np.maximum(np.abs(points).max(axis=0), 1e-9)
    pairs = [unit[:, i] * unit[:, j] for i in range(unit.shape[1]) for j in range(i, unit.shape[1])]
    return np.stack([np.ones(len(unit)), *unit.T, *pairs], axis=1)
