"""Decisions, architectures and search spaces.

A space is one thing, a point of it another, the design it builds a third (the separation PyGlove taught). A
`NetworkSpace` is a template plus its decisions in a fixed, documented order: depth first, *children before their
parent* and a block's layers before its width, as in the TuNAS reference code, so that index strings published for
those spaces can be used unchanged.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec, Shape
from nas_edge.networks.template import Guard, decode, occurrences
from nas_edge.spaces.design import Design

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

Kind: TypeAlias = str


@dataclass(frozen=True)
class Decision:
    """One categorical decision.

    Attributes:
        path: unique name, for example `block2.layer1.kernel`.
        choices: what may be chosen: numbers for `filters`, labels for `op`.
        kind: `filters` for widths and expansion ratios, `op` for a choice between layers, `index` and `skip` for
            connections from earlier blocks (`controllers/recurrent.py`), or another; a search method may treat kinds
            differently, see `search.warmup`.
        guards: the decision matters when, for any of these conjunctions, each named decision chose that index; an
            empty conjunction means always.
        start: index of the choice that a policy begins at, where one is known to be good; None where none is.
    """

    path: str
    choices: tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
    kind: Kind
    guards: tuple[Guard, ...] = ((),)
    start: int | None = None

    @property
    def largest(self) -> int:
        """Index of the largest choice, by value rather than by position."""
        return max(range(len(self.choices)), key=lambda index: self.choices[index])


@dataclass(frozen=True)
class Architecture:
    """A point of a space: one choice index per decision, in the space's order. As text: `0:2:1`."""

    choices: tuple[int, ...]

    def __str__(self) -> str:
        return ":".join(map(str, self.choices))

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Reads the text form.

        Raises:
            SpaceError: when it is not numbers joined by colons.
        """
        try:
            return cls(tuple(int(part) for part in text.split(":")))
        except ValueError:
            raise SpaceError(f"expected an architecture such as 0:2:1, received {text!r}") from None


class SearchSpace(ABC):
    """Decisions in a fixed order, and the design that each architecture stands for.

    Args:
        name: how users call it.
        decisions: every decision, in order.
    """

    def __init__(self, name: str, decisions: Sequence[Decision]) -> None:
        self.name = name
        self.decisions: tuple[Decision, ...] = tuple(decisions)

    @abstractmethod
    def build(self, architecture: Architecture) -> Design:
        """What an architecture stands for.

        Raises:
            SpaceError: unless `architecture` is a point of this space.
        """

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each decision by path."""
        return {decision.path: i for i, decision in enumerate(self.decisions)}

    def check(self, architecture: Architecture) -> None:
        """Raises SpaceError unless `architecture` is a point of this space."""
        choices = architecture.choices
        if len(choices) != len(self.decisions):
            raise SpaceError(f"{self.name} has {len(self.decisions)} decisions", received=f"{len(choices)} choices")
        for decision, choice in zip(self.decisions, choices, strict=True):
            if not 0 <= choice < len(decision.choices):
                raise SpaceError(
                    f"{self.name}: {decision.path} has choices 0..{len(decision.choices) - 1}", received=f"{choice}"
                )

    def parse(self, text: str) -> Architecture:
        """Reads an architecture's text form and checks it against this space."""
        architecture = Architecture.parse(text)
        self.check(architecture)
        return architecture

    def choices(self, architecture: Architecture) -> dict[str, int]:
        """Choice index per decision path."""
        return {d.path: c for d, c in zip(self.decisions, architecture.choices, strict=True)}

    def encode(self, values: Mapping[str, int | float | str]) -> Architecture:
        """The architecture with the given choice *values* by path; unnamed decisions take their first choice.

        Raises:
            SpaceError: for an unknown path or a value that is not offered.
        """
        unknown = sorted(set(values) - set(self.index))
        if unknown:
            raise SpaceError(f"{self.name} has no decision {unknown[0]!r}")
        indices = []
        for decision in self.decisions:
            value = values.get(decision.path, decision.choices[0])
            if value not in decision.choices:
                raise SpaceError(f"{self.name}: {decision.path} offers {decision.choices}", received=f"{value!r}")
            indices.append(decision.choices.index(value))
        return Architecture(tuple(indices))

    def active(self, architecture: Architecture) -> tuple[bool, ...]:
        """Whether each decision changes the network, given the choices above it."""
        return self.active_given([{choice} for choice in architecture.choices])

    def active_given(self, enabled: Sequence[Iterable[int]]) -> tuple[bool, ...]:
        """As `active`, with several choices enabled at once per decision (warm-up runs all branches)."""
        sets = [set(choices) for choices in enabled]
        return tuple(
            any(all(index in sets[self.index[path]] for path, index in guard) for guard in decision.guards)
            for decision in self.decisions
        )

    def canonical(self, architecture: Architecture) -> Architecture:
        """The same network with every inactive decision set to 0."""
        active = self.active(architecture)
        return Architecture(tuple(c if on else 0 for c, on in zip(architecture.choices, active, strict=True)))

    def of_network(self, architecture: Architecture) -> Architecture:
        """The same for all architectures that have their network in common, and with it their quality."""
        return architecture

    def sample(self, rng: np.random.Generator) -> Architecture:
        """An architecture drawn uniformly per decision."""
        return Architecture(tuple(int(rng.integers(len(d.choices))) for d in self.decisions))

    def describe(self, architecture: Architecture) -> dict[str, int | float | str]:
        """The chosen value of each active decision that has an alternative."""
        active = self.active(architecture)
        return {
            d.path: d.choices[c]
            for d, c, on in zip(self.decisions, architecture.choices, active, strict=True)
            if on and len(d.choices) > 1
        }

    @property
    def size(self) -> int:
        """Number of architectures, counting every string of choices (how sizes are published)."""
        return math.prod(len(decision.choices) for decision in self.decisions)

    @property
    def distinct_size(self) -> int:
        """Number of canonical architectures: the choices of a skipped layer are not counted.

        Raises:
            SpaceError: when a decision hangs from several parents, so that the count does not factorise.
        """
        children: dict[tuple[str, int] | None, list[Decision]] = {}
        for decision in self.decisions:
            above = {guard[-1] if guard else None for guard in decision.guards}
            if len({parent and parent[0] for parent in above}) > 1:
                raise SpaceError(f"{self.name}: {decision.path} has several parents; distinct_size is not defined")
            for parent in above:  # one decision, of which several choices may lead here
                children.setdefault(parent, []).append(decision)

        def count(decision: Decision) -> int:
            return sum(
                math.prod(count(child) for child in children.get((decision.path, index), []))
                for index in range(len(decision.choices))
            )

        return math.prod(count(decision) for decision in children.get(None, []))


