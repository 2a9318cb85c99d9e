"""The suite for controllers notices every promise that is broken."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ConfigDict, field_serializer

from nas_edge.controllers import Controller, Outcome, RandomSearchController, SearchPlan
from nas_edge.controllers.random_search import RandomSettings, make_random
from nas_edge.registry import Entry
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing import check_controller

Rng = np.random.Generator


class FewerProposals(RandomSearchController):
    def propose(self, n: int, rng: Rng) -> list[Architecture]:
        return super().propose(n, rng)[1:]


class OutsideTheSpace(RandomSearchController):
    def propose(self, n: int, rng: Rng) -> list[Architecture]:
        return [Architecture(tuple(c + 1 for c in a.choices)) for a in super().propose(n, rng)]


class NoArchitectures(RandomSearchController):
    def propose(self, n: int, rng: Rng) -> list[Architecture]:
        return [str(a) for a in super().propose(n, rng)]  # type: ignore[misc]


class OwnRandomness(RandomSearchController):
    def propose(self, n: int, rng: Rng) -> list[Architecture]:
        return [Architecture(tuple(random.randrange(len(d.choices)) for d in self.space.decisions)) for _ in range(n)]


class AlwaysTheSame(RandomSearchController):
    def propose(self, n: int, rng: Rng) -> list[Architecture]:
        return [Architecture((0,) * len(self.space.decisions))] * n


class GlobalGenerator(RandomSearchController):
    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        np.random.rand()
        super().update(outcomes, step)


class OtherOrder(RandomSearchController):
    def probabilities(self) -> dict[str, tuple[float, ...]]:
        return dict(reversed(super().probabilities().items()))


class NoDistribution(RandomSearchController):
    def probabilities(self) -> dict[str, tuple[float, ...]]:
        return {path: tuple(2 * p for p in row) for path, row in super().probabilities().items()}


class NegativeEntropy(RandomSearchController):
    def entropy(self) -> float | None:
        return -(super().entropy() or 0.0)


class HalfAPolicy(RandomSearchController):
    def entropy(self) -> float | None:
        return None


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


class Remembers(RandomSearchController):
    """Its proposals depend on what no state holds."""

    asked = 0

    def propose(self, n: int, rng: Rng) -> list[Architecture]:
        proposed = super().propose(n, rng)
        self.asked += 1
        return proposed[::-1] if self.asked > 20 else proposed


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
        (FewerProposals, "asked for 10 architectures and gave 9"),
        (OutsideTheSpace, "proposing architectures of flat"),
        (NoArchitectures, "`propose` must give Architectures"),
        (OwnRandomness, "the same generator gives other proposals"),
        (AlwaysTheSame, "another generator gives the same proposals"),
        (GlobalGenerator, "the global generator was drawn from"),
        (OtherOrder, "`probabilities` must name"),
        (NoDistribution, "the probabilities of layer0.filters"),
        (NegativeEntropy, "`entropy` must lie in 0 to"),
        (HalfAPolicy, "has both or neither"),
        (NotCanonical, "`most_likely` must be canonical"),
        (FailsWithFailures, "where every candidate fails: TypeError"),
        (ChangesForNothing, "a step without outcomes changes the state"),
        (SharedState, "changed by later updates"),
        (StateIsNoJson, "does not survive JSON"),
        (Forgetful, "stopped after each step and restored"),
        (Remembers, "stopped after .* and restored differs .* in step 20"),
        (AcceptsAnyState, "a state of another space was accepted"),
        (AcceptsAnyVersion, "a state of another version was accepted"),
        (AcceptsAnyController, "a state of another controller was accepted"),
        (RefusesOtherwise, "a state of another space must be refused with RunError, raised ValueError"),
    ],
)
def test_a_broken_promise_is_named(broken: type[RandomSearchController], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_controller(Entry(RandomSettings, lambda settings, space, plan: broken(space)))


class NoName(ChoiceSettings):
    size: int = 3


class Unreadable(RandomSettings):
    size: float = 0.1

    @field_serializer("size")
    def _rounded(self, size: float) -> float:
        return round(size)


class TakesAnything(RandomSettings):
    model_config = ConfigDict(extra="ignore")


def make_nothing(settings: RandomSettings, space: SearchSpace, plan: SearchPlan) -> Controller:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("entry", "promise"),
    [
        (Entry(dict, make_random), "must be a subclass of ChoiceSettings"),  # type: ignore[arg-type]
        (Entry(NoName, make_random), "no field `name`"),
        (Entry(Unreadable, make_random), "the settings do not survive JSON"),
        (Entry(TakesAnything, make_random), "a setting that does not exist was accepted"),
        (Entry(RandomSettings, make_nothing), "`make` must return a Controller"),
    ],
)
def test_a_broken_entry_is_named(entry: Entry[Controller], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_controller(entry)


def test_the_original_is_not_broken() -> None:
    check_controller(Entry(RandomSettings, make_random))
