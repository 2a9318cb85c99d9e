"""The micro space of ENAS: a normal and a reduction cell, stacked to a network.

A node of a cell picks two outputs before it, of nodes of the cell or of the two cells before, and an operator for each;
its value is their sum. Where both are the same choice, one output enters twice. Separable convolutions are applied
twice, and operators have weights of their own for each output that they may read.

A cell's output is made of its loose ends, the nodes that no other reads. The published code concatenates them and
applies a 1x1 convolution with batch norm. Here each has its own 1x1 convolution with batch norm, and these are added
up: the same linear map, except that each is normalised by itself, so that it can be folded into its convolution.

The reduction cells stand after a third and two thirds of the normal cells; resolution halves, and widths double, where
their inputs enter. As in the macro space, that is a convolution of stride 2 in place of a factorised reduction.

Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018,
arXiv:1802.03268; patents US10984319B2, US20210232929A1; its authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from nas_edge.networks import layers as L
from nas_edge.networks.graph import INPUT
from nas_edge.networks.layers import sequential
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import Decision, NetworkSpace
from nas_edge.spaces.settings import NetworkSpaceSettings

DROPOUT = 0.1
OPS = ("sep3", "sep5", "avg3", "max3", "identity")
NORMAL, REDUCTION = CELLS = ("normal", "reduction")


class EnasMicroSettings(NetworkSpaceSettings):
    """Settings of `enas-micro`."""

    # The smallest cells still have more operators than the reference network's layers, which are tiny in `smoke`.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"space.cells": 1, "space.nodes": 2, "target.reference_share": 2.0}
    }
    name: str = "enas-micro"
    cells: int = Field(6, ge=1, le=20, description="normal cells, with two reduction cells among them; published: 6")
    nodes: int = Field(5, ge=1, le=7, description="nodes of a cell; published: 5")
    filters: int = Field(20, ge=1, description="channels of the first cells before width_multiplier; published: 20")
    stem_strides: int = Field(2, ge=1, le=4, description="of the first convolution; published, for 32 pixels: 1")


def enas_micro(settings: EnasMicroSettings, classes: int, channels: int) -> NetworkSpace:
    """Makes the space of the settings."""
    width = max(1, round(settings.filters * settings.width_multiplier))
    thirds = {max(1, settings.cells // 3), max(1, 2 * settings.cells // 3)}
    kinds: list[str] = []
    for number in range(1, settings.cells + 1):
        kinds += [NORMAL, REDUCTION] if number in thirds else [NORMAL]
    nodes: list[tuple[str, tuple[L.Edge, ...]]] = []
    made = [(INPUT, width, 0), (INPUT, width, 0)]  # the stem, read as if it were two cells
    for number, kind in enumerate(kinds, start=1):
        _, now, halvings = made[-1]
        halvings += kind == REDUCTION
        now *= 2 if kind == REDUCTION else 1
        path = f"cell{number}"
        for i, (source, wide, halved) in enumerate(made[-2:], start=1):
            fits = (wide, halved) == (now, halvings)
            layer = L.Identity() if fits else _fitted(now, halvings - halved)
            nodes.append((f"{path}.input{i}", (L.Edge("fit", source, layer),)))
        nodes += _cell(path, kind, settings.nodes, now)
        made.append((f"{path}.out", now, halvings))
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(width, None, 3, settings.stem_strides)}
    parts |= {"cells": L.Graph(tuple(nodes)), "act": L.Activation("relu"), "pool": L.GlobalAveragePool()}
    parts |= blocks.classifier(classes, DROPOUT)
    shape = (settings.input_size, settings.input_size, channels)
    decisions = [one for kind in CELLS if kind in kinds for one in _decisions(kind, settings.nodes)]
    return NetworkSpace(settings.name, L.Sequential(tuple(parts.items())), decisions, shape, classes)


def _sources(node: int) -> list[str]:
    """What a node may read, nearest first: the nodes before it, the last cell, and the cell before that.

    The published code counts from the other end, where first choices alone would make all nodes alike.
    """
    return [*(f"node{number}" for number in reversed(range(1, node))), "input2", "input1"]


def _decisions(kind: str, nodes: int) -> list[Decision]:
    found = []
    for number in range(1, nodes + 1):
        path, offered = f"{kind}.node{number}", tuple(f"{kind}.{source}" for source in _sources(number))
        found += [Decision(f"{path}.source{side}", offered, "index") for side in (1, 2)]
        found += [Decision(f"{path}.op{side}", OPS, "op") for side in (1, 2)]
    return found


def _cell(path: str, kind: str, nodes: int, width: int) -> list[tuple[str, tuple[L.Edge, ...]]]:
    """The nodes of a cell and its output."""
    made = []
    for number in range(1, nodes + 1):
        edges, sources = [], _sources(number)
        for side in (1, 2):
            name = f"{kind}.node{number}"
            ops = L.OneOf(f"{name}.op{side}", tuple(_op(op, width) for op in OPS), OPS)
            for i, source in enumerate(sources):
                there = [j == i for j in range(len(sources))]
                choices: tuple[L.Layer, ...] = tuple(ops if one else L.Zero() for one in there)
                labels = tuple("on" if one else "off" for one in there)
                read = L.OneOf(f"{name}.source{side}", choices, labels)
                edges.append(L.Edge(f"{source}_{side}", f"{path}.{source}", read))
        made.append((f"{path}.node{number}", tuple(edges)))
    ends = [
        L.Edge(f"node{number}", f"{path}.node{number}", _fitted(width, 0), unread=True)
        for number in range(1, nodes + 1)
    ]
    return [*made, (f"{path}.out", tuple(ends))]


def _fitted(width: int, halvings: int) -> L.Sequential:
    """So many channels, at half the resolution so many times."""
    parts: dict[str, L.Layer] = {"act": L.Activation("relu")}
    kernels = [(3, 2)] * halvings or [(1, 1)]
    parts |= {f"conv{i}": blocks.conv_norm(width, None, *one) for i, one in enumerate(kernels, start=1)}
    return L.Sequential(tuple(parts.items()))


def _op(name: str, width: int) -> L.Layer:
    if name == "identity":
        return L.Identity()
    kind, size = name[:-1], int(name[-1])
    if kind != "sep":
        return L.AveragePool(size) if kind == "avg" else L.MaxPool(size)
    once = sequential(
        act=L.Activation("relu"), depthwise=L.DepthwiseConv2D(size), project=blocks.conv_norm(width, None)
    )
    return sequential(first=once, second=once)
