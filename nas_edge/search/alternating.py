"""Alternating search: networks are searched by trials, what is beside them (an accelerator) by enumeration.

    search networks with b0 | b1: the best of all for the best network | search networks with b1 | ...

Since a simulator answers for all accelerators at once, none of them needs to be sampled, and networks get all samples.
A policy over both learns more slowly, see `docs/joint-search.md`; it can be chosen with
`--method multi-trial --controller reinforce`.

Source: NAHAS, arXiv:2102.08619, patent US20240005129A1, for the joint space; the alternation is the project's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pydantic import Field, model_validator

from nas_edge.controllers.base import Controller, Outcome, Proposal, State
from nas_edge.joint.space import JointSpace
from nas_edge.networks.graph import NetworkSpec
from nas_edge.rewards import Objective
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.loop import StepReport
from nas_edge.search.multi_trial import MultiTrialSearch, MultiTrialSettings
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture


@runtime_checkable
class Enumerable(Protocol):
    """A joint space that can find the best of all choices beside a network."""

    @property
    def first_beside(self) -> tuple[int, ...]:
        """The choices beside the network with which a search begins."""

    def best_beside(self, network: NetworkSpec, objectives: Sequence[Objective]) -> tuple[int, ...]:
        """The best choices for a network.

        Args:
            network: the network.
            objectives: resources with targets.
        """


class AlternatingSettings(MultiTrialSettings):
    """Settings of `alternating`."""

    method: str = Field("alternating", description="how architectures are evaluated")
    rounds: int = Field(
        2,
        ge=1,
        le=1000,
        description="searches of networks; before each but the first, what is beside them is chosen again",
    )

    @model_validator(mode="after")
    def _has_steps(self) -> AlternatingSettings:
        if self.steps < self.rounds:
            raise ValueError(f"rounds={self.rounds} requires at least as many steps; steps is {self.steps}")
        return self

    @property
    def starts(self) -> tuple[int, ...]:
        """The first step of each round."""
        return tuple(self.steps * number // self.rounds for number in range(self.rounds))


class AlternatingController(Controller):
    """Proposes networks while the choices beside them are fixed, with a new controller for each round.

    Args:
        space: the joint space.
        make: makes a fresh controller of `space.networks`.
        beside: the choices that are fixed in the first round.
    """

    def __init__(self, space: JointSpace, make: Callable[[], Controller], beside: Sequence[int]) -> None:
        super().__init__(space)
        self._joint, self._make = space, make
        self.begin(beside, 0)
        self.name = f"alternating with {self._inner.name}"

    def begin(self, beside: Sequence[int], step: int, first: Architecture | None = None) -> None:
        """Begins a round with a fresh controller, since what was learned was learned with other fixed choices.

        Args:
            beside: the choices that are fixed.
            step: the round's first step.
            first: an architecture of the joint space whose network is proposed first.
        """
        self.beside, self._first_step, self._first = tuple(beside), step, first
        self._inner = self._make()

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Networks with the fixed choices."""
        networks = self._inner.propose(n, rng)
        if self._first is not None:
            networks[0], _ = self._joint.split(self._first)
            self._first = None
        return [self._joint.join(network, self.beside) for network in networks]

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """Passes the outcomes of the networks on to the round's controller."""
        self._inner.update(
            [Outcome(self._of_network(one.proposal), one.reward, one.quality, one.usage) for one in outcomes],
            step - self._first_step,
        )

    def most_likely(self) -> Architecture:
        """The round's most likely network, with the fixed choices."""
        return self._joint.canonical(self._joint.join(self._inner.most_likely(), self.beside))

    def probabilities(self) -> dict[str, tuple[float, ...]] | None:
        """The round's probabilities for the decisions of networks; 1 for fixed choices."""
        policy = self._inner.probabilities()
        if policy is None:
            return None
        fixed = {
            decision.path: tuple(float(i == choice) for i in range(len(decision.choices)))
            for decision, choice in zip(self._joint.beside, self.beside, strict=True)
        }
        return {**policy, **fixed}

    def learning_rate(self, step: int) -> float | None:
        """The learning rate of the round's controller."""
        return self._inner.learning_rate(step - self._first_step)

    def _of_network(self, proposal: Proposal) -> Proposal:
        count = len(self._joint.networks.decisions)
        network, _ = self._joint.split(proposal.architecture)
        return Proposal(network, proposal.weights[:count], proposal.replaced[:count], proposal.active[:count])

    def _learned(self) -> State:
        return {
            "beside": list(self.beside),
            "first_step": self._first_step,
            "first": None if self._first is None else str(self._first),
            "round": self._inner.state(),
        }

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        first = learned["first"]
        self.begin(learned["beside"], int(learned["first_step"]), None if first is None else Architecture.parse(first))
        self._inner.restore(learned["round"])


class AlternatingSearch(MultiTrialSearch):
    """The loop.

    Args:
        controller: what proposes.
        evaluator: what says how good a proposal is; its space is `Enumerable`.
        rng: the controller's randomness.
        settings: of the loop.
    """

    def __init__(
        self,
        controller: AlternatingController,
        evaluator: Evaluator,
        rng: np.random.Generator,
        settings: AlternatingSettings,
    ) -> None:
        super().__init__(controller, evaluator, rng, settings)
        self._alternating, self._starts = controller, settings.starts
        self._best: tuple[Architecture, float] | None = None

    def take_step(self) -> StepReport:
        """See `SearchLoop`."""
        if self.step in self._starts and self._best is not None:
            self._exchange(self._best[0])
        report = super().take_step()
        for trial in report.trials:
            self._note(trial)
        return report

    def _exchange(self, best: Architecture) -> None:
        """Continues with the best choices beside a network; without a new round if these are already fixed."""
        space = self.space
        assert isinstance(space, Enumerable)
        beside = space.best_beside(space.build(best).needed_network(), self.evaluator.objectives)
        if beside != self._alternating.beside:
            self._alternating.begin(beside, self.step, first=best)
            self._best = None  # its reward with the new choices is not known yet

    def _note(self, trial: Trial) -> None:
        if trial.reward is not None and (self._best is None or trial.reward > self._best[1]):
            self._best = trial.architecture, trial.reward

    def state(self) -> State:
        """See `SearchLoop`."""
        best = None if self._best is None else [str(self._best[0]), self._best[1]]
        return {**super().state(), "best": best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `SearchLoop`."""
        super().restore(state)
        best = state["best"]
        self._best = None if best is None else (Architecture.parse(best[0]), float(best[1]))
