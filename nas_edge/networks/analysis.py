"""What a network costs, worked out from its graph: multiply-accumulates, parameters, peak activation memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from nas_edge.networks.graph import INPUT, NetworkSpec, Node, Shape


@dataclass(frozen=True)
class Analysis:
    """Costs of one network for one image.

    Attributes:
        macs: multiply-accumulates of convolutions (gates and pools are not counted, as is the custom).
        parameters: trainable parameters.
        trainable_variables: trainable arrays.
        peak_memory_bytes: the most activation memory alive at once, executing nodes in order, at `bytes_per_value`.
    """

    macs: int
    parameters: int
    trainable_variables: int
    peak_memory_bytes: int


def analyze(spec: NetworkSpec, bytes_per_value: int = 4) -> Analysis:
    """Adds up the costs of all nodes. `bytes_per_value`: see `NumberTypes.activation_bytes`."""
    variables = [shape for node in spec.nodes for shape in trainable_shapes(spec, node)]
    return Analysis(
        macs=sum(node_macs(spec, node) for node in spec.nodes),
        parameters=sum(prod(shape) for shape in variables),
        trainable_variables=len(variables),
        peak_memory_bytes=peak_activation_values(spec) * bytes_per_value,
    )


def node_macs(spec: NetworkSpec, node: Node) -> int:
    """Multiply-accumulates of one node."""
    return node.layer.macs(spec.input_shapes(node)[0][-1], node.shape)


def trainable_shapes(spec: NetworkSpec, node: Node) -> list[Shape]:
    """Shapes of a node's trainable arrays, in the order of `graph.Weights`."""
    channels = spec.input_shapes(node)[0][-1], node.shape[-1]
    return [weight.shape_for(*channels) for weight in node.layer.weights() if weight.trainable]


def weight_shapes(spec: NetworkSpec, node: Node) -> list[Shape]:
    """Shapes of all of a node's arrays, as `graph.Weights` has them."""
    channels = spec.input_shapes(node)[0][-1], node.shape[-1]
    return [weight.shape_for(*channels) for weight in node.layer.weights()]


def peak_activation_values(spec: NetworkSpec) -> int:
    """The largest number of activation values alive while any one operator runs.

    A tensor lives from the node that writes it to the last that reads it. Normalisation, activation, dropout and
    flattening cost nothing: at inference they are fused into their producer or done in place.
    """
    owner = {INPUT: INPUT}  # the buffer in which each node's output lives
    for node in spec.nodes:
        owner[node.name] = owner[node.inputs[0]] if node.layer.in_place else node.name
    last_use: dict[str, int] = {}
    for step, node in enumerate(spec.nodes):
        for name in (*node.inputs, node.name):
            last_use[owner[name]] = step
    alive: dict[str, int] = {INPUT: prod(spec.input_shape)}
    peak = 0
    for step, node in enumerate(spec.nodes):
        if owner[node.name] == node.name:
            alive[node.name] = prod(node.shape)
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_use.get(name, -1) > step}
    return peak
