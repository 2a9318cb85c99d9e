"""The suite for controllers notices every promise that is broken."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas_edge.controllers import Controller, Outcome, Proposal, RandomSearchController
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing import check_controller

Rng = np.random.Generator


class FewerProposals(RandomSearchController):
    def propose(self, n: int, rng: Rng, *warmup: float, **more: float) -> list[Proposal]:
        return super().propose(n, rng, *warmup, **more)[1:]


class OutsideTheSpace(RandomSearchController):
    def _sample(self, rng: Rng) -> Architecture:
        return Architecture(tuple(c + 1 for c in super()._sample(rng).choices))


class ShortWeights(RandomSearchController):
    def propose(self, n: int, rng: Rng, *warmup: float, **more: float) -> list[Proposal]:
        proposals = super().propose(n, rng, *warmup, **more)
        return [replace(p, weights=tuple(row[1:] for row in p.weights)) for p in proposals]


class OtherWeights(RandomSearchController):
    def propose(self, n: int, rng: Rng, *warmup: float, **more: float) -> list[Proposal]:
        proposals = super().propose(n, rng, *warmup, **more)
        return [replace(p, weights=tuple((*row[1:], row[0]) for row in p.weights)) for p in proposals]


class NotTheLargest(RandomSearchController):
    def propose(self, n: int, rng: Rng, *warmup: float, **more: float) -> list[Proposal]:
        proposals = super().propose(n, rng)  # without warm-up, which it then claims
        return [replace(p, replaced=(True,) * len(p.replaced)) for p in proposals]


class HalfWeights(RandomSearchController):
    def propose(self, n: int, rng: Rng, *warmup: float, **more: float) -> list[Proposal]:
        proposals = super().propose(n, rng, *warmup, **more)
        return [replace(p, weights=tuple(tuple(w / 2 for w in row) for row in p.weights)) for p in proposals]


class UnevenWarmup(RandomSearchController):
    def propose(self, n: int, rng: Rng, *warmup: float, **more: float) -> list[Proposal]:
        uneven = [(0.6, *(0.4 / (len(d.choices) - 1),) * (len(d.choices) - 1)) for d in self.space.decisions]
        return [replace(p, weights=tuple(uneven)) for p in super().propose(n, rng, *warmup, **more)]


class OwnRandomness(RandomSearchController):
    def _sample(self, rng: Rng) -> Architecture:
        return Architecture(tuple(random.randrange(len(d.choices)) for d in self.space.decisions))


class AlwaysTheSame(RandomSearchController):
    def _sample(self, rng: Rng) -> Architecture:
        return Architecture((0,) * len(self.space.decisions))


class GlobalGenerator(RandomSearchController):
    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        np.random.rand()
        super().update(outcomes, step)


class MoreDrawsInWarmup(RandomSearchController):
    def propose(self, n: int, rng: Rng, op_warmup: float = 0.0, filter_warmup: float = 0.0) -> list[Proposal]:
        if op_warmup:
            rng.random()
        return super().propose(n, rng, op_warmup, filter_warmup)


class OtherOrder(RandomSearchController):
    def probabilities(self) -> dict[str, tuple[float, ...]]:
        return dict(reversed(super().probabilities().items()))


class NoDistribution(RandomSearchController):
    def probabilities(self) -> dict[str, tuple[float, ...]]:
        return {path: tuple(2 * p for p in row) for path, row in super().probabilities().items()}


class NegativeEntropy(RandomSearchController):
    def entropy(self) -> float:
        return -super().entropy()


class NotCanonical(RandomSearchController):
    def most_likely(self) -> Architecture:
        return Architecture((2, 1, 0)) if self.space.name == "nested" else super().most_likely()


class FailsWithFailures(RandomSearchController):
    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        super().update(outcomes, step)
        max(outcome.reward for outcome in outcomes)  # type: ignore[type-var]


class ChangesForNothing(RandomSearchController):
    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        super().update(outcomes, step)
        self._best = (Architecture((0,) * len(self.space.decisions)), 99.0 + step)


class SharedState(RandomSearchController):
    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self._all: list[float] = []

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        super().update(outcomes, step)
        self._all += [0.0] * len(outcomes)

    def _learned(self) -> dict[str, Any]:
        return {**super()._learned(), "all": self._all}


class StateIsNoJson(RandomSearchController):
    def _learned(self) -> dict[str, Any]:
        return {**super()._learned(), "pair": (1, 2)}


class Forgetful(RandomSearchController):
    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        self._best = None


class AcceptsAnyState(RandomSearchController):
    def restore(self, state: Mapping[str, Any]) -> None:
        self._restore_learned(state["learned"])


class AcceptsAnyVersion(RandomSearchController):
    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore({**state, "schema_version": self.state()["schema_version"]})


class AcceptsAnyController(RandomSearchController):
    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore({**state, "controller": self.name})


class RefusesOtherwise(RandomSearchController):
    def restore(self, state: Mapping[str, Any]) -> None:
        if state["decisions"] != self.state()["decisions"]:
            raise ValueError("no")
        super().restore(state)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (FewerProposals, "asked for 10 proposals and gave 9"),
        (OutsideTheSpace, "proposing architectures of flat"),
        (ShortWeights, "are not one per choice"),
        (OtherWeights, "leave out the proposed choice"),
        (NotTheLargest, "warm-up must run the largest choice of layer1.filters"),
        (HalfWeights, "do not sum to 1"),
        (UnevenWarmup, "are not equal, although warm-up runs all choices"),
        (OwnRandomness, "the same generator gives other proposals"),
        (AlwaysTheSame, "another generator gives the same proposals"),
        (GlobalGenerator, "the global generator was drawn from"),
        (MoreDrawsInWarmup, "how many random numbers are drawn depends on warm-up"),
        (OtherOrder, "`probabilities` must name"),
        (NoDistribution, "the probabilities of layer0.filters"),
        (NegativeEntropy, "`entropy` must lie in 0 to"),
        (NotCanonical, "`most_likely` must be canonical"),
        (FailsWithFailures, "where every candidate fails: TypeError"),
        (ChangesForNothing, "a step without outcomes changes the state"),
        (SharedState, "changed by later updates"),
        (StateIsNoJson, "does not survive JSON"),
        (Forgetful, "stopped after step 17 and restored"),
        (AcceptsAnyState, "a state of another space was accepted"),
        (AcceptsAnyVersion, "a state of another version was accepted"),
        (AcceptsAnyController, "a state of another controller was accepted"),
        (RefusesOtherwise, "a state of another space must be refused with RunError, raised ValueError"),
    ],
)
def test_a_broken_promise_is_named(broken: type[Controller], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_controller(broken)


def test_the_original_is_not_broken() -> None:
    check_controller(RandomSearchController)
