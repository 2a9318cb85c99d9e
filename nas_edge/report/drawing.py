"""Drawings of networks. Blocks are recognised from the graph itself, so any network of the project can be drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nas_edge.networks import layers as L
from nas_edge.networks.analysis import analyze
from nas_edge.networks.graph import NetworkSpec, Node
from nas_edge.report.content import Drawing, Layer, Stage
from nas_edge.spaces.decisions import SearchSpace

_SLOT = re.compile(r"(.+?)\.(layer\d+)\.")

Slot = tuple[str, str]  # stage and layer; the layer is empty where a stage has only one


def slots_of(space: SearchSpace) -> list[Slot]:
    """The layer slots that a space decides on, in order."""
    found = (_SLOT.match(decision.path) for decision in space.decisions)
    return list(dict.fromkeys((match[1], match[2]) for match in found if match))


def draw(name: str, architecture: str, network: NetworkSpec, offered: Iterable[Slot], costs_known: bool) -> Drawing:
    """Draws a network.

    Args:
        name: its title.
        architecture: its text form; empty for a network from outside the space.
        network: its graph; node paths group nodes into layers and stages.
        offered: slots of its space; those it leaves empty are drawn as skipped.
        costs_known: whether image channels and outputs are the real ones, so that its costs can be shown.
    """
    groups: dict[Slot, list[Node]] = {}
    for node in network.nodes:
        if isinstance(node.layer, (L.Conv2D, L.DepthwiseConv2D, L.Multiply)):
            match = _SLOT.match(node.name + ".")
            slot = (match[1], match[2]) if match else (node.name.split(".")[0], "")
            groups.setdefault(slot, []).append(node)
    stages = list(dict.fromkeys(stage for stage, _ in groups))
    empty = [slot for slot in offered if slot not in groups and slot[0] in stages]
    drawn = []
    for stage in stages:
        nodes = [node for (of, _), group in groups.items() if of == stage for node in group]
        layers = [_layer(network, label, group) for (of, label), group in groups.items() if of == stage]
        layers += [Layer(label, skipped=True) for of, label in empty if of == stage]
        layers.sort(key=lambda layer: _number(layer.label))
        height, _, channels = nodes[-1].shape if len(nodes[-1].shape) == 3 else (1, 1, nodes[-1].shape[-1])
        drawn.append(Stage(stage, channels, height, _stride(nodes), tuple(layers)))
    words = ""
    if costs_known:
        costs = analyze(network)
        words = f"{costs.macs / 1e6:,.1f} million multiply-adds, {costs.parameters / 1e3:,.0f} thousand parameters"
    return Drawing(name, architecture, words, tuple(drawn))


def _layer(network: NetworkSpec, label: str, nodes: list[Node]) -> Layer:
    """A layer from its convolutions: the depthwise one gives the kernel size, the one before it the expansion."""
    spatial = [node for node in nodes if isinstance(node.layer, L.DepthwiseConv2D)]
    products = [network.input_shapes(node) for node in nodes if isinstance(node.layer, L.Multiply)]
    gated = any(gate != features for features, gate in products)  # a swish is a product of equal shapes
    if not spatial:
        kernels = [node.layer.kernel_size for node in nodes if isinstance(node.layer, L.Conv2D)]
        return Layer(label, max(kernels, default=1), gated=gated)
    first, middle = nodes[0], spatial[0]
    assert isinstance(middle.layer, L.DepthwiseConv2D)
    channels_in = network.input_shapes(first)[0][-1]
    expansion = middle.shape[-1] / channels_in if first is not middle else None
    return Layer(label, middle.layer.kernel_size, expansion, gated)


def _stride(nodes: Iterable[Node]) -> int:
    stride = 1
    for node in nodes:
        if isinstance(node.layer, (L.Conv2D, L.DepthwiseConv2D)):
            stride *= node.layer.strides
    return stride


def _number(label: str) -> int:
    return int(label.removeprefix("layer") or 0)
