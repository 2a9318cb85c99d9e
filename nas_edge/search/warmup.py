"""TuNAS's warm-up: early on, some decisions are not run as proposed, so that all shared weights get to train.

With a probability that fades over the first steps a decision is replaced, and how depends on its kind: `op` runs all
its choices at equal weight, `filters` its largest choice. A kind that is not in `REPLACEMENTS` is never replaced.

Every operator at once is what takes most memory in a search. The patent's variant replaces a random subset of fixed
size instead: with the same fading probability a proposal has exactly so many of its `op` decisions replaced.

While the controller rests, `FairSampler` may stand in for it: by chance some choices train half as often as others.

Sources: TuNAS, arXiv:2008.06120; patent US11347995; FairNAS, arXiv:1907.01845.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from nas_edge.controllers.base import Proposal, State, one_hot
from nas_edge.spaces.decisions import Architecture, Decision, SearchSpace

# Takes a decision and its proposed choice; returns the choice that stands for what is run, and each choice's weight.
Replacement: TypeAlias = Callable[[Decision, int], "tuple[int, tuple[float, ...]]"]


def _all_choices(decision: Decision, choice: int) -> tuple[int, tuple[float, ...]]:
    return choice, (1.0 / len(decision.choices),) * len(decision.choices)


def _largest_choice(decision: Decision, choice: int) -> tuple[int, tuple[float, ...]]:
    return decision.largest, one_hot(decision, decision.largest)


REPLACEMENTS: dict[str, Replacement] = {"op": _all_choices, "filters": _largest_choice}


class Proposer(Protocol):
    """What architectures to train are from: a controller, or what stands in for it."""

    @property
    def space(self) -> SearchSpace:
        """Where they are from."""

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """See `Controller`."""


class FairSampler:
    """Draws architectures such that every choice of a decision comes equally often.

    A decision goes through all its choices in random order, then in another: as many draws as it has choices draw each
    of them once. Decisions do not depend on each other.

    Args:
        space: where to draw.

    Source: FairNAS, arXiv:1907.01845, strict fairness, for decisions of unequal size.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._left: list[list[int]] = [[] for _ in space.decisions]

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """See `Controller`."""
        return [self._draw(rng) for _ in range(n)]

    def state(self) -> State:
        """The choices that are left of each decision's round, as JSON values."""
        return {"left": [list(left) for left in self._left]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned."""
        self._left = [list(left) for left in state["left"]]

    def _draw(self, rng: np.random.Generator) -> Architecture:
        for left, decision in zip(self._left, self.space.decisions, strict=True):
            if not left:
                left.extend(rng.permutation(len(decision.choices)).tolist())
        return Architecture(tuple(left.pop() for left in self._left))


def propose(
    proposer: Proposer,
    n: int,
    rng: np.random.Generator,
    probabilities: Mapping[str, float],
    ops_at_once: int | None = None,
) -> list[Proposal]:
    """Asks for proposals and warms them up.

    Args:
        proposer: what proposes.
        n: how many.
        rng: the randomness of proposals and warm-up.
        probabilities: of replacing a decision, by its kind; a kind that is not named is not replaced.
        ops_at_once: size of the subset of `op` decisions that is replaced; None replaces each on its own.
    """
    # One after another: each proposal's draws are followed by those of its warm-up.
    return [
        warm_up(proposer.space, architecture, rng, probabilities, ops_at_once)
        for _ in range(n)
        for architecture in proposer.propose(1, rng)
    ]


def warm_up(
    space: SearchSpace,
    architecture: Architecture,
    rng: np.random.Generator,
    probabilities: Mapping[str, float],
    ops_at_once: int | None = None,
) -> Proposal:
    """Replaces decisions of one architecture at random; arguments as `propose`."""
    # Drawn even where the probability is 0, so that a stream of random numbers does not depend on warm-up.
    draws = rng.random(len(architecture.choices))
    below = [float(draw) < probabilities.get(d.kind, 0.0) for d, draw in zip(space.decisions, draws, strict=True)]
    if ops_at_once is not None:
        chosen = _subset(space, draws, ops_at_once) if rng.random() < probabilities.get("op", 0.0) else set()
        below = [i in chosen if d.kind == "op" else below[i] for i, d in enumerate(space.decisions)]
    choices, weights, replaced = [], [], []
    for decision, choice, is_below in zip(space.decisions, architecture.choices, below, strict=True):
        replacement = REPLACEMENTS.get(decision.kind)
        replace = replacement is not None and is_below
        if replacement is not None and replace:
            run, row = replacement(decision, choice)
        else:
            run, row = choice, one_hot(decision, choice)
        choices.append(run)
        weights.append(row)
        replaced.append(replace)
    return Proposal(Architecture(tuple(choices)), tuple(weights), tuple(replaced), _active(space, weights))


def _subset(space: SearchSpace, draws: np.ndarray[Any, np.dtype[np.float64]], count: int) -> set[int]:
    """Positions of the `op` decisions with the least draws; those of one choice decide nothing."""
    ops = [i for i, decision in enumerate(space.decisions) if decision.kind == "op" and len(decision.choices) > 1]
    return set(sorted(ops, key=lambda i: draws[i])[:count])


def _active(space: SearchSpace, weights: Sequence[Sequence[float]]) -> tuple[bool, ...]:
    """Whether each decision is reached, through whichever of the choices that are run above it."""
    return space.active_given([[i for i, weight in enumerate(row) if weight > 0.0] for row in weights])


def probability(step: int, warmup_steps: int) -> float:
    """`max(0, 1 - t / W)`: how likely a decision is to be replaced at step `t`; 0 when there is no warm-up.

    Source: TuNAS, arXiv:2008.06120.
    """
    return max(0.0, 1.0 - step / warmup_steps) if warmup_steps > 0 else 0.0
