"""The MobileNetV3-Like search space of TuNAS.

86 decisions: the stem's kernel, its optional separable layer's kernel and keep/skip, its width; per block the layers
(kernel, ratio, squeeze-excite and, from the second, keep/skip) and the width; two head widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeAlias

from nas_edge.networks import layers as L
from nas_edge.networks.layers import sequential
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.spaces.settings import NetworkSpaceSettings

KERNELS = (3, 5, 7)
RATIOS = (1, 2, 3, 4, 5, 6)
MULTIPLIERS = (0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0)
STEM_WIDTH = 16
# base width, stride of the first layer, activation
Block: TypeAlias = tuple[int, int, L.ActivationName]
BLOCKS: tuple[Block, ...] = (
    (16, 2, "relu"),
    (32, 2, "relu"),
    (64, 2, "hard_swish"),
    (128, 1, "hard_swish"),
    (256, 2, "hard_swish"),
)
HEAD_WIDTHS = (512, 1024)


class MobileNetV3LikeSettings(NetworkSpaceSettings):
    """Settings of `mobilenet-v3-like`."""

    default_reference: ClassVar[str] = "mobilenet-v3-large"


def mobilenet_v3_like(
    input_size: int = 224,
    width_multiplier: float = 1.0,
    classes: int = 1001,
    channels: int = 3,
    blocks_of: Sequence[Block] = BLOCKS,
) -> NetworkSpace:
    """Kernel, ratio, squeeze-excite, depth and width: 8.481e42 architectures, fewer with fewer blocks."""
    decisions = blocks.Decisions()

    def width(part: str, base: int) -> L.OneOf:
        return blocks.number(f"{part}.filters", blocks.widths(base, MULTIPLIERS, width_multiplier))

    def depthwise(path: str, activation: L.ActivationName, strides: int) -> L.OneOf:
        choices: dict[str, L.Layer] = {f"k{k}": blocks.depthwise_norm(k, activation, strides) for k in KERNELS}
        return decisions.layers(f"{path}.kernel", choices)

    stem = width("stem", STEM_WIDTH)
    stem_conv = decisions.layers("stem.kernel", {f"k{k}": blocks.conv_norm(stem, "hard_swish", k, 2) for k in (3, 5)})
    stem_separable = blocks.separable(stem, depthwise("stem.layer1", "relu", 1))
    parts: dict[str, L.Layer] = {
        "stem": sequential(conv=stem_conv, layer1=decisions.skippable("stem.layer1.op", stem_separable))
    }
    decisions.declare(stem)

    for block, (base, strides, activation) in enumerate(blocks_of, start=1):
        filters = width(f"block{block}", base)
        layers: dict[str, L.Layer] = {}
        for layer in range(1, 5):
            path = f"block{block}.layer{layer}"
            kernel = depthwise(path, activation, strides if layer == 1 else 1)
            ratio = decisions.declare(blocks.number(f"{path}.ratio", RATIOS))
            gate = decisions.layers(f"{path}.se", {"none": L.Identity(), "se": blocks.squeeze_excite()})
            body = blocks.bottleneck(filters, L.Scaled(ratio), kernel, activation, gate)
            layers[f"layer{layer}"] = body if layer == 1 else decisions.skippable(f"{path}.op", body)
        decisions.declare(filters)
        parts[f"block{block}"] = L.Sequential(tuple(layers.items()))

    head = width("head1", HEAD_WIDTHS[0])
    parts["head1"] = blocks.conv_norm(head, "hard_swish")
    decisions.declare(head)
    parts["pool"] = L.GlobalAveragePool()
    head = width("head2", HEAD_WIDTHS[1])
    parts["head2"] = sequential(conv=L.Conv2D(head, use_bias=True), act=L.Activation("hard_swish"))
    decisions.declare(head)
    parts |= blocks.classifier(classes, 0.25)
    return NetworkSpace(
        "mobilenet-v3-like",
        L.Sequential(tuple(parts.items())),
        decisions.list,
        (input_size, input_size, channels),
        classes,
    )
