"""Variants of MnasNet-A1 for which accelerator figures are known: without gates, and with fused blocks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.template import decode
from nas_edge.spaces import block_strings
from nas_edge.spaces.published import BLOCK_STRING_STYLE

_A1 = BLOCK_STRING_STYLE["mnasnet-a1"]
INVERTED = range(2, len(_A1.blocks) + 1)  # blocks that can be fused, counted from 1


def mnasnet_a1(gates: bool = True, fused: Collection[int] = ()) -> NetworkSpec:
    """The network at 224 pixels and 1000 classes.

    Args:
        gates: whether it has its squeeze-and-excite gates.
        fused: blocks, counted from 1, with a full convolution in place of expansion and depthwise convolution; they
            have no gates.
    """
    network = block_strings.parse_all(_A1.blocks)
    if not gates:
        network = tuple(replace(block, squeezed=0.0) for block in network)
    template = block_strings.template(network, 1000, _A1.dropout)
    prefixes = tuple(f"block{number}." for number in fused)
    parts = tuple((name, _fused(part) if name.startswith(prefixes) else part) for name, part in template.parts)
    return decode(L.Sequential(parts), (224, 224, 3), {})


def _fused(layer: L.Layer) -> L.Layer:
    if isinstance(layer, L.Residual):
        return L.Residual(_fused(layer.body), layer.shortcut)
    assert isinstance(layer, L.Sequential)
    named = dict(layer.parts)
    expand, depthwise = named["expand"], named["depthwise"]
    assert isinstance(expand, L.Sequential)
    assert isinstance(depthwise, L.DepthwiseConv2D)
    full = [
        (name, replace(part, kernel_size=depthwise.kernel_size, strides=depthwise.strides))
        if isinstance(part, L.Conv2D)
        else (name, part)
        for name, part in expand.parts
    ]
    return L.sequential(expand=L.Sequential(tuple(full)), project=named["project"])