class NetworkSpace(SearchSpace):
    """A template of a network with its decisions.

    Args:
        name: how users call it.
        template: the layers, with `OneOf` where a choice is open.
        decisions: `(path, choices, kind)` of every decision, in order. A decision of a single choice need not occur
            in the template.
        input_shape: `[height, width, channels]`.
        outputs: how many numbers a network gives for one input.

    Raises:
        SpaceError: when decisions and template do not match.
    """

    def __init__(
        self,
        name: str,
        template: L.Layer,
        decisions: Sequence[Decision],
        input_shape: Shape,
        outputs: int,
    ) -> None:
        super().__init__(name, _with_guards(template, decisions))
        self.template = template
        self.input_shape = input_shape
        self.outputs = outputs

    @cached_property
    def output_shape(self) -> Shape:
        """Of every network of the space, without the batch."""
        return self.decode(Architecture((0,) * len(self.decisions))).output_shape

    def with_template(self, template: L.Layer, decisions: Sequence[Decision] | None = None) -> Self:
        """The same space, its networks of another template.

        Args:
            template: see `NetworkSpace`.
            decisions: likewise, with the paths that they have; None for those that there are.

        Raises:
            SpaceError: when decisions and template do not match.
        """
        other = copy.copy(self)
        other.decisions = _with_guards(template, self.decisions if decisions is None else decisions)
        other.template = template
        for cached in ("index", "output_shape"):
            other.__dict__.pop(cached, None)
        return other

    def build(self, architecture: Architecture) -> Design:
        """See `SearchSpace`; a network with nothing beside it."""
        return Design(self.decode(architecture))

    def decode(self, architecture: Architecture) -> NetworkSpec:
        """The network of an architecture."""
        self.check(architecture)
        return decode(self.template, self.input_shape, self.choices(architecture))


def _with_guards(template: L.Layer, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """Adds to each decision the guards found in the template, checking that the two agree."""
    declared = {decision.path: decision for decision in decisions}
    if len(declared) != len(decisions):
        raise SpaceError("two decisions have the same path")
    guards: dict[str, list[Guard]] = {}
    for found in occurrences(template):
        decision = declared.get(found.one_of.decision)
        if decision is None:
            raise SpaceError(f"the template uses decision {found.one_of.decision!r}, which is not declared")
        if len(found.one_of.choices) != len(decision.choices):
            raise SpaceError(f"{decision.path} has {len(decision.choices)} choices but its OneOf offers another number")
        guards.setdefault(decision.path, []).append(found.guard)
    for decision in decisions:
        if decision.path not in guards and len(decision.choices) > 1:
            raise SpaceError(f"decision {decision.path!r} does not occur in the template")
    sizes = {decision.path: len(decision.choices) for decision in decisions}
    return tuple(replace(d, guards=_weakest(guards.get(d.path, [()]), sizes)) for d in decisions)


def _weakest(guards: list[Guard], sizes: Mapping[str, int]) -> tuple[Guard, ...]:
    """The same condition in fewer words.

    A guard implied by a weaker one is dropped, and guards that between them allow every choice of a decision no
    longer mention it. A decision that always matters ends with the single empty guard.
    """
    unique = set(guards)
    while True:
        merged = {
            guard[:-1]
            for guard in unique
            if guard and all((*guard[:-1], (guard[-1][0], i)) in unique for i in range(sizes[guard[-1][0]]))
        }
        weaker = unique | merged
        weaker = {g for g in weaker if not any(set(other) < set(g) for other in weaker)}
        if weaker == unique:
            return tuple(sorted(unique))
        unique = weaker
