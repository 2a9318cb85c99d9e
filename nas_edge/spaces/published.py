"""Published networks as they were published: widths and operators, from which `reference.py` builds them.

MobileNetV2 arXiv:1801.04381, MnasNet arXiv:1807.11626, ProxylessNAS arXiv:1812.00332, MobileNetV3 arXiv:1905.02244,
multi-hardware models arXiv:2008.08178, as encoded in the TuNAS and TensorFlow model-garden code. MobileNetV1
arXiv:1704.04861. EfficientNet-EdgeTPU, MnasNet-A1 and -small: tensorflow/tpu, `models/official/efficientnet/edgetpu`
and `models/official/mnasnet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from nas_edge.networks import layers as L


@dataclass(frozen=True)
class MobileNetV2Style:
    """A network of the MobileNetV2 family.

    Attributes:
        widths: filters of the stem, blocks 1..7 and the head.
        ops: operator codes: the kernel of block 1, four per block 2..6, one for block 7.
    """

    widths: tuple[int, ...]
    ops: tuple[int, ...]

    def layers(self) -> list[tuple[int, int, int]]:
        """`(block, layer, op)` of blocks 2..7."""
        places = [(block, layer) for block in range(2, 7) for layer in range(1, 5)] + [(7, 1)]
        return [(block, layer, op) for (block, layer), op in zip(places, self.ops[1:], strict=True)]


def _ops(text: str) -> tuple[int, ...]:
    return tuple(int(code) for code in text.replace("/", " ").split())


MOBILENET_V2_STYLE = {
    "mobilenet-v2": MobileNetV2Style(
        (32, 16, 24, 32, 64, 96, 160, 320, 1280), _ops("0 / 3 3 6 6 / 3 3 3 6 / 3 3 3 3 / 3 3 3 6 / 3 3 3 6 / 3")
    ),
    "mnasnet-b1": MobileNetV2Style(
        (32, 16, 24, 40, 80, 96, 192, 320, 1280), _ops("0 / 0 0 0 6 / 1 1 1 6 / 4 4 4 6 / 3 3 6 6 / 4 4 4 4 / 3")
    ),
    "proxylessnas-mobile": MobileNetV2Style(
        (32, 16, 32, 40, 80, 96, 192, 320, 1280), _ops("0 / 1 0 6 6 / 2 0 1 1 / 5 1 1 1 / 4 1 1 1 / 5 5 2 2 / 5")
    ),
    "proxylessnas-gpu": MobileNetV2Style(
        (40, 24, 32, 56, 112, 128, 256, 432, 1728), _ops("0 / 1 6 6 6 / 2 6 6 0 / 5 6 6 1 / 4 6 0 1 / 5 5 5 4 / 5")
    ),
    "proxylessnas-cpu": MobileNetV2Style(
        (40, 24, 32, 48, 88, 104, 216, 360, 1432), _ops("0 / 3 0 0 0 / 3 0 0 1 / 3 6 6 0 / 4 0 0 0 / 4 1 1 0 / 4")
    ),
}


@dataclass(frozen=True)
class MobileNetV3Style:
    """A network given layer by layer.

    Attributes:
        stem_width: filters of the 3x3 stride-2 stem.
        stem_activation: the stem's activation; with `hard_swish` a residual separable layer follows it, as in V3.
        blocks: per block, its width and its layers `(kernel, expanded width, squeeze-excite, activation, stride)`.
        head_widths: filters of the two head convolutions.
        head_activation: their activation.
    """

    stem_width: int
    stem_activation: L.ActivationName
    blocks: tuple[tuple[int, tuple[tuple[int, int, bool, L.ActivationName, int], ...]], ...]
    head_widths: tuple[int, int]
    head_activation: L.ActivationName


def _multi(*stages: tuple[int, tuple[tuple[int, int], ...], int]) -> MobileNetV3Style:
    """A multi-hardware model: ReLU, no squeeze-excite; stages are (width, ((kernel, expanded), ...), stride)."""
    return MobileNetV3Style(
        stem_width=32,
        stem_activation="relu",
        blocks=tuple(
            (width, tuple((k, e, False, "relu", stride if i == 0 else 1) for i, (k, e) in enumerate(layers)))
            for width, layers, stride in stages
        ),
        head_widths=(960, 1280),
        head_activation="relu",
    )


MOBILENET_V3_STYLE = {
    "mobilenet-v3-large": MobileNetV3Style(
        stem_width=16,
        stem_activation="hard_swish",
        blocks=(
            (24, ((3, 64, False, "relu", 2), (3, 72, False, "relu", 1))),
            (40, ((5, 72, True, "relu", 2), (5, 120, True, "relu", 1), (5, 120, True, "relu", 1))),
            (
                80,
                (
                    (3, 240, False, "hard_swish", 2),
                    (3, 200, False, "hard_swish", 1),
                    (3, 184, False, "hard_swish", 1),
                    (3, 184, False, "hard_swish", 1),
                ),
            ),
            (112, ((3, 480, True, "hard_swish", 1), (3, 672, True, "hard_swish", 1))),
            (
                160,
                (
                    (5, 672, True, "hard_swish", 2),
                    (5, 960, True, "hard_swish", 1),
                    (5, 960, True, "hard_swish", 1),
                ),
            ),
        ),
        head_widths=(960, 1280),
        head_activation="hard_swish",
    ),
    "multi-avg": _multi(
        (32, ((3, 96), (3, 64)), 2),
        (64, ((5, 160), (3, 192), (3, 128), (3, 192)), 2),
        (128, ((5, 384), (3, 384), (3, 384), (3, 384)), 2),
        (160, ((3, 768), (3, 640)), 1),
        (192, ((3, 960), (5, 768), (5, 768), (5, 768)), 2),
    ),
    "multi-max": _multi(
        (32, ((3, 96),), 2),
        (64, ((5, 192), (3, 128), (3, 128)), 2),
        (128, ((5, 384), (3, 512), (3, 384), (3, 384)), 2),
        (128, ((3, 768), (3, 384)), 1),
        (160, ((3, 768), (5, 640), (3, 800), (5, 640)), 2),
    ),
}


@dataclass(frozen=True)
class Stage:
    """Equal blocks one after another; only the first has strides, and only the others are residual.

    Attributes:
        block: `separable`: depthwise and pointwise convolution, both activated; `inverted`: the inverted bottleneck;
            `fused`: one with a full convolution in place of the first two.
        width: output channels.
        layers: how many blocks.
        kernel: side of the kernel.
        strides: of the first block.
        ratio: expansion ratio of a bottleneck.
        expanded: width after the first block's expansion, where the ratio does not say it.
        residual: whether the later blocks are.
    """

    block: Literal["separable", "inverted", "fused"]
    width: int
    layers: int = 1
    kernel: int = 3
    strides: int = 1
    ratio: int = 1
    expanded: int | None = None
    residual: bool = True


@dataclass(frozen=True)
class StagedStyle:
    """A network of stages, after a 3x3 stem of stride 2.

    Attributes:
        activation: of all layers that have one.
        stages: in order.
        head_width: filters of the pointwise convolution before the pool; None without it.
        dropout: before the classifier.
        stem_width: filters of the stem.
    """

    activation: L.ActivationName
    stages: tuple[Stage, ...]
    head_width: int | None
    dropout: float
    stem_width: int = 32


def _efficientnet_edgetpu(depth: float) -> StagedStyle:
    """S has a depth of 1 and images of 224 pixels, M of 1.1 and 240 pixels."""

    def layers(count: int) -> int:
        return ceil(count * depth)

    return StagedStyle(
        activation="relu",
        stages=(
            # The published code expands 24 channels here, although the stem makes 32.
            Stage("fused", 24, layers(1), ratio=4, expanded=96, residual=False),
            Stage("fused", 32, layers(2), strides=2, ratio=8),
            Stage("fused", 48, layers(4), strides=2, ratio=8),
            Stage("inverted", 96, layers(5), kernel=5, strides=2, ratio=8),
            Stage("inverted", 144, layers(4), kernel=5, ratio=8),
            Stage("inverted", 192, layers(2), kernel=5, strides=2, ratio=8),
        ),
        head_width=1280,
        dropout=0.2,
    )


STAGED_STYLE = {
    "mobilenet-v1": StagedStyle(
        activation="relu6",
        stages=tuple(
            Stage("separable", width, layers, strides=strides, residual=False)
            for width, layers, strides in (
                (64, 1, 1),
                (128, 1, 2),
                (128, 1, 1),
                (256, 1, 2),
                (256, 1, 1),
                (512, 1, 2),
                (512, 5, 1),
                (1024, 1, 2),
                (1024, 1, 1),
            )
        ),
        head_width=None,
        dropout=0.001,
    ),
    "efficientnet-edgetpu-s": _efficientnet_edgetpu(1.0),
    "efficientnet-edgetpu-m": _efficientnet_edgetpu(1.1),
}


@dataclass(frozen=True)
class BlockStringStyle:
    """A network of blocks as `block_strings.py` reads them, between a 3x3 stem of stride 2 and a pointwise head.

    Attributes:
        blocks: in order.
        dropout: before the classifier.
        stem_width: filters of the stem; None for those that the first block reads.
    """

    blocks: tuple[str, ...]
    dropout: float
    stem_width: int | None = None


BLOCK_STRING_STYLE = {
    "mnasnet-a1": BlockStringStyle(
        blocks=(
            "r1_k3_s11_e1_i32_o16_noskip",
            "r2_k3_s22_e6_i16_o24",
            "r3_k5_s22_e3_i24_o40_se0.25",
            "r4_k3_s22_e6_i40_o80",
            "r2_k3_s11_e6_i80_o112_se0.25",
            "r3_k5_s22_e6_i112_o160_se0.25",
            "r1_k3_s11_e6_i160_o320",
        ),
        dropout=0.2,
    ),
    "mnasnet-small": BlockStringStyle(
        # The published code does not ask the string for what its stem makes.
        stem_width=8,
        blocks=(
            "r1_k3_s11_e1_i16_o8",
            "r1_k3_s22_e3_i8_o16",
            "r2_k3_s22_e6_i16_o16",
            "r4_k5_s22_e6_i16_o32_se0.25",
            "r3_k3_s11_e6_i32_o32_se0.25",
            "r3_k5_s22_e6_i32_o88_se0.25",
            "r1_k3_s11_e6_i88_o144",
        ),
        dropout=0.0,
    ),
}


REFERENCE_NETWORKS = (*MOBILENET_V2_STYLE, *MOBILENET_V3_STYLE, *STAGED_STYLE, *BLOCK_STRING_STYLE)
