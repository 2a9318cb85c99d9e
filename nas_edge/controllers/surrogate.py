"""Model-guided search: quality and each resource predicted apart, proposals by expected improvement of the reward.

    told: architecture -> quality, latency   --(a Gaussian process each)-->   predictions of what was not tried
    predictions --(drawn together, composed by the reward)--> rewards that may be --> what exceeds the best by most

What is rewarded has a sharp bend where the latency meets its target, which no smooth model of the reward learns, while
quality and logarithm of latency are smooth; so these are modelled, and the reward, which is known, is computed.

Of a batch, each next architecture is the one that adds most to the best of those chosen before it, in the mean of all
draws, so several devices get proposals that do not depend on the same guess.

Sources: composing what is modelled apart: Astudillo and Frazier, "Bayesian Optimization of Composite Functions", ICML
2019, arXiv:1906.01537; expected improvement of a batch, chosen one after another from joint draws: Wilson, Hutter and
Deisenroth, "Maximizing acquisition functions for Bayesian optimization", NeurIPS 2018, arXiv:1805.10196.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from nas_edge.controllers.base import Controller, Outcome, PlannedReward, SearchPlan, State
from nas_edge.rewards import Usage
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points

if TYPE_CHECKING:
    from nas_edge.controllers.surrogate_models import Kernel, Posterior

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# What the models of the quality and of failures are called, beside those of the resources.
_QUALITY, _FAILING = "quality", "failing"
# Parents of mutations: so many of the best, and so many of the most promising.
_PARENTS = 8
_PROMISING = 64
# Architectures whose values are drawn together, which takes the third power of their number, and how many times.
_DRAWN_TOGETHER, _DRAWS = 128, 64
# A latency so far below the median, as logarithm, is as good as any lower.
_LEAST_FLOOR = math.log(2.0)
# Fewest known values that a model is fitted to.
_FEWEST = 4
# A space of so many architectures may be listed, to find what was not tried.
_MOST_LISTED = 100_000


class SurrogateSettings(ChoiceSettings):
    """The settings of model-guided search."""

    name: Literal["surrogate"] = "surrogate"
    initial: int | None = Field(
        None, ge=1, description="random architectures at the start; None: 10, fewer in a short search"
    )
    candidates: int = Field(3072, ge=16, le=100_000, description="architectures that each batch is chosen from")


def make_surrogate(settings: SurrogateSettings, space: SearchSpace, plan: SearchPlan) -> SurrogateController:
    """Makes the controller for a search."""
    initial = settings.initial or max(_FEWEST, min(10, plan.evaluations // 4))
    return SurrogateController(space, plan.reward, initial=initial, candidates=settings.candidates)


@dataclass(frozen=True)
class _Models:
    """What is known of all architectures.

    Attributes:
        posteriors: of the quality and the logarithm of each resource.
        reward: see `SearchPlan`; None where the "quality" is the reward.
        failing: of 1 for a failed candidate and 0 for another; None where none failed.
    """

    posteriors: Mapping[str, Posterior]
    reward: PlannedReward | None
    failing: Posterior | None

    def optimistic(self, inputs: FloatArray) -> FloatArray:
        """Rewards of each quality and resource within a standard deviation of the mean, the highest, `[m]`."""
        known = {name: posterior.each(inputs) for name, posterior in self.posteriors.items()}
        highest: FloatArray = np.max(
            [
                self._rewards({name: m + (1.0 if name == _QUALITY else step) * d for name, (m, d) in known.items()})
                for step in ((-1.0, 0.0, 1.0) if len(known) > 1 else (0.0,))
            ],
            axis=0,
        )
        return highest

    def draws(self, inputs: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
        """Rewards that may be, those of all architectures together, `[count, m]`."""
        drawn = {name: posterior.draws(inputs, count, rng) for name, posterior in self.posteriors.items()}
        return self._rewards(drawn)

    def succeeding(self, inputs: FloatArray) -> FloatArray:
        """How likely each is not to fail, `[m]`."""
        if self.failing is None:
            return np.ones(len(inputs))
        return 1.0 - np.clip(self.failing.each(inputs)[0], 0.0, 1.0)

    def _rewards(self, drawn: Mapping[str, FloatArray]) -> FloatArray:
        """The rewards of qualities and logarithms of resources."""
        qualities = drawn[_QUALITY]
        if self.reward is None:
            return qualities
        return self.reward(qualities, {name: np.exp(values) for name, values in drawn.items() if name != _QUALITY})


def most_improving(rewards: FloatArray, best: float, succeeding: FloatArray, n: int) -> list[int]:
    """Positions of `n` different architectures that together exceed the best by most, chosen one after another.

    Args:
        rewards: that may be, `[draws, m]`.
        best: reward so far.
        succeeding: how likely each is to have a reward at all, `[m]`.
        n: at most `m`.
    """
    reached = np.full(len(rewards), best)
    chosen: list[int] = []
    for _ in range(n):
        gains = np.maximum(rewards - reached[:, None], 0.0).mean(axis=0) * succeeding
        # Where no draw exceeds what was reached: what comes closest to it.
        closest = (rewards - reached[:, None]).max(axis=0)
        gains[chosen] = closest[chosen] = -math.inf
        chosen.append(int(np.lexsort((closest, gains))[-1]))
        reached = np.maximum(reached, rewards[:, chosen[-1]])
    return chosen


def _highest(values: FloatArray, count: int) -> IntArray:
    """Positions of the highest, at most so many; of equal ones the first."""
    return np.argsort(-values, kind="stable")[:count]


def _not_among(rows: IntArray, others: IntArray) -> NDArray[np.bool_]:
    """Which rows are none of the others."""
    known = set(map(tuple, others.tolist()))
    return np.array([tuple(row) not in known for row in rows.tolist()], bool)


@dataclass(frozen=True)
class _Told:
    """What was told of an architecture, in its canonical form."""

    architecture: Architecture
    reward: float | None
    quality: float | None
    usage: Usage | None

    def to_json(self) -> list[Any]:
        return [str(self.architecture), self.reward, self.quality, None if self.usage is None else dict(self.usage)]


class SurrogateController(Controller):
    """Proposes what may be best, as far as is known; delivers the best it saw.

    The first `initial` proposals are random. After that, each batch is chosen from `candidates` architectures that were
    not proposed before: all there are, in a small space, else random ones, mutations of the eight with the highest
    rewards, and mutations of those of them that promise most. Rewards of the most promising are then drawn together,
    and those proposed that exceed the best reward so far by most in the mean of all draws. Only when all of the space
    was proposed does an architecture come up again.

    **How poor a poor architecture is** does not matter, and a few that learned nothing would set the scale of all
    qualities: they are raised to a floor, as far below the median as twice the way from there to the best tenth. So
    are latencies below half the median, such as those of networks in which nothing is connected.

    **A candidate that failed** teaches where candidates fail: a third model predicts how likely that is, and as far as
    it is, an architecture is expected to gain nothing. What is known of it, its quality or its latency, is used.

    **A proposal that nothing was told of**, because it is still measured or the bench could not, is not made again.

    **Many trials.** The models are fitted to at most `surrogate_models.MOST_ROWS` architectures, half of them those
    with the highest rewards and the others spread evenly over the search, so a proposal takes hardly longer after ten
    thousand trials than after one thousand.

    Everything is computed from what was told and what was asked, which is the state; so a restored controller goes on
    bit-identically.

    Args:
        space: where to search.
        reward: see `SearchPlan`; None models the reward itself.
        initial: random architectures at the start.
        candidates: architectures that each batch is chosen from.
    """

    name = "surrogate"

    def __init__(
        self,
        space: SearchSpace,
        reward: PlannedReward | None,
        *,
        initial: int = 10,
        candidates: int = 3072,
    ) -> None:
        super().__init__(space)
        self._reward, self._initial, self._candidates = reward, initial, candidates
        self._points = Points(space)
        self._told: list[_Told] = []
        self._asked: dict[tuple[int, ...], None] = {}  # a set that keeps its order
        self._kernels: dict[str, tuple[int, Kernel]] = {}

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """See the class."""
        fewest = max(self._initial - len(self._asked), 0)
        proposed = self._random(min(n, fewest), rng)
        self._asked.update(dict.fromkeys(architecture.choices for architecture in proposed))
        if len(proposed) < n:
            chosen = self._chosen(n - len(proposed), rng)
            self._asked.update(dict.fromkeys(architecture.choices for architecture in chosen))
            proposed += chosen
        return proposed

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """Takes note of the outcomes."""
        for outcome in outcomes:
            architecture = self.space.canonical(outcome.proposal.architecture)
            self._told.append(_Told(architecture, outcome.reward, outcome.quality, outcome.usage))
            self._asked[architecture.choices] = None

    def most_likely(self) -> Architecture:
        """The best architecture seen; before any was evaluated, the first of the space."""
        best = self._best(1)
        return best[0] if best else self.space.canonical(Architecture((0,) * len(self.space.decisions)))

    def _best(self, count: int) -> list[Architecture]:
        """The architectures with the highest rewards, each once."""
        rewarded = [told for told in self._told if told.reward is not None]
        rewarded.sort(key=lambda told: -(told.reward or 0.0))
        return list(dict.fromkeys(told.architecture for told in rewarded))[:count]

    # ---------------------------------------------------------------- candidates

    def _random(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Architectures that were not proposed before, as far as there are any."""
        found = self._new(self._points.sample(4 * n + 16, rng))[:n]
        if len(found) < n and self.space.size <= _MOST_LISTED:
            new = self._new(self._points.every())
            found = new[rng.permutation(len(new))[:n]]
        more = self._points.sample(n - len(found), rng)
        return [Architecture(tuple(choices)) for choices in [*found.tolist(), *more.tolist()]]

    def _new(self, choices: IntArray) -> IntArray:
        """Each once, without those that were proposed before."""
        distinct = dict.fromkeys(map(tuple, choices.tolist()))
        new = [row for row in distinct if row not in self._asked]
        return np.array(new, np.int64).reshape(len(new), choices.shape[1])

    # ---------------------------------------------------------------- models

    def _chosen(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """The best of a draw each."""
        if not self._is_ready():
            return self._random(n, rng)
        # With several threads, results would depend on how many cores a machine has, and small matrices take longer.
        with threadpool_limits(1):
            models = self._models()
            pool = self._pool(models, max(_DRAWN_TOGETHER, 2 * n), rng)
            if len(pool) < n:
                return self._random(n, rng)
            inputs = self._inputs(pool)
            best = max(told.reward for told in self._told if told.reward is not None)
            rewards = models.draws(inputs, _DRAWS, rng)
            chosen = most_improving(rewards, best, models.succeeding(inputs), n)
        return [Architecture(tuple(pool[i].tolist())) for i in chosen]

    def _pool(self, models: _Models, size: int, rng: np.random.Generator) -> IntArray:
        """What a batch is chosen from: the most promising, by an optimist."""
        if self.space.size <= self._candidates:
            pool = self._new(self._points.every())
            promise = models.optimistic(self._inputs(pool))
            return pool[_highest(promise, size)]
        parents = np.array([architecture.choices for architecture in self._best(_PARENTS)])
        third = max(self._candidates // 3, size)
        pool = self._new(np.concatenate([self._points.sample(third, rng), self._points.mutated(parents, third, rng)]))
        if not len(pool):
            return pool
        promise = models.optimistic(self._inputs(pool))
        mutated = self._new(self._points.mutated(pool[_highest(promise, _PROMISING)], third, rng))
        mutated = mutated[_not_among(mutated, pool)]
        pool = np.concatenate([pool, mutated])
        promise = np.concatenate([promise, models.optimistic(self._inputs(mutated))])
        return pool[_highest(promise, size)]

    def _inputs(self, choices: IntArray) -> FloatArray:
        from nas_edge.controllers.surrogate_models import inputs_of

        return inputs_of(self._points, choices)

    def _models(self) -> _Models:
        failures = [(told.architecture, float(told.reward is None)) for told in self._told]
        return _Models(
            {name: self._posterior(name, self._rows(name)) for name in self._names()},
            self._reward,
            self._posterior(_FAILING, failures) if any(failed for _, failed in failures) else None,
        )

    def _names(self) -> list[str]:
        """What is modelled: the quality and each resource that the reward is made of."""
        if self._reward is None:
            return [_QUALITY]
        usage = next((told.usage for told in self._told if told.usage is not None), None)
        return [_QUALITY, *(usage or {})]

    def _is_ready(self) -> bool:
        """Whether there is enough of everything to fit a model to."""
        return all(len(self._rows(name)) >= _FEWEST for name in self._names()) and bool(self._best(1))

    def _rows(self, name: str) -> list[tuple[Architecture, float]]:
        """What is known of a model's values, in the order told."""
        if name != _QUALITY:
            return [(told.architecture, math.log(told.usage[name])) for told in self._told if told.usage is not None]
        if self._reward is None:
            return [(told.architecture, told.reward) for told in self._told if told.reward is not None]
        return [(told.architecture, told.quality) for told in self._told if told.quality is not None]

    def _posterior(self, name: str, rows: Sequence[tuple[Architecture, float]]) -> Posterior:
        from nas_edge.controllers.surrogate_models import Posterior

        return Posterior(self._kernel(name, rows), *self._arrays(name, self._selected(rows)))

    def _kernel(self, name: str, rows: Sequence[tuple[Architecture, float]]) -> Kernel:
        """The kernel as fitted to the first rows, so that a restored search has the same."""
        from nas_edge.controllers.surrogate_models import fit_kernel, rows_of_kernel

        count = rows_of_kernel(len(rows))
        if name not in self._kernels or self._kernels[name][0] != count:
            self._kernels[name] = count, fit_kernel(self._points, *self._arrays(name, rows[:count]))
        return self._kernels[name][1]

    def _selected(self, rows: Sequence[tuple[Architecture, float]]) -> Sequence[tuple[Architecture, float]]:
        """What a model is fitted to, see the class."""
        from nas_edge.controllers.surrogate_models import MOST_ROWS, selected

        rewards = {told.architecture: -math.inf if told.reward is None else told.reward for told in self._told}
        chosen = selected(np.array([rewards[architecture] for architecture, _ in rows]), MOST_ROWS)
        return [rows[i] for i in chosen]

    def _arrays(self, name: str, rows: Sequence[tuple[Architecture, float]]) -> tuple[FloatArray, FloatArray]:
        """Inputs and values of a model."""
        from nas_edge.controllers.surrogate_models import floored

        choices = np.array([architecture.choices for architecture, _ in rows])
        values = np.array([value for _, value in rows])
        if name != _FAILING:
            values = floored(values) if name == _QUALITY else floored(values, _LEAST_FLOOR)
        return self._inputs(choices), values

    def _learned(self) -> State:
        return {
            "told": [told.to_json() for told in self._told],
            "asked": [str(Architecture(choices)) for choices in self._asked],
        }

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        self._told = [
            _Told(self.space.parse(architecture), reward, quality, usage)
            for architecture, reward, quality, usage in learned["told"]
        ]
        self._asked = dict.fromkeys(self.space.parse(asked).choices for asked in learned["asked"])
        self._kernels = {}
