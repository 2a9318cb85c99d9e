"""Small search spaces."""

from __future__ import annotations

from nas_edge.networks import layers as L
from nas_edge.spaces import blocks, network_space
from nas_edge.spaces.decisions import Decision, NetworkSpace


def small_space(input_size: int = 12, channels: int = 3, classes: int = 5) -> NetworkSpace:
    """Every kind of choice the published spaces make: kernels, ratios, gates, skips, widths, separate branches."""
    decisions = blocks.Decisions()
    stem = blocks.number("stem.filters", (8, 16))
    parts: dict[str, L.Layer] = {
        "stem": decisions.layers("stem.kernel", {f"k{k}": blocks.conv_norm(stem, "hard_swish", k, 2) for k in (3, 5)})
    }
    decisions.declare(stem)
    width1 = blocks.number("block1.filters", (8, 16, 24))
    parts["block1"] = decisions.layers(
        "block1.kernel", {f"k{k}": blocks.separable(width1, blocks.depthwise_norm(k, "relu", 1)) for k in (3, 5)}
    )
    decisions.declare(width1)
    width2 = blocks.number("block2.filters", (16, 24))
    layers: dict[str, L.Layer] = {}
    for layer in (1, 2, 3):
        path = f"block2.layer{layer}"
        strides = 2 if layer == 1 else 1
        kernel = decisions.layers(
            f"{path}.kernel", {f"k{k}": blocks.depthwise_norm(k, "hard_swish", strides) for k in (3, 7)}
        )
        ratio = decisions.declare(blocks.number(f"{path}.ratio", (1, 2, 3)))
        gate = decisions.layers(f"{path}.se", {"none": L.Identity(), "se": blocks.squeeze_excite()})
        body = blocks.bottleneck(width2, L.Scaled(ratio), kernel, "hard_swish", gate)
        layers[f"layer{layer}"] = body if layer == 1 else decisions.skippable(f"{path}.op", body)
    decisions.declare(width2)
    parts["block2"] = L.Sequential(tuple(layers.items()))
    parts["pool"] = L.GlobalAveragePool()
    parts |= blocks.classifier(classes, 0.2)
    shape = (input_size, input_size, channels)
    return NetworkSpace("small", L.Sequential(tuple(parts.items())), decisions.list, shape, classes)


def block_space(input_size: int = 8, channels: int = 1, classes: int = 3) -> NetworkSpace:
    """A block of one to three layers that decide together: kernel, shortcut and how many they are."""
    decisions = blocks.Decisions()
    width = blocks.number("block.filters", (8, 16))
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(width, "relu", 3, 2)}
    kernels: dict[str, L.Layer] = {f"k{k}": blocks.depthwise_norm(k, "relu", 1) for k in (3, 5)}
    kernel = decisions.layers("block.kernel", kernels)
    shortcuts: dict[str, L.Layer] = {"none": L.Zero(), "pool": L.AveragePool(3), "identity": L.Identity()}
    shortcut = decisions.layers("block.skip", shortcuts)
    layer = L.Residual(blocks.separable(width, kernel), shortcut)
    counts = (1, 2, 3)
    for number in counts:
        there = tuple(number <= count for count in counts)
        parts[f"layer{number}"] = L.OneOf(
            "block.layers",
            tuple(layer if one else L.Identity() for one in there),
            tuple("keep" if one else "skip" for one in there),
        )
    decisions.list.append(Decision("block.layers", counts, "op"))
    decisions.declare(width)
    parts |= {"pool": L.GlobalAveragePool(), **blocks.classifier(classes, 0.0)}
    template = L.Sequential(tuple(parts.items()))
    return NetworkSpace("block", template, decisions.list, (input_size, input_size, channels), classes)


def tiny_space(input_size: int = 8, channels: int = 1, classes: int = 3) -> NetworkSpace:
    """A few decisions; tracing its supernet takes little time."""
    decisions = blocks.Decisions()
    width = blocks.number("stem.filters", tuple(range(2, 34, 2)))
    kernels: dict[str, L.Layer] = {f"k{k}": blocks.conv_norm(width, "relu", k, 2) for k in (3, 5)}
    parts: dict[str, L.Layer] = {"stem": decisions.layers("stem.kernel", kernels)}
    decisions.declare(width)
    parts["pool"] = L.GlobalAveragePool()
    parts |= blocks.classifier(classes, 0.0)
    return NetworkSpace(
        "tiny", L.Sequential(tuple(parts.items())), decisions.list, (input_size, input_size, channels), classes
    )


TINY = network_space(lambda size, width, classes, channels: tiny_space(size, channels, classes))
