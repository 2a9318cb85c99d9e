"""`NetworkSpec`: an explicit, validated graph of primitive layers with shapes.

The Keras model, the TFLite file, the analysis and the latency cache's key are all derived from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from nas_edge.networks.primitives import Primitive
from nas_edge.networks.primitives import Shape as Shape

if TYPE_CHECKING:
    import numpy as np

# Real weights of a network: per node, the arrays in the order its layer's docstring gives. Quantisation-aware training
# adds the ranges that it learned, see `with_ranges`.
Weights: TypeAlias = "Mapping[str, tuple[np.ndarray[Any, Any], ...]]"

# Least and greatest value of each node's output, by the name of the node.
Ranges: TypeAlias = Mapping[str, tuple[float, float]]

INPUT = "input"

_RANGE = "/range"


@dataclass(frozen=True)
class Node:
    """One layer of a network.

    Attributes:
        name: unique; the layer's path in the template, which is also where its weights are found.
        layer: the primitive layer, every number resolved.
        inputs: names of the nodes it reads (`input` is the network's input).
        shape: output shape without the batch.
    """

    name: str
    layer: Primitive
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True)
class NetworkSpec:
    """A network: nodes in topological order, the last one being the output.

    Build it with `GraphBuilder`, which infers and checks the shapes.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]

    @property
    def output_shape(self) -> Shape:
        """Shape of the last node."""
        return self.nodes[-1].shape

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Output shape per node name, the input included."""
        return {INPUT: self.input_shape} | {node.name: node.shape for node in self.nodes}

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """Shapes of the tensors that `node` reads."""
        return tuple(self.shapes[name] for name in node.inputs)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what the network computes, whatever its nodes are called; latency caches key on it."""
        position = {INPUT: -1} | {node.name: index for index, node in enumerate(self.nodes)}
        rows: list[Any] = [list(self.input_shape)]
        for node in self.nodes:
            fields = dataclasses.asdict(node.layer)
            for name in node.layer.training_only:
                del fields[name]
            rows.append([type(node.layer).__name__, fields, [position[name] for name in node.inputs]])
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:32]


class GraphBuilder:
    """Adds nodes one by one, inferring each output shape.

    Raises:
        ValueError: from `add`, when a layer does not fit its inputs or a name is used twice.
    """

    def __init__(self, input_shape: Shape) -> None:
        self._input_shape = input_shape
        self._shapes: dict[str, Shape] = {INPUT: input_shape}
        self._nodes: list[Node] = []

    def add(self, name: str, layer: Primitive, *inputs: str) -> str:
        """Appends a node and returns its name."""
        if name in self._shapes:
            raise ValueError(f"two nodes are called {name!r}; node names must be unique")
        shape = infer_shape(layer, tuple(self._shapes[i] for i in inputs), name)
        self._shapes[name] = shape
        self._nodes.append(Node(name, layer, inputs, shape))
        return name

    def shape(self, name: str) -> Shape:
        """Output shape of a node already added."""
        return self._shapes[name]

    def build(self) -> NetworkSpec:
        """The finished network."""
        if not self._nodes:
            raise ValueError("a network needs at least one layer")
        return NetworkSpec(self._input_shape, tuple(self._nodes))


def infer_shape(layer: Primitive, inputs: tuple[Shape, ...], name: str) -> Shape:
    """Output shape of `layer` on inputs of the given shapes.

    Raises:
        ValueError: when the layer does not fit them, or is not a primitive; `name` is used in the message.
    """
    kind = type(layer).__name__
    if not isinstance(layer, Primitive):
        raise ValueError(f"{name}: expected a subclass of networks.primitives.Primitive, received {kind}")
    if len(inputs) != layer.input_count:
        raise ValueError(f"{name}: {kind} takes {layer.input_count} input(s), received {len(inputs)}")
    try:
        return layer.output_shape(*inputs)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def with_ranges(weights: Weights, ranges: Ranges) -> Weights:
    """Weights that keep the ranges of activations with them, so that whatever keeps the weights keeps the ranges."""
    import numpy as np

    return {**weights, **{f"{name}{_RANGE}": (np.array(limits, np.float32),) for name, limits in ranges.items()}}


def ranges_of(weights: Weights) -> dict[str, tuple[float, float]]:
    """The ranges of activations that weights keep; none where they were not trained quantisation-aware."""
    kept = {name.removesuffix(_RANGE): group[0] for name, group in weights.items() if name.endswith(_RANGE)}
    return {name: (float(limits[0]), float(limits[1])) for name, limits in kept.items()}


def without_ranges(weights: Weights) -> Weights:
    """The arrays of the layers alone."""
    return {name: group for name, group in weights.items() if not name.endswith(_RANGE)}
