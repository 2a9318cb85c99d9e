"""Published networks as they were published: widths and operators, from which `reference.py` builds them.

MobileNetV2 arXiv:1801.04381, MnasNet arXiv:1807.11626, ProxylessNAS arXiv:1812.00332, MobileNetV3 arXiv:1905.02244,
multi-hardware models arXiv:2008.08178, as encoded in the TuNAS and TensorFlow model-garden code. MobileNetV1
arXiv:1704.04861. EfficientNet-EdgeTPU and -Lite, MnasNet-A1 and -small: tensorflow/tpu, `models/official/efficientnet`,
`edgetpu` and `lite`, and `models/official/mnasnet`. How families of networks were scaled: EfficientNet
arXiv:1905.11946; EfficientNet-X, found with the latencies of an accelerator, Li et al., CVPR 2021 (arXiv:2102.05610),
`tpu/efficientnet_x_builder.py` there.
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
            with a ratio of 1 without its expansion; `fused`: one with a full convolution in place of the first two.
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


def _efficientnet_edgetpu(width: float, depth: float, dropout: float) -> StagedStyle:
    """S, M and L have images of 224, 240 and 300 pixels."""

    def layers(count: int) -> int:
        return ceil(count * depth)

    def filters(count: int) -> int:
        return count if width == 1 else L.make_divisible(count * width)

    return StagedStyle(
        activation="relu",
        stages=(
            # The published code expands 24 channels here, although the stem makes 32.
            Stage("fused", filters(24), layers(1), ratio=4, expanded=4 * filters(24), residual=False),
            Stage("fused", filters(32), layers(2), strides=2, ratio=8),
            Stage("fused", filters(48), layers(4), strides=2, ratio=8),
            Stage("inverted", filters(96), layers(5), kernel=5, strides=2, ratio=8),
            Stage("inverted", filters(144), layers(4), kernel=5, ratio=8),
            Stage("inverted", filters(192), layers(2), kernel=5, strides=2, ratio=8),
        ),
        head_width=filters(1280),
        dropout=dropout,
        stem_width=filters(32),
    )


def _efficientnet_lite(width: float, depth: float, dropout: float) -> StagedStyle:
    """Lite0 to Lite4 have images of 224, 240, 260, 280 and 300 pixels; stem and head are the same in all of them."""

    def stage(filters: int, layers: int, kernel: int, strides: int, ratio: int = 6, deepened: bool = True) -> Stage:
        count = ceil(layers * depth) if deepened else layers
        return Stage("inverted", L.make_divisible(filters * width), count, kernel, strides, ratio)

    return StagedStyle(
        activation="relu6",
        stages=(
            stage(16, 1, 3, 1, ratio=1, deepened=False),
            stage(24, 2, 3, 2),
            stage(40, 2, 5, 2),
            stage(80, 3, 3, 2),
            stage(112, 3, 5, 1),
            stage(192, 4, 5, 2),
            stage(320, 1, 3, 1, deepened=False),
        ),
        head_width=1280,
        dropout=dropout,
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
    "efficientnet-edgetpu-s": _efficientnet_edgetpu(1.0, 1.0, 0.2),
    "efficientnet-edgetpu-m": _efficientnet_edgetpu(1.0, 1.1, 0.2),
    "efficientnet-edgetpu-l": _efficientnet_edgetpu(1.2, 1.4, 0.3),
    "efficientnet-lite0": _efficientnet_lite(1.0, 1.0, 0.2),
    "efficientnet-lite1": _efficientnet_lite(1.0, 1.1, 0.2),
    "efficientnet-lite2": _efficientnet_lite(1.1, 1.2, 0.3),
    "efficientnet-lite3": _efficientnet_lite(1.2, 1.4, 0.3),
    "efficientnet-lite4": _efficientnet_lite(1.4, 1.8, 0.3),
}


@dataclass(frozen=True)
class BlockStringStyle:
    """A network of blocks as `block_strings.py` reads them, between a 3x3 stem of stride 2 and a pointwise head.

    Attributes:
        blocks: in order.
        dropout: before the classifier.
        stem_width: filters of the stem; None for the input filters of the first block.
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
        # The published code does not take the stem's filters from the first string.
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


