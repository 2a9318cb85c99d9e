"""Searches put together from parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_edge.controllers.base import Controller
from nas_edge.latency.pooled import PooledLatency
from nas_edge.latency.source import LatencySource
from nas_edge.quality.source import FunctionQuality, Quality
from nas_edge.rewards import REWARDS, Objective
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.one_shot import OneShotSearch, OneShotSettings
from nas_edge.search.weight_steps import Batches
from nas_edge.supernet.shared_weights import SharedWeights


def one_shot_search(
    shared: SharedWeights,
    controller: Controller,
    latency: LatencySource,
    objectives: Sequence[Objective],
    train: Batches,
    validation: Batches,
    rng: np.random.Generator,
    settings: OneShotSettings,
    pooled: PooledLatency | None = None,
) -> OneShotSearch:
    """A one-shot search of which nothing is evaluated outside the loop."""
    not_asked = FunctionQuality("not asked", lambda _: Quality(None))
    evaluator = Evaluator(shared.supernet.space, not_asked, latency, objectives, REWARDS[settings.reward], pooled)
    return OneShotSearch(controller, evaluator, shared, train, validation, rng, settings)
