"""Random search: the baseline every other controller must beat at an equal budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nas_edge.controllers.base import Controller, Outcome, SearchPlan, State
from nas_edge.errors import InfeasibleError
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture, SearchSpace


class RandomSettings(ChoiceSettings):
    """Random search has no settings."""

    name: Literal["random"] = "random"


def make_random(settings: RandomSettings, space: SearchSpace, plan: SearchPlan) -> RandomSearchController:
    """Makes the controller for a search."""
    return RandomSearchController(space)


class RandomSearchController(Controller):
    """Draws uniformly per decision; delivers the best it saw.

    Uniform per decision means that every skippable layer is skipped half of the time, as in the published random
    baselines of these spaces.

    Args:
        space: where to search.
        accept: keeps only architectures for which it is true, for example those inside a latency window; None keeps
            all.
        attempts: how many draws in a row may be rejected before giving up. The default finds a window that one
            architecture in a thousand meets, with all but certainty.
    """

    name = "random"

    def __init__(
        self,
        space: SearchSpace,
        *,
        accept: Callable[[Architecture], bool] | None = None,
        attempts: int = 10_000,
    ) -> None:
        super().__init__(space)
        self._accept = accept
        self._attempts = attempts
        self._best: tuple[Architecture, float] | None = None

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Draws until each is accepted.

        Raises:
            InfeasibleError: when none is accepted.
        """
        return [self._draw(rng) for _ in range(n)]

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """Remembers the best."""
        for outcome in outcomes:
            if outcome.reward is not None and (self._best is None or outcome.reward > self._best[1]):
                self._best = (self.space.canonical(outcome.proposal.architecture), outcome.reward)

    def most_likely(self) -> Architecture:
        """The best architecture seen; before any was evaluated, the first of the space."""
        return self._best[0] if self._best else Architecture((0,) * len(self.space.decisions))

    def probabilities(self) -> dict[str, tuple[float, ...]]:
        """Uniform; what `accept` rejects is not accounted for."""
        return {d.path: (1.0 / len(d.choices),) * len(d.choices) for d in self.space.decisions}

    def _draw(self, rng: np.random.Generator) -> Architecture:
        for _ in range(self._attempts):
            architecture = self.space.sample(rng)
            if self._accept is None or self._accept(architecture):
                return architecture
        raise InfeasibleError(
            f"none of {self._attempts} random architectures of {self.space.name} was accepted",
            fix="let `accept` keep more of them",
        )

    def _learned(self) -> State:
        return {"best": self._best and [str(self._best[0]), self._best[1]]}

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        best = learned["best"]
        self._best = best and (self.space.parse(best[0]), float(best[1]))
