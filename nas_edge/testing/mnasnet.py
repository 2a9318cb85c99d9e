"""MnasNet-A1 from its published block strings, for what is known of it on accelerators: gates may be left out, and
blocks fused.

Source: tensorflow/tpu, `mnasnet_models.py`; arXiv:1807.11626.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.template import decode
from nas_edge.spaces import blocks

A1 = (
    "r1_k3_s11_e1_i32_o16_noskip",
    "r2_k3_s22_e6_i16_o24",
    "r3_k5_s22_e3_i24_o40_se0.25",
    "r4_k3_s22_e6_i40_o80",
    "r2_k3_s11_e6_i80_o112_se0.25",
    "r3_k5_s22_e6_i112_o160_se0.25",
    "r1_k3_s11_e6_i160_o320",
)
INVERTED = range(2, len(A1) + 1)  # blocks that can be fused, counted from 1


def mnasnet_a1(gates: bool = True, fused: Collection[int] = ()) -> NetworkSpec:
    """The network at 224 pixels and 1000 classes.

    Args:
        gates: whether it has its squeeze-and-excite gates.
        fused: blocks, counted from 1, with a full convolution in place of expansion and depthwise convolution.
    """
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(32, "relu", 3, 2)}
    for number, text in enumerate(A1, start=1):
        block = {key: int(value) for key, value in re.findall(r"(?:^|_)([rkeio])(\d+)", text)}
        strides, read = int(text.split("_s")[1][0]), block["i"]
        for layer in range(1, block["r"] + 1):
            gate = _gate(read // 4) if gates and "_se0.25" in text else None
            step = strides if layer == 1 else 1
            body = _body(block["k"], step, read * block["e"], block["o"], gate, number in fused)
            parts[f"block{number}.layer{layer}"] = body if layer == 1 else L.Residual(body)
            read = block["o"]
    parts |= {"head": blocks.conv_norm(1280, "relu"), "pool": L.GlobalAveragePool(), **blocks.classifier(1000, 0.2)}
    return decode(L.Sequential(tuple(parts.items())), (224, 224, 3), {})


def _body(kernel: int, strides: int, expanded: int, width: int, gate: L.Layer | None, fused: bool) -> L.Sequential:
    if fused:
        expand = blocks.conv_norm(expanded, "relu", kernel, strides)
        return L.sequential(expand=expand, project=blocks.conv_norm(width, None))
    depthwise = blocks.depthwise_norm(kernel, "relu", strides)
    if expanded == 32:  # the first block, which expands nothing
        return blocks.separable(width, depthwise)
    return blocks.bottleneck(width, expanded, depthwise, "relu", gate)


def _gate(reduced: int) -> L.Gate:
    return L.Gate(
        L.sequential(
            pool=L.GlobalAveragePool(),
            reduce=L.Conv2D(reduced, use_bias=True),
            reduce_act=L.Activation("relu"),
            expand=L.Conv2D(L.GateChannels(), use_bias=True),
            expand_act=L.Activation("sigmoid"),
        )
    )
