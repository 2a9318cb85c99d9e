"""Small spaces and problems on which a search's behaviour is known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nas_edge.controllers.base import Controller, Outcome, as_proposed
from nas_edge.latency.source import LatencySource
from nas_edge.networks import layers as L
from nas_edge.rewards import Objective, absolute
from nas_edge.search.methods import SearchContext
from nas_edge.spaces.blocks import Decisions, number
from nas_edge.spaces.decisions import Architecture, Decision, NetworkSpace
from nas_edge.spaces.table import ResultsTable, TableSpace
from nas_edge.tasks.tabular import Tabular, TabularSettings


def nested_space() -> NetworkSpace:
    """`kernel` (3 choices) matters only where `op` (keep, skip) keeps; `width` (unsorted) always does."""
    decisions = Decisions()
    kernel = decisions.layers("kernel", {f"k{k}": L.DepthwiseConv2D(k) for k in (3, 5, 7)})
    body = decisions.skippable("op", kernel)
    width = decisions.declare(number("width", (4, 12, 8)))
    template = L.sequential(body=body, conv=L.Conv2D(width))
    return NetworkSpace("nested", template, decisions.list, (8, 8, 4), 2)


def flat_space(layers: int = 8, choices: int = 4) -> NetworkSpace:
    """`layers` independent width decisions of `choices` choices each: 1, 2, 3, ..."""
    decisions = Decisions()
    parts: dict[str, L.Layer] = {}
    for i in range(layers):
        width = decisions.declare(number(f"layer{i}.filters", tuple(range(1, choices + 1))))
        parts[f"layer{i}"] = L.Conv2D(width)
    return NetworkSpace("flat", L.sequential(**parts), decisions.list, (8, 8, 3), 2)


class TargetProblem:
    """Additive costs and an additive quality with diminishing returns, rewarded for meeting half the largest cost.

    Which layers repay their cost differs, so the best architecture spends its time unevenly.
    """

    def __init__(self, space: NetworkSpace, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.cost = [np.cumsum(rng.uniform(0.5, 1.5, len(d.choices))) for d in space.decisions]
        self.gain = [np.cumsum(rng.uniform(0, 1) * 0.5 ** np.arange(len(d.choices))) for d in space.decisions]
        scale = sum(g[-1] for g in self.gain)
        self.gain = [g / scale for g in self.gain]
        self.objective = Objective("latency_ms", 0.5 * sum(float(c[-1]) for c in self.cost), beta=-0.5)

    def latency_ms(self, architecture: Architecture) -> float:
        """The cost of an architecture."""
        return float(sum(c[i] for c, i in zip(self.cost, architecture.choices, strict=True)))

    def reward(self, architecture: Architecture) -> float:
        """What a controller is told."""
        quality = float(sum(g[i] for g, i in zip(self.gain, architecture.choices, strict=True)))
        return absolute(quality, {"latency_ms": self.latency_ms(architecture)}, [self.objective])


def results_table(columns: int = 4, choices: int = 4) -> ResultsTable:
    """A table of all architectures of a few decisions, with the columns `quality` and `latency_ms`.

    Latency is additive, quality has its best in the middle; a few architectures have no quality.
    """
    import pandas as pd

    decisions = tuple(Decision(f"op_{i}", tuple(range(choices)), "op") for i in range(columns))
    points = list(itertools.product(range(choices), repeat=columns))
    frame = pd.DataFrame(points, columns=[decision.path for decision in decisions])
    frame["latency_ms"] = [1.0 + sum(point) / 4 for point in points]
    centre = (choices - 1) / 2
    frame["quality"] = [
        math.nan if sum(point) % 11 == 5 else 1.0 - sum((c - centre) ** 2 for c in point) / (columns * choices**2)
        for point in points
    ]
    return ResultsTable("a small table", decisions, {Architecture(point): i for i, point in enumerate(points)}, frame)


def table_context(latency: LatencySource) -> SearchContext:
    """A search of `results_table`, for a search method that trains nothing."""
    task = Tabular(TabularSettings())
    return SearchContext(TableSpace(results_table()), task, None, latency, (Objective("latency_ms", 2.0),), seed=0)


def search(
    controller: Controller,
    reward: Callable[[Architecture], float | None],
    steps: int,
    rng: np.random.Generator,
    samples: int = 1,
    first_step: int = 0,
) -> list[Architecture]:
    """Runs a search and returns everything it tried."""
    tried = []
    for step in range(first_step, steps):
        architectures = controller.propose(samples, rng)
        controller.update([Outcome(as_proposed(controller.space, a), reward(a)) for a in architectures], step)
        tried += architectures
    return tried


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """What a state is after a checkpoint wrote and read it."""
    restored: dict[str, Any] = json.loads(json.dumps(state, allow_nan=False))
    return restored
