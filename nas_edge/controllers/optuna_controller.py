"""A sampler of Optuna as a controller, through its ask-and-tell interface.

Every decision with an alternative is a categorical parameter whose values are the choices' indices. Decisions that are
not reached take part like all others; what is proposed and told is canonical, so that one network has one set of
parameters.

The study is kept in memory. What it was told is all that the controller has learned, and its state: each question is
put to a sampler of its own, seeded from the generator that is handed over, so nothing is remembered anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_edge.controllers.base import Controller, Outcome, State
from nas_edge.controllers.optuna_samplers import Sampler
from nas_edge.spaces.decisions import Architecture, SearchSpace

# Where Optuna's NSGA-II keeps the generation of a trial, in its databases too.
_GENERATION = "NSGAIISampler:generation"


class OptunaController(Controller):
    """Proposes what a sampler of Optuna suggests; delivers the best it saw.

    **A candidate that failed** is told with the lowest reward so far: samplers that leave failed trials out would
    propose it again and again. While there was no reward there is nothing to compare with, and it is told as pruned.

    **Generations** are counted in the order told, so one that is full never changes, however late a reward is.

    Args:
        space: where to search.
        name: what its states are known by.
        sampler: what to ask.
        generation_size: evaluated architectures in a generation, for a sampler that has such.
    """

    def __init__(self, space: SearchSpace, name: str, sampler: Sampler, *, generation_size: int = 50) -> None:
        super().__init__(space)
        self.name = name
        self._sampler, self._generation_size = sampler, generation_size
        self._distributions: dict[str, BaseDistribution] = {
            decision.path: CategoricalDistribution(tuple(range(len(decision.choices))))
            for decision in space.decisions
            if len(decision.choices) > 1
        }
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._start()

    def _start(self) -> None:
        self._study: Study = optuna.create_study(direction="maximize")
        self._told: list[tuple[Architecture, float | None]] = []
        self._best: tuple[Architecture, float] | None = None
        self._lowest: float | None = None
        self._valued = 0

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Asks the sampler; architectures that are proposed together take account of each other."""
        trials = []
        for _ in range(n):
            sampler = self._seeded(int(rng.integers(2**32)))
            self._study.sampler = _Asked(sampler, self._distributions, self._full_generations)
            trials.append(self._study.ask(self._distributions))
        for trial in trials:
            # What comes of a proposal is told as a trial of its own: not all are evaluated, nor all as proposed.
            self._study.tell(trial, state=TrialState.FAIL)
        return [self._architecture(trial.params) for trial in trials]

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """Tells the study."""
        for outcome in outcomes:
            self._tell(self.space.canonical(outcome.proposal.architecture), outcome.reward)

    def most_likely(self) -> Architecture:
        """The best architecture seen; before any was evaluated, the first of the space."""
        return self._best[0] if self._best else Architecture((0,) * len(self.space.decisions))

    @property
    def _full_generations(self) -> int:
        return self._valued // self._generation_size

    def _seeded(self, seed: int) -> BaseSampler:
        generations = {"population_size": self._generation_size} if self._sampler.in_generations else {}
        made: BaseSampler = getattr(optuna.samplers, self._sampler.class_name)(
            seed=seed, **self._sampler.options, **generations
        )
        return made

    def _architecture(self, params: Mapping[str, Any]) -> Architecture:
        choices = tuple(int(params.get(decision.path, 0)) for decision in self.space.decisions)
        return self.space.canonical(Architecture(choices))

    def _tell(self, architecture: Architecture, reward: float | None) -> None:
        self._told.append((architecture, reward))
        if reward is not None:
            self._lowest = reward if self._lowest is None else min(reward, self._lowest)
            if self._best is None or reward > self._best[1]:
                self._best = (architecture, reward)
        value = self._lowest if reward is None else reward
        choices = self.space.choices(architecture)
        trial = create_trial(
            state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
            value=value,
            params={path: choices[path] for path in self._distributions},
            distributions=self._distributions,
            system_attrs={_GENERATION: self._full_generations},
        )
        self._valued += value is not None
        self._study.add_trial(trial)

    def _learned(self) -> State:
        return {"told": [[str(architecture), reward] for architecture, reward in self._told]}

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        self._start()
        for architecture, reward in learned["told"]:
            self._tell(self.space.parse(architecture), None if reward is None else float(reward))


class _Asked(BaseSampler):
    """A sampler as a controller asks it.

    It knows that all trials have the same parameters; by itself a new sampler compares those of all trials, which
    takes most of its time. And it finds the parents of one generation after another: a study that was restored then
    has them in the same order as one that found each when the generation before was full.
    """

    def __init__(self, sampler: BaseSampler, distributions: Mapping[str, BaseDistribution], generations: int) -> None:
        self._sampler, self._distributions, self._generations = sampler, distributions, generations

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if isinstance(self._sampler, NSGAIISampler):
            for generation in range(1, self._generations + 1):
                self._sampler.get_parent_population(study, generation)
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
