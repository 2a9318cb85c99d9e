"""Finalists: many architectures that a search points to in the end, narrowed to the few worth measuring.

    proposals, best trials --(latency predicted from the run's trials)--> near the target --(scored)--> best
                  ^                                                                                      |
                  +------------------------------------ mutations ---------------------------------------+

The most likely choice of each decision says nothing of how decisions combine. What is sampled from the final policy
does, but a policy that has converged proposes the same few architectures; those of the search with the highest rewards,
and mutations of the best of both, make up the number. Scoring with shared weights, or by a table, costs little;
measuring all of it would not.

What shared weights say of networks that are nearly as good is mostly noise, so the best of those measured may be
trained, each on its own: all for a first share of the epochs, the better half for twice as many, and so on until one is
left (successive halving: Jamieson and Talwalkar, 2016, arXiv:1502.07943).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from nas_edge.controllers.latency_model import LatencyModel
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import Candidate
from nas_edge.search.loop import SearchLoop
from nas_edge.search.trials import Trial, measured_if_any
from nas_edge.settings import Settings
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.points import Points

# How many of the best are mutated, and into how many rounds the mutations of all would be divided.
_PARENTS = 8
_ROUNDS = 16
# With fewer at once, none may be new though there are others.
_FEWEST_MUTATIONS = 64
# So many mutations are tried for each that is to be near the target.
_MOST_TRIED = 16


class FinalistsSettings(Settings):
    """Which architectures are compared after a search, beside the most likely one and its neighbours."""

    sampled: int = Field(0, ge=0, le=100_000, description="architectures that are scored after the search; 0: none")
    window: float = Field(0.1, gt=0, le=1, description="how far their predicted latency may be from the target")
    measured: int = Field(16, ge=1, le=1000, description="of those, how many with the best scores are measured")
    front: int = Field(
        32,
        ge=0,
        le=1000,
        description="architectures on the Pareto front, or nearly, that are scored again after the search; 0: none",
    )
    trained: int = Field(
        0,
        ge=0,
        le=64,
        description="architectures that are trained to find the best by successive halving; at most 1: none",
    )
    quantized: bool = Field(
        False, description="score those that are trained by the file in export.precision, not by the float network"
    )

    @model_validator(mode="after")
    def _has_trained_ones(self) -> FinalistsSettings:
        if self.quantized and self.trained < 2:
            raise ValueError("quantized scores trained finalists; leave it out, or give trained a number above 1")
        return self


@dataclass(frozen=True)
class Round:
    """A round of successive halving.

    Attributes:
        networks: that are trained in it.
        share: of the epochs of a whole training.
    """

    networks: int
    share: float


def halving_rounds(count: int) -> list[Round]:
    """The rounds that leave one network of so many: each has half of them, for twice as many epochs.

    The last one left is then trained for all epochs, as whatever is delivered is; that is no round. Each round of 2, 4,
    8, 16 ... networks costs as much as one whole training.
    """
    sizes = []
    while count > 1:
        sizes.append(count)
        count = -(-count // 2)
    return [Round(size, 0.5 ** (len(sizes) - number)) for number, size in enumerate(sizes)]


def find_finalists(
    loop: SearchLoop,
    trials: Sequence[Trial],
    target_ms: float,
    settings: FinalistsSettings,
    rng: np.random.Generator,
    limit_ms: float | None = None,
) -> list[Architecture]:
    """The architectures to measure; none where the settings sample none, or the search timed too few to predict others.

    Args:
        loop: after the search.
        trials: of the search.
        target_ms: latency aimed at.
        settings: how many.
        rng: the randomness of proposals and mutations.
        limit_ms: where the target may not be exceeded, what a prediction has to meet; the best then have the highest
            quality, else the highest reward.
    """
    timed = [(one.architecture, one.latency_ms) for one in measured_if_any(trials) if one.latency_ms is not None]
    if not settings.sampled or not timed:
        return []
    model, known_ms = LatencyModel(loop.space, timed), dict(timed)
    slowest_ms = target_ms * (1.0 + settings.window) if limit_ms is None else limit_ms
    simulates = any(one.latency and one.latency.further for one in trials)

    def near(architectures: Sequence[Architecture]) -> dict[Architecture, float]:
        """Those whose latency, as measured in the search or else predicted, is near the target."""
        predicted = zip(architectures, model.predict_ms(architectures), strict=True)
        latencies_ms = {architecture: known_ms.get(architecture, latency_ms) for architecture, latency_ms in predicted}
        least_ms = target_ms * (1.0 - settings.window)
        return {architecture: ms for architecture, ms in latencies_ms.items() if least_ms <= ms <= slowest_ms}

    def scores(latencies_ms: Mapping[Architecture, float]) -> dict[Architecture, float]:
        """Of architectures with their latencies."""
        candidates = [(loop.evaluator.candidate(architecture), ms) for architecture, ms in latencies_ms.items()]
        asked = [(candidate, _answer(loop, candidate, ms, simulates)) for candidate, ms in candidates]
        qualities = loop.evaluator.quality.evaluate_all([candidate for candidate, _ in asked])
        found = [
            loop.evaluator.assess(candidate, quality, answer, loop.step, loop.step)
            for (candidate, answer), quality in zip(asked, qualities, strict=True)
        ]
        scored = {trial.architecture: trial.reward if limit_ms is None else trial.quality for trial in found}
        return {architecture: score for architecture, score in scored.items() if score is not None}

    tried = dict.fromkeys(_pointed_to(loop, trials, settings.sampled // 2 + 1, rng))
    scored, points = scores(near(list(tried))), Points(loop.space)
    count = max(1, settings.sampled // _ROUNDS)
    while len(scored) < settings.sampled and len(tried) < _MOST_TRIED * settings.sampled:
        parents = np.array([architecture.choices for architecture in _best(scored, _PARENTS) or list(tried)])
        mutations = points.mutated(parents, max(8 * count, _FEWEST_MUTATIONS), rng).tolist()
        new = [a for a in dict.fromkeys(Architecture(tuple(row)) for row in mutations) if a not in tried]
        if not new:
            break
        found = list(near(new).items())[: min(count, settings.sampled - len(scored))]
        tried.update(dict.fromkeys([architecture for architecture, _ in found] or new))
        scored |= scores(dict(found))
    return _best(scored, settings.measured)


def _answer(loop: SearchLoop, candidate: Candidate, predicted_ms: float, simulates: bool) -> LatencyAnswer:
    """Simulators, which report more than latencies, are asked, since the reward may depend on the rest."""
    if simulates:
        return loop.evaluator.latency.submit(candidate).result()
    return LatencyAnswer.estimated(LatencyKind.PREDICTED, predicted_ms)


def _best(scored: Mapping[Architecture, float], count: int) -> list[Architecture]:
    return sorted(scored, key=lambda architecture: -scored[architecture])[:count]


def _pointed_to(loop: SearchLoop, trials: Sequence[Trial], count: int, rng: np.random.Generator) -> list[Architecture]:
    """At most so many architectures: proposals, and trials with the highest rewards."""
    proposed = dict.fromkeys(map(loop.space.canonical, loop.controller.propose(count, rng)))
    rewarded = sorted((trial for trial in trials if trial.reward is not None), key=lambda trial: -(trial.reward or 0.0))
    best = list(dict.fromkeys(trial.architecture for trial in rewarded))[: count // 2]
    return list(dict.fromkeys([*list(proposed)[: count - len(best)], *best]))
