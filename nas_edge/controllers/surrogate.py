"""Model-guided search: quality and each resource predicted apart, proposals by Thompson sampling.

    told: architecture -> quality, latency   --(a Gaussian process each)-->   predictions of what was not tried
    predictions --(drawn together, composed by the reward)--> rewards that may be; the best of a draw is proposed

What is rewarded has a sharp bend where the latency meets its target, which no smooth model of the reward learns, while
quality and logarithm of latency are smooth; so these are modelled, and the reward, which is known, is computed.

Each architecture of a batch is the best of a draw of its own, so several devices get proposals that differ as far as
the models are unsure, and so do proposals that are made while others wait for their outcomes.

Sources: Thompson, Biometrika 1933; batches by it: Kandasamy et al., AISTATS 2018, arXiv:1705.09236; composing what is
modelled apart: Astudillo and Frazier, "Bayesian Optimization of Composite Functions", ICML 2019, arXiv:1906.01537.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from nas_edge.controllers.base import Controller, Outcome, SearchPlan, State
from nas_edge.rewards import Usage
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points

if TYPE_CHECKING:
    from nas_edge.controllers.surrogate_models import Kernel, Posterior

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# What the model of the quality is called, beside those of the resources.
_QUALITY = "quality"
# Parents of mutations: so many of the best, and so many of the most promising.
_PARENTS = 8
_PROMISING = 64
# Architectures whose values are drawn together, which takes the third power of their number.
_DRAWN_TOGETHER = 256
# Fewest known values that a model is fitted to.
_FEWEST = 4
# The kernels are fitted again whenever there are so many times as many rows.
_GROWTH = 1.2
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
        lowest: reward so far.
    """

    posteriors: Mapping[str, Posterior]
    reward: Callable[[float, Usage], float] | None
    failing: Posterior | None
    lowest: float

    def draw_apart(self, features: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Rewards that may be, each drawn on its own, `[m]`."""
        drawn = {}
        for name, posterior in self.posteriors.items():
            means, deviations = posterior.each(features)
            drawn[name] = means + deviations * rng.standard_normal(len(means))
        return self._rewards(drawn, self._failing(features))

    def draw_together(self, features: FloatArray, count: int, rng: np.random.Generator) -> list[FloatArray]:
        """Rewards that may be, those of all architectures at once, `count` times `[m]`."""
        drawn = {name: posterior.draws(features, count, rng) for name, posterior in self.posteriors.items()}
        failing = self._failing(features)
        return [self._rewards({name: draws[i] for name, draws in drawn.items()}, failing) for i in range(count)]

    def _failing(self, features: FloatArray) -> FloatArray:
        """How likely each is to fail."""
        if self.failing is None:
            return np.zeros(len(features))
        return np.clip(self.failing.each(features)[0], 0.0, 1.0)

    def _rewards(self, drawn: Mapping[str, FloatArray], failing: FloatArray) -> FloatArray:
        """The rewards of drawn qualities and logarithms."""
        qualities = drawn[_QUALITY]
        rewards = qualities
        if self.reward is not None:
            usages = {name: np.exp(values).tolist() for name, values in drawn.items() if name != _QUALITY}
            rewards = np.array(
                [
                    self.reward(quality, {name: values[i] for name, values in usages.items()})
                    for i, quality in enumerate(qualities.tolist())
                ]
            )
        result: FloatArray = failing * self.lowest + (1.0 - failing) * rewards
        return result


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
    not proposed before: random ones, mutations of the eight with the highest rewards, and mutations of those of them
    that promise most. Those with the highest rewards, drawn apart, are then drawn together, once for each proposal of
    the batch. Only when all of the space was proposed does an architecture come up again.

    **How poor a poor architecture is** does not matter, and a few that learned nothing would set the scale of all
    qualities: they are raised to a floor, as far below the median as twice the way from there to the best tenth.

    **A candidate that failed** teaches where candidates fail: a third model predicts how likely that is, and as far as
    it is, a drawn reward is replaced by the lowest so far. What is known of it, its quality or its latency, is used.

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
        reward: Callable[[float, Usage], float] | None,
        *,
        initial: int = 10,
        candidates: int = 3072,
    ) -> None:
        super().__init__(space)
        self._reward, self._initial, self._candidates = reward, initial, candidates
        self._points = Points(space)
        self._told: list[_Told] = []
        self._asked: dict[Architecture, None] = {}  # a set that keeps its order
        self._kernels: dict[str, tuple[int, Kernel]] = {}

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """See the class."""
        fewest = max(self._initial - len(self._asked), 0)
        proposed = self._random(min(n, fewest), rng)
        self._asked.update(dict.fromkeys(proposed))
        if len(proposed) < n:
            chosen = self._chosen(n - len(proposed), rng)
            self._asked.update(dict.fromkeys(chosen))
            proposed += chosen
        return proposed

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """Takes note of the outcomes."""
        for outcome in outcomes:
            architecture = self.space.canonical(outcome.proposal.architecture)
            self._told.append(_Told(architecture, outcome.reward, outcome.quality, outcome.usage))
            self._asked[architecture] = None

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
        distinct = np.unique(choices, axis=0)
        kept = [Architecture(tuple(row)) not in self._asked for row in distinct.tolist()]
        return distinct[kept]

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
            chosen: list[int] = []
            for rewards in models.draw_together(self._points.features(pool), n, rng):
                rewards[chosen] = -math.inf
                chosen.append(int(np.argmax(rewards)))
        return [Architecture(tuple(pool[i].tolist())) for i in chosen]

    def _pool(self, models: _Models, size: int, rng: np.random.Generator) -> IntArray:
        """What a batch is chosen from."""
        parents = np.array([architecture.choices for architecture in self._best(_PARENTS)])
        third = max(self._candidates // 3, size)
        pool = self._new(np.concatenate([self._points.sample(third, rng), self._points.mutated(parents, third, rng)]))
        if not len(pool):
            return pool
        promising = self._most(pool, models, _PROMISING, rng)
        pool = self._new(np.concatenate([pool, self._points.mutated(promising, third, rng)]))
        return self._most(pool, models, size, rng)

    def _most(self, pool: IntArray, models: _Models, count: int, rng: np.random.Generator) -> IntArray:
        """Those with the highest rewards, each drawn on its own."""
        rewards = models.draw_apart(self._points.features(pool), rng)
        return pool[np.argsort(-rewards, kind="stable")[:count]]

    def _models(self) -> _Models:
        failures = [(told.architecture, float(told.reward is None)) for told in self._told]
        return _Models(
            {name: self._posterior(name, self._rows(name)) for name in self._names()},
            self._reward,
            self._posterior("failing", failures) if any(failed for _, failed in failures) else None,
            min(told.reward for told in self._told if told.reward is not None),
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
        """The kernel as fitted to the first rows; how many, follows from how many there are."""
        count = _FEWEST
        while (more := math.ceil(count * _GROWTH)) <= len(rows):
            count = more
        known = self._kernels.get(name)
        if known is None or known[0] != count:
            from nas_edge.controllers.surrogate_models import fit_kernel

            known = self._kernels[name] = (count, fit_kernel(*self._arrays(name, rows[:count])))
        return known[1]

    def _selected(self, rows: Sequence[tuple[Architecture, float]]) -> Sequence[tuple[Architecture, float]]:
        """What a model is fitted to, see the class."""
        from nas_edge.controllers.surrogate_models import MOST_ROWS, evenly

        if len(rows) <= MOST_ROWS:
            return rows
        best = set(self._best(MOST_ROWS // 2))
        first = [row for row in rows if row[0] in best][:MOST_ROWS]
        others = [row for row in rows if row[0] not in best]
        return first + [others[i] for i in evenly(len(others), MOST_ROWS - len(first))]

    def _arrays(self, name: str, rows: Sequence[tuple[Architecture, float]]) -> tuple[FloatArray, FloatArray]:
        """Features and values of a model."""
        from nas_edge.controllers.surrogate_models import floored

        choices = np.array([architecture.choices for architecture, _ in rows])
        values = np.array([value for _, value in rows])
        return self._points.features(choices), floored(values) if name == _QUALITY else values

    def _learned(self) -> State:
        return {"told": [told.to_json() for told in self._told], "asked": [str(asked) for asked in self._asked]}

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        self._told = [
            _Told(self.space.parse(architecture), reward, quality, usage)
            for architecture, reward, quality, usage in learned["told"]
        ]
        self._asked = dict.fromkeys(map(self.space.parse, learned["asked"]))
        self._kernels = {}
