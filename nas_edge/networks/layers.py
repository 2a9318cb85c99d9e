"""The vocabulary of networks: primitive layers, the composites that join them, and values left open.

Two languages share this vocabulary:

* a *template* (see `template.py`) is a tree of composites and primitives in which `OneOf` may stand for a layer or
  for a number, and `Scaled` and `GateChannels` express widths that follow from other widths;
* a `NetworkSpec` (see `graph.py`) is the decoded graph: primitives only, every number resolved.

Each primitive is one file of `primitives/` and one line here. All layers are 2-D, channels last, SAME padding. Layer
semantics follow TuNAS (public patent US11347995 and reference code); the squeeze-and-excite gate follows Hu et al.,
2018 (arXiv:1709.01507).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from nas_edge.networks.open_values import GateChannels as GateChannels
from nas_edge.networks.open_values import OneOf as OneOf
from nas_edge.networks.open_values import Scaled as Scaled
from nas_edge.networks.open_values import Width as Width
from nas_edge.networks.open_values import make_divisible as make_divisible
from nas_edge.networks.open_values import nearest_multiple as nearest_multiple
from nas_edge.networks.primitives import Primitive as Primitive
from nas_edge.networks.primitives.activation import Activation as Activation
from nas_edge.networks.primitives.activation import ActivationName as ActivationName
from nas_edge.networks.primitives.add import Add as Add
from nas_edge.networks.primitives.average_pool import AveragePool as AveragePool
from nas_edge.networks.primitives.batch_norm import BatchNorm as BatchNorm
from nas_edge.networks.primitives.concat import Concat as Concat
from nas_edge.networks.primitives.conv import Conv2D as Conv2D
from nas_edge.networks.primitives.depthwise_conv import DepthwiseConv2D as DepthwiseConv2D
from nas_edge.networks.primitives.dropout import Dropout as Dropout
from nas_edge.networks.primitives.flatten import Flatten as Flatten
from nas_edge.networks.primitives.flatten_places import FlattenPlaces as FlattenPlaces
from nas_edge.networks.primitives.l2_normalize import L2Normalize as L2Normalize
from nas_edge.networks.primitives.max_pool import MaxPool as MaxPool
from nas_edge.networks.primitives.multiply import Multiply as Multiply
from nas_edge.networks.primitives.path_dropout import PathDropout as PathDropout
from nas_edge.networks.primitives.pool import GlobalAveragePool as GlobalAveragePool
from nas_edge.networks.primitives.resize import Resize as Resize

# ---------------------------------------------------------------- composites (templates only)


class Composite(ABC):
    """A layer that joins others."""

    @abstractmethod
    def inside(self) -> tuple[tuple[str, Layer], ...]:
        """The layers that it joins, each with its path inside the composite; an empty path is the composite's own."""

    @abstractmethod
    def changed(self, change: Callable[[Layer], Layer]) -> Layer:
        """The same composite of changed layers."""


@dataclass(frozen=True)
class Sequential(Composite):
    """Named layers applied in order; the names become part of the layer paths."""

    parts: tuple[tuple[str, Layer], ...]

    def inside(self) -> tuple[tuple[str, Layer], ...]:
        """See `Composite`."""
        return self.parts

    def changed(self, change: Callable[[Layer], Layer]) -> Sequential:
        """See `Composite`."""
        return Sequential(tuple((name, change(part)) for name, part in self.parts))


@dataclass(frozen=True)
class Gate(Composite):
    """`x * body(x)`, where the body's output is `[1, 1, channels]` or, as in a swish, has the shape of x."""

    body: Layer

    def inside(self) -> tuple[tuple[str, Layer], ...]:
        """See `Composite`."""
        return (("", self.body),)

    def changed(self, change: Callable[[Layer], Layer]) -> Gate:
        """See `Composite`."""
        return Gate(change(self.body))


@dataclass(frozen=True)
class Identity:
    """The input, unchanged."""


@dataclass(frozen=True)
class Residual(Composite):
    """`shortcut(x) + body(x)`. If either is `Zero`, it is the other; the shortcut is nearly always the identity."""

    body: Layer
    shortcut: Layer = Identity()

    def inside(self) -> tuple[tuple[str, Layer], ...]:
        """See `Composite`."""
        return (("", self.body), ("shortcut", self.shortcut))

    def changed(self, change: Callable[[Layer], Layer]) -> Residual:
        """See `Composite`."""
        return Residual(change(self.body), change(self.shortcut))


@dataclass(frozen=True)
class Concatenate(Composite):
    """The rows of `first(x)` followed by those of `second(x)`, which have equally many columns and channels."""

    first: Layer
    second: Layer

    def inside(self) -> tuple[tuple[str, Layer], ...]:
        """See `Composite`."""
        return (("first", self.first), ("second", self.second))

    def changed(self, change: Callable[[Layer], Layer]) -> Concatenate:
        """See `Composite`."""
        return Concatenate(change(self.first), change(self.second))


@dataclass(frozen=True)
class Zero:
    """Nothing: stands for a skipped layer or a missing shortcut. Only inside a `Residual` or `Graph`."""


@dataclass(frozen=True)
class Edge:
    """What a node of a `Graph` reads.

    Attributes:
        name: part of the layer paths; unique in its node.
        source: an earlier node, or `input`.
        layer: applied to it; where it is `Zero`, the edge is not there.
        unread: whether the edge is there only if no earlier edge reads the source: it leads from a loose end.
    """

    name: str
    source: str
    layer: Layer
    unread: bool = False


@dataclass(frozen=True)
class Graph(Composite):
    """Named nodes in order, each the sum of its edges; the last is the output. What leads to none of it is left out."""

    nodes: tuple[tuple[str, tuple[Edge, ...]], ...]

    def readers(self, source: str) -> tuple[Edge, ...]:
        """The edges that read a node, apart from those that are there only if no other does."""
        return tuple(edge for _, edges in self.nodes for edge in edges if edge.source == source and not edge.unread)

    def inside(self) -> tuple[tuple[str, Layer], ...]:
        """See `Composite`."""
        return tuple((f"{name}.{edge.name}", edge.layer) for name, edges in self.nodes for edge in edges)

    def changed(self, change: Callable[[Layer], Layer]) -> Graph:
        """See `Composite`."""
        return Graph(
            tuple(
                (name, tuple(replace(edge, layer=change(edge.layer)) for edge in edges)) for name, edges in self.nodes
            )
        )


Layer: TypeAlias = Primitive | Sequential | Residual | Concatenate | Graph | Gate | Identity | Zero | OneOf


def sequential(**parts: Layer) -> Sequential:
    """A `Sequential` from keyword arguments, in the order written."""
    return Sequential(tuple(parts.items()))
