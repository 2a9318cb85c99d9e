"""The ProxylessNAS search space and its enlarged form, as searched by TuNAS.

73 decisions: stem width, the separable block's kernel and width, then per block its layers (kernel, ratio, keep/skip)
and its width, block 7 with a one-choice operator, and the head's width. In `proxylessnas` every width is fixed, so
those decisions have one choice.
"""

from __future__ import annotations

from typing import ClassVar

from nas_edge.networks import layers as L
from nas_edge.networks.layers import sequential
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.spaces.settings import NetworkSpaceSettings

KERNELS = (3, 5, 7)
RATIOS = (3, 6)
MULTIPLIERS = (0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0)

PARTS = ("stem", *(f"block{i}" for i in range(1, 8)), "head")
FIXED_WIDTHS = (32, 16, 32, 40, 80, 96, 192, 320, 1280)
ENLARGED_WIDTHS = (16, 16, 16, 32, 64, 128, 256, 512, 1024)
STRIDES = {2: 2, 3: 2, 4: 2, 5: 1, 6: 2, 7: 1}


class ProxylessNASSettings(NetworkSpaceSettings):
    """Settings of `proxylessnas`."""

    default_reference: ClassVar[str] = "proxylessnas-mobile"
    name: str = "proxylessnas"


def proxylessnas(
    input_size: int = 224, width_multiplier: float = 1.0, classes: int = 1001, channels: int = 3
) -> NetworkSpace:
    """Kernel, expansion ratio and depth, at ProxylessNAS's widths: 2.157e21 architectures."""
    return _space("proxylessnas", FIXED_WIDTHS, (1.0,), input_size, width_multiplier, classes, channels)


def proxylessnas_enlarged(
    input_size: int = 224, width_multiplier: float = 1.0, classes: int = 1001, channels: int = 3
) -> NetworkSpace:
    """As `proxylessnas`, with the width of every block open: 1.392e28 architectures."""
    return _space(
        "proxylessnas-enlarged", ENLARGED_WIDTHS, MULTIPLIERS, input_size, width_multiplier, classes, channels
    )


def _space(
    name: str,
    base_widths: tuple[int, ...],
    multipliers: tuple[float, ...],
    input_size: int,
    width_multiplier: float,
    classes: int,
    channels: int,
) -> NetworkSpace:
    decisions = blocks.Decisions()

    def width(index: int) -> L.OneOf:
        offered = blocks.widths(base_widths[index], multipliers, width_multiplier)
        return blocks.number(f"{PARTS[index]}.filters", offered)

    def depthwise(path: str, strides: int) -> L.OneOf:
        choices: dict[str, L.Layer] = {f"k{k}": blocks.depthwise_norm(k, "relu", strides) for k in KERNELS}
        return decisions.layers(f"{path}.kernel", choices)

    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(width(0), "relu", 3, 2)}
    decisions.declare(width(0))

    # The kernels of block 1 are fully separate branches, each with its own pointwise convolution.
    branches: dict[str, L.Layer] = {
        f"k{k}": blocks.separable(width(1), blocks.depthwise_norm(k, "relu", 1)) for k in KERNELS
    }
    parts["block1"] = sequential(layer1=decisions.layers("block1.layer1.kernel", branches))
    decisions.declare(width(1))

    for block in range(2, 8):
        layers: dict[str, L.Layer] = {}
        for layer in range(1, 5 if block < 7 else 2):
            path = f"block{block}.layer{layer}"
            kernel = depthwise(path, STRIDES[block] if layer == 1 else 1)
            ratio = decisions.declare(blocks.number(f"{path}.ratio", RATIOS))
            body = blocks.bottleneck(width(block), L.Scaled(ratio), kernel, "relu")
            # The first layer changes the shape, so it cannot be skipped: a decision of one choice.
            layers[f"layer{layer}"] = (
                decisions.skippable(f"{path}.op", body) if layer > 1 else decisions.layers(f"{path}.op", {"keep": body})
            )
        decisions.declare(width(block))
        parts[f"block{block}"] = L.Sequential(tuple(layers.items()))

    parts["head"] = blocks.conv_norm(width(8), "relu")
    decisions.declare(width(8))
    parts["pool"] = L.GlobalAveragePool()
    parts |= blocks.classifier(classes, 0.15)
    return NetworkSpace(
        name, L.Sequential(tuple(parts.items())), decisions.list, (input_size, input_size, channels), classes
    )
