"""Published networks, built from the same blocks as the search spaces.

They are what a search result is compared with, on the same device in the same session. Their widths and operators are
in `published.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.layers import sequential
from nas_edge.networks.template import decode
from nas_edge.spaces import block_strings, blocks
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.spaces.proxylessnas import KERNELS, STRIDES
from nas_edge.spaces.published import (
    BLOCK_STRING_STYLE,
    GATED_STYLE,
    MOBILENET_V2_STYLE,
    MOBILENET_V3_STYLE,
    REFERENCE_NETWORKS,
    STAGED_STYLE,
    BlockStringStyle,
    GatedBlock,
    MobileNetV2Style,
    MobileNetV3Style,
    Stage,
    StagedStyle,
)

# Operator codes of the MobileNetV2 family: kernel and expansion ratio, 6 skips the layer.
_OPS = {0: (3, 3), 1: (5, 3), 2: (7, 3), 3: (3, 6), 4: (5, 6), 5: (7, 6)}
_SKIP = 6


def _mobilenet_v2_style(model: MobileNetV2Style, scale: Callable[[int], int], classes: int) -> L.Sequential:
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(scale(model.widths[0]), "relu", 3, 2)}
    first = blocks.separable(scale(model.widths[1]), blocks.depthwise_norm(KERNELS[model.ops[0]], "relu", 1))
    parts["block1"] = sequential(layer1=first)
    for block, layer, op in model.layers():
        if op == _SKIP:
            continue
        kernel, ratio = _OPS[op]
        depthwise = blocks.depthwise_norm(kernel, "relu", STRIDES[block] if layer == 1 else 1)
        body: L.Layer = blocks.bottleneck(scale(model.widths[block]), L.Scaled(ratio), depthwise, "relu")
        parts[f"block{block}.layer{layer}"] = body if layer == 1 else L.Residual(body)
    parts["head"] = blocks.conv_norm(scale(model.widths[8]), "relu")
    parts["pool"] = L.GlobalAveragePool()
    return L.Sequential(tuple((parts | blocks.classifier(classes, 0.15)).items()))


def _mobilenet_v3_style(model: MobileNetV3Style, scale: Callable[[int], int], classes: int) -> L.Sequential:
    stem = scale(model.stem_width)
    stem_parts: dict[str, L.Layer] = {"conv": blocks.conv_norm(stem, model.stem_activation, 3, 2)}
    if model.stem_activation == "hard_swish":
        stem_parts["layer1"] = L.Residual(blocks.separable(stem, blocks.depthwise_norm(3, "relu", 1)))
    parts: dict[str, L.Layer] = {"stem": L.Sequential(tuple(stem_parts.items()))}
    for block, (width, layers) in enumerate(model.blocks, start=1):
        for layer, (kernel, expanded, gated, activation, strides) in enumerate(layers, start=1):
            body: L.Layer = blocks.bottleneck(
                scale(width),
                scale(expanded),
                blocks.depthwise_norm(kernel, activation, strides),
                activation,
                blocks.squeeze_excite() if gated else None,
            )
            parts[f"block{block}.layer{layer}"] = body if layer == 1 else L.Residual(body)
    parts["head1"] = blocks.conv_norm(scale(model.head_widths[0]), model.head_activation)
    parts["pool"] = L.GlobalAveragePool()
    parts["head2"] = sequential(
        conv=L.Conv2D(scale(model.head_widths[1]), use_bias=True), act=L.Activation(model.head_activation)
    )
    return L.Sequential(tuple((parts | blocks.classifier(classes, 0.25)).items()))


def _staged(model: StagedStyle, scale: Callable[[int], int], classes: int) -> L.Sequential:
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(scale(model.stem_width), model.activation, 3, 2)}
    for number, stage in enumerate(model.stages, start=1):
        for layer in range(1, stage.layers + 1):
            body = _block(stage, layer == 1, model.activation, scale)
            parts[f"block{number}.layer{layer}"] = L.Residual(body) if stage.residual and layer > 1 else body
    if model.head_width is not None:
        parts["head"] = blocks.conv_norm(scale(model.head_width), model.activation)
    parts["pool"] = L.GlobalAveragePool()
    return L.Sequential(tuple((parts | blocks.classifier(classes, model.dropout)).items()))


def _block(stage: Stage, first: bool, activation: L.ActivationName, scale: Callable[[int], int]) -> L.Sequential:
    width, strides = scale(stage.width), stage.strides if first else 1
    depthwise = blocks.depthwise_norm(stage.kernel, activation, strides)
    if stage.block == "separable":
        return sequential(depthwise=depthwise, project=blocks.conv_norm(width, activation))
    if stage.block == "inverted" and stage.ratio == 1:
        return blocks.separable(width, depthwise)
    expanded: L.Width = L.Scaled(stage.ratio)
    if first and stage.expanded is not None:
        expanded = scale(stage.expanded)
    if stage.block == "inverted":
        return blocks.bottleneck(width, expanded, depthwise, activation)
    return sequential(
        expand=blocks.conv_norm(expanded, activation, stage.kernel, strides), project=blocks.conv_norm(width, None)
    )


def _of_block_strings(model: BlockStringStyle, scale: Callable[[int], int], classes: int) -> L.Sequential:
    network = block_strings.parse_all(model.blocks)
    return block_strings.template(network, classes, model.dropout, scale, model.stem_width)


def _gated(model: Sequence[GatedBlock], scale: Callable[[int], int], classes: int) -> L.Sequential:
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(scale(32), "relu", 3, 2)}
    for number, block in enumerate(model, start=1):
        expanded, function = scale(block.expanded), block.activation
        kernel, strides = {"inverted": (1, 1), "fused": (block.kernel, block.strides), "unfolded": (2, 2)}[block.block]
        layers: dict[str, L.Layer] = {"expand": blocks.conv_norm(expanded, function, kernel, strides)}
        if block.block != "fused":
            layers["depthwise"] = blocks.depthwise_norm(block.kernel, function, block.strides)
        layers["se"] = blocks.squeeze_excite(scale(block.squeezed), function)
        layers["project"] = blocks.conv_norm(scale(block.width), None)
        body = L.Sequential(tuple(layers.items()))
        parts[f"layer{number}"] = L.Residual(body) if block.residual else body
    parts["head"] = blocks.conv_norm(scale(1280), "relu")
    parts["pool"] = L.GlobalAveragePool()
    return L.Sequential(tuple((parts | blocks.classifier(classes, 0.2)).items()))


# Networks by name, and the function that builds one from its description, the scaling of widths, and the classes.
_STYLES: tuple[tuple[Mapping[str, Any], Callable[[Any, Callable[[int], int], int], L.Sequential]], ...] = (
    (MOBILENET_V2_STYLE, _mobilenet_v2_style),
    (MOBILENET_V3_STYLE, _mobilenet_v3_style),
    (STAGED_STYLE, _staged),
    (BLOCK_STRING_STYLE, _of_block_strings),
    (GATED_STYLE, _gated),
)


def reference_network(
    name: str,
    input_size: int = 224,
    width_multiplier: float = 1.0,
    classes: int = 1001,
    channels: int = 3,
    change: Callable[[L.Layer], L.Layer] = lambda template: template,
) -> NetworkSpec:
    """A published network at any input size, width and class count; `change` may change its template.

    Raises:
        SpaceError: for an unknown name.
    """

    def scale(width: int) -> int:
        return width if width_multiplier == 1 else L.nearest_multiple(width * width_multiplier)

    for style, build in _STYLES:
        if name in style:
            template = build(style[name], scale, classes)
            return decode(change(template), (input_size, input_size, channels), {})
    raise SpaceError(f"unknown reference network {name!r}", expected=f"one of {', '.join(REFERENCE_NETWORKS)}")


def point(space: NetworkSpace, name: str) -> Architecture:
    """A MobileNetV2-style network as a point of a ProxylessNAS space of width multiplier 1.

    Raises:
        SpaceError: when the space does not offer one of its widths or operators.
    """
    model = MOBILENET_V2_STYLE[name]
    values: dict[str, int | float | str] = {"block1.layer1.kernel": f"k{KERNELS[model.ops[0]]}"}
    values |= {"stem.filters": model.widths[0], "head.filters": model.widths[8]}
    values |= {f"block{i}.filters": model.widths[i] for i in range(1, 8)}
    for block, layer, op in model.layers():
        path = f"block{block}.layer{layer}"
        if op == _SKIP:
            values[f"{path}.op"] = "skip"
        else:
            kernel, ratio = _OPS[op]
            values |= {f"{path}.kernel": f"k{kernel}", f"{path}.ratio": ratio}
    return space.encode(values)
