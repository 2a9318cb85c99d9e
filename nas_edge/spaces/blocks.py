"""Building blocks of the mobile search spaces: inverted bottlenecks, separable convolutions, heads.

Shapes and orders follow TuNAS (reference code `mobile_search_space_v3.py`); the inverted bottleneck is MobileNetV2's
(arXiv:1801.04381). Every function accepts fixed numbers or open choices, so the published reference networks are made
of the same blocks as the spaces.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_edge.networks import layers as L
from nas_edge.networks.layers import sequential
from nas_edge.spaces.decisions import Decision, Kind

# What a gate squeezes its channels to, unless something else is said.
A_QUARTER = L.Scaled(0.25, "divisible")


class Decisions:
    """Collects decisions in the order they are asked for and hands out the `OneOf` that stands for each."""

    def __init__(self) -> None:
        self.list: list[Decision] = []

    def declare(self, one_of: L.OneOf, kind: Kind = "filters") -> L.OneOf:
        """Records the decision of an open number; widths are declared after the layers that use them."""
        self.list.append(Decision(one_of.decision, one_of.choices, kind))  # type: ignore[arg-type]
        return one_of

    def layers(self, path: str, choices: dict[str, L.Layer]) -> L.OneOf:
        """An open layer: exactly one of the labelled choices."""
        self.list.append(Decision(path, tuple(choices), "op"))
        return L.OneOf(path, tuple(choices.values()), tuple(choices))

    def skippable(self, path: str, layer: L.Layer) -> L.Residual:
        """A residual layer that may be skipped: choice 0 keeps it, 1 skips it."""
        return L.Residual(self.layers(path, {"keep": layer, "skip": L.Zero()}))


def number(path: str, choices: Sequence[int] | Sequence[float]) -> L.OneOf:
    """An open number: a width or an expansion ratio. It may stand in several places."""
    return L.OneOf(path, tuple(choices), tuple(map(str, choices)))


def widths(base: int, multipliers: Sequence[float], width_multiplier: float) -> list[int]:
    """The filter counts offered around `base`: scaled, rounded to multiples of 8, deduplicated, ascending."""
    offered = (L.nearest_multiple(base * m) for m in multipliers)
    return sorted({L.nearest_multiple(width * width_multiplier) for width in offered})


def activation(name: L.ActivationName) -> L.Layer:
    """An activation; `swish`, `x * sigmoid(x)`, is two operators in a TFLite file, and so in a template."""
    return L.Gate(L.Activation("sigmoid")) if name == "swish" else L.Activation(name)


def conv_norm(
    filters: L.Width, function: L.ActivationName | None, kernel_size: int = 1, strides: int = 1
) -> L.Sequential:
    """Convolution, batch norm and, unless None, activation."""
    parts: dict[str, L.Layer] = {"conv": L.Conv2D(filters, kernel_size, strides), "norm": L.BatchNorm()}
    if function:
        parts["act"] = activation(function)
    return L.Sequential(tuple(parts.items()))


def depthwise_norm(kernel_size: int, function: L.ActivationName, strides: int) -> L.Sequential:
    """Depthwise convolution, batch norm, activation."""
    return sequential(conv=L.DepthwiseConv2D(kernel_size, strides), norm=L.BatchNorm(), act=activation(function))


def squeeze_excite(
    squeezed: L.Width = A_QUARTER,
    function: L.ActivationName = "relu",
) -> L.Gate:
    """Squeeze, by default to a quarter, excite, gate with a plain sigmoid (as the TuNAS code does)."""
    return L.Gate(
        sequential(
            pool=L.GlobalAveragePool(),
            reduce=L.Conv2D(squeezed, use_bias=True),
            reduce_act=activation(function),
            expand=L.Conv2D(L.GateChannels(), use_bias=True),
            expand_act=L.Activation("sigmoid"),
        )
    )


def bottleneck(
    filters: L.Width,
    expansion: L.Width,
    depthwise: L.Layer,
    function: L.ActivationName,
    gate: L.Layer | None = None,
) -> L.Sequential:
    """The inverted bottleneck: expand, depthwise, optional gate, project without activation."""
    parts: dict[str, L.Layer] = {"expand": conv_norm(expansion, function), "depthwise": depthwise}
    if gate is not None:
        parts["se"] = gate
    parts["project"] = conv_norm(filters, None)
    return L.Sequential(tuple(parts.items()))


def separable(filters: L.Width, depthwise: L.Layer) -> L.Sequential:
    """The early separable convolution: depthwise, then a pointwise convolution without activation."""
    return sequential(depthwise=depthwise, project=conv_norm(filters, None))


def classifier(classes: int, dropout: float) -> dict[str, L.Layer]:
    """Dropout, a biased 1x1 convolution to the classes, flattened to logits."""
    return {
        "dropout": L.Dropout(dropout),
        "logits": L.Conv2D(classes, use_bias=True, kernel_init="classifier", regularized=False),
        "flatten": L.Flatten(),
    }
