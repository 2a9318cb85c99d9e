"""The contract of a controller.

    propose(n, rng) -> proposals --(run, judged, measured elsewhere)--> outcomes -> update(outcomes, step)

A controller knows decisions and rewards, never networks, weights or devices. All its randomness comes from the
generator it is handed, and `state()` is everything it has learned: a controller restored from it, given the same
generator and outcomes, continues to the bit.

Warm-up (TuNAS, arXiv:2008.06120; patent US11347995) is a property of a proposal, not of a way to propose, so it is
done here for all controllers: with probability `op_warmup` a decision of kind `op` runs all its choices at equal
weight, and with probability `filter_warmup` a decision of kind `filters` runs its largest choice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from nas_edge.errors import RunError
from nas_edge.spaces.decisions import Architecture, Decision, SearchSpace

State: TypeAlias = dict[str, Any]  # JSON values only; floats survive JSON exactly

STATE_SCHEMA_VERSION = 1

# A choice of smaller weight is not run.
SMALLEST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Proposal:
    """An architecture to try, and how each decision is to be run.

    Attributes:
        architecture: the sampled choices; the largest choice where filter warm-up replaced a decision. Where op
            warm-up runs all choices at once it holds the one that was sampled.
        weights: per decision, the weight of each choice, summing to 1: one-hot, or `1/n` each under op warm-up.
        replaced: per decision, whether warm-up replaced what was sampled.
        active: per decision, whether it is reached, given the choices that are run above it.
        log_prob: log-probability of the active decisions, warm-up included; 0 for a controller without a policy.
    """

    architecture: Architecture
    weights: tuple[tuple[float, ...], ...]
    replaced: tuple[bool, ...]
    active: tuple[bool, ...]
    log_prob: float = 0.0

    @property
    def mixed(self) -> bool:
        """Whether several choices run at once somewhere, so that no single network stands for this proposal."""
        return any(on and max(weights) < 1.0 for on, weights in zip(self.active, self.weights, strict=True))


@dataclass(frozen=True)
class Outcome:
    """How a proposal did.

    Attributes:
        proposal: what was tried.
        reward: its reward, or None when the candidate itself failed (did not convert, crashed, ran out of memory).
            A proposal that was never judged because the bench broke is no outcome and is not reported.
    """

    proposal: Proposal
    reward: float | None

    def __post_init__(self) -> None:
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(f"expected a finite reward, or None for a failed candidate; received {self.reward}")


class Controller(ABC):
    """Proposes architectures of one space and learns from their outcomes.

    Args:
        space: where to search.
    """

    name: ClassVar[str]

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def propose(
        self, n: int, rng: np.random.Generator, op_warmup: float = 0.0, filter_warmup: float = 0.0
    ) -> list[Proposal]:
        """`n` architectures to try.

        Args:
            n: how many.
            rng: the only source of randomness.
            op_warmup: probability that a decision of kind `op` runs all its choices.
            filter_warmup: probability that a decision of kind `filters` runs its largest choice.
        """
        replace_probabilities = tuple(
            op_warmup if decision.kind == "op" else filter_warmup for decision in self.space.decisions
        )
        return [self._warmed(self._sample(rng), replace_probabilities, rng) for _ in range(n)]

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

    @abstractmethod
    def probabilities(self) -> dict[str, tuple[float, ...]]:
        """How likely each choice is to be proposed, per decision path, in the space's order."""

    def entropy(self) -> float:
        """Entropy of `probabilities` summed over all decisions, in nats; falls as a search settles."""
        return -sum(p * math.log(p) for choices in self.probabilities().values() for p in choices if p > 0.0)

    def learning_rate(self, step: int) -> float | None:
        """The rate at which `update` learns at `step`; None for a controller without one."""
        return None

    def state(self) -> State:
        """Everything learned so far, as JSON values."""
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
    def _sample(self, rng: np.random.Generator) -> Architecture:
        """One architecture, before warm-up."""

    @abstractmethod
    def _learned(self) -> State:
        """What `state` holds for this kind of controller."""

    @abstractmethod
    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        """The inverse of `_learned`."""

    def _log_prob(
        self,
        architecture: Architecture,
        active: Sequence[bool],
        replaced: Sequence[bool],
        replace_probabilities: Sequence[float],
    ) -> float:
        """Log-probability of a proposal. A controller without a policy has none to report."""
        return 0.0

    def _signature(self) -> list[list[str | int]]:
        return [[decision.path, len(decision.choices)] for decision in self.space.decisions]

    def _warmed(
        self, sampled: Architecture, replace_probabilities: Sequence[float], rng: np.random.Generator
    ) -> Proposal:
        # Drawn even where the probability is 0, so that a stream of random numbers does not depend on warm-up.
        draws = rng.random(len(sampled.choices))
        replaced = tuple(bool(u < p) for u, p in zip(draws, replace_probabilities, strict=True))
        choices, weights = [], []
        for decision, choice, replace in zip(self.space.decisions, sampled.choices, replaced, strict=True):
            run = decision.largest if replace and decision.kind == "filters" else choice
            choices.append(run)
            weights.append(_uniform(decision) if replace and decision.kind == "op" else _one_hot(decision, run))
        active = self.space.active_given(
            [[i for i, weight in enumerate(row) if weight > SMALLEST_WEIGHT] for row in weights]
        )
        architecture = Architecture(tuple(choices))
        log_prob = self._log_prob(architecture, active, replaced, replace_probabilities)
        return Proposal(architecture, tuple(weights), replaced, active, log_prob)


def _one_hot(decision: Decision, choice: int) -> tuple[float, ...]:
    return tuple(float(i == choice) for i in range(len(decision.choices)))


def _uniform(decision: Decision) -> tuple[float, ...]:
    return (1.0 / len(decision.choices),) * len(decision.choices)