@dataclass(frozen=True)
class GatedBlock:
    """A bottleneck with squeeze-and-excitation, given by its widths.

    Attributes:
        block: see `Stage`; of `unfolded` the expansion is a 2x2 convolution of stride 2, a learned space-to-depth.
        kernel: side of the kernel.
        strides: of that kernel.
        expanded: width of the expansion.
        squeezed: width inside of the gate.
        width: output channels.
        activation: of all of it.
        residual: whether its input is added.
    """

    block: Literal["inverted", "fused", "unfolded"]
    kernel: int
    strides: int
    expanded: int
    squeezed: int
    width: int
    activation: L.ActivationName = "relu"
    residual: bool = False


def _gated(
    block: Literal["inverted", "fused"],
    layers: int,
    kernel: int,
    strides: int,
    widths: tuple[int, int],
    activation: L.ActivationName = "relu",
) -> tuple[GatedBlock, ...]:
    """Blocks from one width to another, expanded by 6, squeezed to the width that each reads: EfficientNet-X-B0's.

    In B0 the published ratio of 0.25 is multiplied by 4.
    """
    before, after = widths
    first = GatedBlock(block, kernel, strides, 6 * before, before, after, activation)
    return (
        first,
        *(GatedBlock(block, kernel, 1, 6 * after, after, after, activation, True) for _ in range(layers - 1)),
    )


GATED_STYLE = {
    "efficientnet-x-b0": (
        # Four times 32 and 16 channels at a quarter of the places, and a kernel of half the side.
        GatedBlock("unfolded", 2, 1, 128, 32, 64),
        *_gated("fused", 2, 3, 1, (16, 24), "swish"),
        *_gated("fused", 2, 5, 2, (24, 40), "swish"),
        *_gated("inverted", 3, 3, 2, (40, 80)),
        *_gated("inverted", 3, 5, 1, (80, 112)),
        *_gated("inverted", 4, 5, 2, (112, 192)),
        *_gated("inverted", 1, 3, 1, (192, 320)),
    ),
}


REFERENCE_NETWORKS = (
    *MOBILENET_V2_STYLE,
    *MOBILENET_V3_STYLE,
    *STAGED_STYLE,
    *BLOCK_STRING_STYLE,
    *GATED_STYLE,
)


@dataclass(frozen=True)
class ScalingStep:
    """A network of a published family, relative to its base network.

    Attributes:
        depth: factor of the number of layers of each block.
        width: factor of the width of each block.
        input_size: side of the square input, pixels.
    """

    depth: float
    width: float
    input_size: int


def _steps(*steps: tuple[float, float, int]) -> tuple[ScalingStep, ...]:
    """From the published order: width, depth, pixels."""
    return tuple(ScalingStep(depth, width, input_size) for width, depth, input_size in steps)


# B1 to B7 of each family as published; multiply-adds about double from one to the next.
SCALED_FAMILIES = {
    "efficientnet": _steps(
        (1.0, 1.1, 240),
        (1.1, 1.2, 260),
        (1.2, 1.4, 300),
        (1.4, 1.8, 380),
        (1.6, 2.2, 456),
        (1.8, 2.6, 528),
        (2.0, 3.1, 600),
    ),
    "efficientnet-x-gpu": _steps(
        (1.05, 1.09, 229),
        (1.13, 1.24, 237),
        (1.31, 1.63, 255),
        (1.63, 2.4, 282),
        (1.94, 3.29, 306),
        (2.25, 4.28, 328),
        (2.58, 5.46, 350),
    ),
    "efficientnet-x-tpu": _steps(
        (1.05, 1.09, 229),
        (1.13, 1.29, 244),
        (1.27, 1.62, 263),
        (1.54, 2.38, 299),
        (1.96, 2.76, 332),
        (2.75, 3.01, 328),
        (3.26, 3.44, 350),
    ),
}
