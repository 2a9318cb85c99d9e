"""The macro space of ENAS: a network of layers, each with its operator and with skips from any layers before it.

    layer k = op_k(layer k-1) + the sum of the earlier layers that are connected to it

The size is `6^L * 2^(L(L-1)/2)`, 1.6e29 for the published 12 layers. Resolution halves after a third and two thirds of
the layers. Where the published code has a factorised reduction, here is a convolution of stride 2, so that exported
networks have no strided slice; every skip into a later stage has its own. There is no batch norm after a sum, as no
convolution could take it up in a TFLite file; operators begin with a normalised convolution. Connections add, as
published; widths stay the same throughout.

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
OPS = ("conv3", "sep3", "conv5", "sep5", "avg3", "max3")


class EnasMacroSettings(NetworkSpaceSettings):
    """Settings of `enas-macro`."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"space.layers": 3}}
    name: str = "enas-macro"
    layers: int = Field(12, ge=3, le=24, description="layers, in three stages; published: 12")
    filters: int = Field(36, ge=1, description="channels of every layer before width_multiplier; published: 36")
    stem_strides: int = Field(2, ge=1, le=4, description="of the first convolution; published, for 32 pixels: 1")


def enas_macro(settings: EnasMacroSettings, classes: int, channels: int) -> NetworkSpace:
    """Makes the space of the settings."""
    width = max(1, round(settings.filters * settings.width_multiplier))
    ends = {settings.layers // 3, 2 * settings.layers // 3}
    decisions: list[Decision] = []
    nodes: list[tuple[str, tuple[L.Edge, ...]]] = []
    for number in range(1, settings.layers + 1):
        path, before = f"layer{number}", f"layer{number - 1}" if number > 1 else INPUT
        decisions.append(Decision(f"{path}.op", OPS, "op"))
        ops = L.OneOf(f"{path}.op", tuple(_op(op, width) for op in OPS), OPS)
        halved = number - 1 in ends
        edges = [L.Edge("main", before, sequential(reduce=_reduced(width, 1), op=ops) if halved else ops)]
        for source in range(1, number):
            decision = f"{path}.layer{source}"
            decisions.append(Decision(decision, ("none", f"layer{source}"), "skip"))
            crossed = sum(source <= end < number for end in ends)
            labels = ("none", "skip")
            skip = L.OneOf(decision, (L.Zero(), _reduced(width, crossed) if crossed else L.Identity()), labels)
            edges.append(L.Edge(f"layer{source}", f"layer{source}", skip))
        nodes.append((path, tuple(edges)))
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(width, None, 3, settings.stem_strides)}
    parts |= {"cells": L.Graph(tuple(nodes)), "pool": L.GlobalAveragePool(), **blocks.classifier(classes, DROPOUT)}
    shape = (settings.input_size, settings.input_size, channels)
    return NetworkSpace(settings.name, L.Sequential(tuple(parts.items())), decisions, shape, classes)


def _reduced(width: int, halvings: int) -> L.Sequential:
    """Half the resolution, so many times."""
    return L.Sequential(tuple((f"half{i}", blocks.conv_norm(width, None, 3, 2)) for i in range(1, halvings + 1)))


def _op(name: str, width: int) -> L.Sequential:
    """A 1x1 convolution, then the operator."""
    kind, size = name[:-1], int(name[-1])
    body: dict[str, L.Layer] = {
        "conv": blocks.conv_norm(width, None, size),
        "sep": sequential(depthwise=L.DepthwiseConv2D(size), project=blocks.conv_norm(width, None)),
        "avg": L.AveragePool(size),
        "max": L.MaxPool(size),
    }
    return sequential(squeeze=blocks.conv_norm(width, "relu"), op=body[kind])
