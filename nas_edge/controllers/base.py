"""The contract of a controller.

    propose(n, rng) -> architectures --(run, scored and measured elsewhere)--> outcomes -> update(outcomes, step)

A controller knows decisions, rewards and what these are made of, never networks, weights or devices. All its randomness
comes from the generator it is handed, and `state()` is everything it has learned: a controller restored from it, given
the same generator and outcomes, is bit-identical to one that was never interrupted.

A search method may run a proposal otherwise than proposed; one-shot search does so in its warm-up
(`search/warmup.py`). What was run is a `Proposal`, and comes back with the outcome.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from nas_edge.errors import RunError
from nas_edge.rewards import Usage, Value
from nas_edge.spaces.decisions import Architecture, Decision, SearchSpace

State: TypeAlias = dict[str, Any]  # JSON values only; floats survive JSON exactly

STATE_SCHEMA_VERSION = 1


class PlannedReward(Protocol):
    """The reward of a search, elementwise."""

    def __call__(self, quality: Value, usage: Mapping[str, Value], /) -> Value:
        """The reward of a quality and what was used of each resource."""


@dataclass(frozen=True)
class SearchPlan:
    """What a controller may need to know of the search it is made for.

    Attributes:
        total_steps: length of the search in steps; schedules follow it.
        delay_steps: steps at the start in which nothing is evaluated.
        samples_per_step: architectures proposed per step.
        reward: the reward of a quality and what was used of each resource; None where a controller is told rewards
            alone.
    """

    total_steps: int
    delay_steps: int = 0
    samples_per_step: int = 1
    reward: PlannedReward | None = None

    @property
    def evaluations(self) -> int:
        """Architectures that will be evaluated in all."""
        return (self.total_steps - self.delay_steps) * self.samples_per_step


@dataclass(frozen=True)
class Proposal:
    """An architecture to try, and how each decision is to be run.

    Attributes:
        architecture: the choices that are run. Where a decision runs several at once, the one that was proposed.
        weights: per decision, the weight of each choice, summing to 1: one-hot unless several run at once.
        replaced: per decision, whether the search method replaced what was proposed.
        active: per decision, whether it is reached, given the choices that are run above it.
    """

    architecture: Architecture
    weights: tuple[tuple[float, ...], ...]
    replaced: tuple[bool, ...]
    active: tuple[bool, ...]

    @property
    def mixed(self) -> bool:
        """Whether several choices run at once somewhere, so that no single network stands for this proposal."""
        return any(on and max(weights) < 1.0 for on, weights in zip(self.active, self.weights, strict=True))

    def to_json(self) -> State:
        """As JSON values."""
        return {
            "architecture": str(self.architecture),
            "weights": [list(weights) for weights in self.weights],
            "replaced": list(self.replaced),
            "active": list(self.active),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Proposal:
        """The inverse of `to_json`; what else an earlier version wrote is ignored."""
        return cls(
            Architecture.parse(row["architecture"]),
            tuple(map(tuple, row["weights"])),
            tuple(row["replaced"]),
            tuple(row["active"]),
        )


def as_proposed(space: SearchSpace, architecture: Architecture) -> Proposal:
    """The proposal that runs an architecture as it is."""
    decisions = space.decisions
    weights = tuple(one_hot(d, choice) for d, choice in zip(decisions, architecture.choices, strict=True))
    return Proposal(architecture, weights, (False,) * len(decisions), space.active(architecture))


def one_hot(decision: Decision, choice: int) -> tuple[float, ...]:
    """The weights of a decision of which one choice is run."""
    return tuple(float(i == choice) for i in range(len(decision.choices)))


@dataclass(frozen=True)
class Outcome:
    """How a proposal did.

    Attributes:
        proposal: what was tried.
        reward: its reward, or None when the candidate itself failed (did not convert, crashed, ran out of memory).
            A proposal that was not evaluated because the bench broke has no outcome and is not reported.
        quality: what the reward is made of; None when it is not known.
        usage: likewise, value of each resource that is aimed at.
    """

    proposal: Proposal
    reward: float | None
    quality: float | None = None
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(f"expected a finite reward, or None for a failed candidate; received {self.reward}")


class Controller(ABC):
    """Proposes architectures of one space and learns from their outcomes.

    Args:
        space: where to search.

    Attributes:
        name: what its states are known by.
        attends_delay: whether it learns from networks of the delay, too, in which it proposes nothing new.
    """

    name: str
    attends_delay: bool = False

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @abstractmethod
    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """`n` architectures to try.

        Args:
            n: how many.
            rng: the only source of randomness.
        """

    @abstractmethod
    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """Learns from the outcomes of one step.

        Args:
            outcomes: in the order proposed, so that a replay is exact.
            step: number of the search step, from 0; schedules follow it.
        """

    @abstractmethod
    def most_likely(self) -> Architecture:
        """The canonical architecture this controller would deliver now."""

    def probabilities(self) -> dict[str, tuple[float, ...]] | None:
        """How likely each choice is, per decision path, in the space's order; None without a policy."""
        return None

    def entropy(self) -> float | None:
        """Entropy of `probabilities` summed over all decisions, in nats; falls as a search converges."""
        policy = self.probabilities()
        if policy is None:
            return None
        return -sum(p * math.log(p) for choices in policy.values() for p in choices if p > 0.0)

    def learning_rate(self, step: int) -> float | None:
        """The rate at which `update` learns at `step`; None for a controller without one."""
        return None

    def state(self) -> State:
        """Everything learned so far, as JSON values; not changed by later updates."""
        return {
            "schema_version": STATE_SCHEMA_VERSION,
            "controller": self.name,
            "decisions": self._signature(),
            "learned": self._learned(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state()` returned.

        Raises:
            RunError: when the state is of another version, controller or space.
        """
        expected = {
            "schema_version": STATE_SCHEMA_VERSION,
            "controller": self.name,
            "decisions": self._signature(),
        }
        for key, value in expected.items():
            if state.get(key) != value:
                raise RunError(
                    f"this run's controller state does not fit: its {key} differs from that of {self.name} on "
                    f"{self.space.name}; resume with the settings the run was started with"
                )
        self._restore_learned(state["learned"])

    @abstractmethod
    def _learned(self) -> State:
        """What `state` holds for this kind of controller."""

    @abstractmethod
    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        """The inverse of `_learned`."""

    def _signature(self) -> list[list[str | int]]:
        return [[decision.path, len(decision.choices)] for decision in self.space.decisions]
