"""Regularised (aging) evolution.

Source: Real, Aggarwal, Huang, Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019,
arXiv:1802.01548, algorithm 1.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from nas_edge.controllers.base import Controller, Outcome, SearchPlan, State
from nas_edge.errors import ConfigError
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture, SearchSpace


class EvolutionSettings(ChoiceSettings):
    """The settings of regularised evolution."""

    name: Literal["evolution"] = "evolution"
    population_size: int | None = Field(
        None, ge=1, description="members kept; None takes the paper's 100, fewer in a short search"
    )
    sample_size: int | None = Field(
        None, ge=1, description="members that compete to be the parent; None takes a quarter of the population"
    )


def make_evolution(settings: EvolutionSettings, space: SearchSpace, plan: SearchPlan) -> EvolutionController:
    """Makes the controller for a search.

    Raises:
        ConfigError: when the sample is larger than the population.
    """
    # The paper's population of 100 and samples of 25, scaled down so that short runs evolve at all.
    population_size = settings.population_size or max(2, min(100, plan.evaluations // 4))
    sample_size = settings.sample_size or max(1, population_size // 4)
    return EvolutionController(space, population_size=population_size, sample_size=sample_size)


class EvolutionController(Controller):
    """Mutates the best of a random sample of a population whose oldest member always dies.

    Until `population_size` candidates were evaluated, proposals are uniform. From then on each is the best of
    `sample_size` members (drawn with replacement) with one decision changed, and every evaluated candidate replaces the
    oldest member. Only decisions that are active in the parent are changed: another change would leave the network
    as it was.

    A candidate that failed never enters the population, so it has no offspring.

    Args:
        space: where to search.
        population_size: members kept (100 in the paper).
        sample_size: members that compete to be the parent (25 in the paper).

    Raises:
        ConfigError: unless `1 <= sample_size <= population_size`.
    """

    name = "evolution"

    def __init__(self, space: SearchSpace, *, population_size: int = 100, sample_size: int = 25) -> None:
        super().__init__(space)
        if not 1 <= sample_size <= population_size:
            raise ConfigError(
                f"controller.sample_size must be from 1 to population_size ({population_size})",
                received=f"{sample_size}",
            )
        self._sample_size = sample_size
        self._population: deque[tuple[Architecture, float]] = deque(maxlen=population_size)
        self._best: tuple[Architecture, float] | None = None

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Uniform draws until the population is full, then offspring."""
        return [self._draw(rng) for _ in range(n)]

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """Adds what was evaluated to the population, each time dropping the oldest member."""
        for outcome in outcomes:
            if outcome.reward is None:
                continue
            member = (outcome.proposal.architecture, outcome.reward)
            self._population.append(member)
            if self._best is None or member[1] > self._best[1]:
                self._best = member

    def most_likely(self) -> Architecture:
        """The best architecture of the whole search; before any was evaluated, the first of the space."""
        return self.space.canonical(self._best[0]) if self._best else Architecture((0,) * len(self.space.decisions))

    def probabilities(self) -> dict[str, tuple[float, ...]]:
        """Share of the population that has each choice; uniform while it is empty."""
        if not self._population:
            return {d.path: (1.0 / len(d.choices),) * len(d.choices) for d in self.space.decisions}
        shares = {}
        for position, decision in enumerate(self.space.decisions):
            counts = Counter(architecture.choices[position] for architecture, _ in self._population)
            shares[decision.path] = tuple(counts[i] / len(self._population) for i in range(len(decision.choices)))
        return shares

    def _draw(self, rng: np.random.Generator) -> Architecture:
        if len(self._population) < (self._population.maxlen or 0):
            return self.space.sample(rng)
        drawn = rng.integers(len(self._population), size=self._sample_size)
        parent, _ = max((self._population[int(i)] for i in drawn), key=lambda member: member[1])
        return self._mutate(parent, rng)

    def _mutate(self, parent: Architecture, rng: np.random.Generator) -> Architecture:
        active = self.space.active(parent)
        candidates = [
            i for i, (d, on) in enumerate(zip(self.space.decisions, active, strict=True)) if on and len(d.choices) > 1
        ]
        if not candidates:
            return parent
        position = candidates[int(rng.integers(len(candidates)))]
        choices = list(parent.choices)
        offset = 1 + int(rng.integers(len(self.space.decisions[position].choices) - 1))
        choices[position] = (choices[position] + offset) % len(self.space.decisions[position].choices)
        return Architecture(tuple(choices))

    def _learned(self) -> State:
        def row(member: tuple[Architecture, float]) -> list[str | float]:
            return [str(member[0]), member[1]]

        return {"population": [row(m) for m in self._population], "best": self._best and row(self._best)}

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        def member(row: Sequence[Any]) -> tuple[Architecture, float]:
            return self.space.parse(row[0]), float(row[1])

        self._population = deque(map(member, learned["population"]), maxlen=self._population.maxlen)
        self._best = learned["best"] and member(learned["best"])
