"""The vocabulary of networks: primitive layers, the composites that join them, and values left open.

Two languages share this vocabulary:

* a *template* (see `template.py`) is a tree of composites and primitives in which `OneOf` may stand for a layer or
  for a number, and `Scaled` and `GateChannels` express widths that follow from other widths;
* a `NetworkSpec` (see `graph.py`) is the decoded graph: primitives only, every number resolved.

All layers are 2-D, channels last, SAME padding. Layer semantics follow TuNAS (public patent US11347995 and reference
code); the squeeze-and-excite gate follows Hu et al., 2018 (arXiv:1709.01507).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

ActivationName: TypeAlias = Literal["relu", "relu6", "hard_swish", "sigmoid"]

BATCH_NORM_EPSILON = 1e-3


def nearest_multiple(value: float, divisor: int = 8) -> int:
    """Rounds half up to a multiple of `divisor`, at least `divisor` (how TuNAS scales filter counts)."""
    return max(divisor, divisor * math.floor(value / divisor + 0.5))


def make_divisible(value: float, divisor: int = 8) -> int:
    """As `nearest_multiple`, but never more than 10% below `value` (how MobileNetV3 sizes its squeeze layers)."""
    rounded = nearest_multiple(value, divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


# ---------------------------------------------------------------- values left open


@dataclass(frozen=True)
class OneOf:
    """A choice: exactly one of `choices` (all layers, or all numbers) is used, picked by the named decision.

    Several `OneOf` may name the same decision; they are then decided together.

    Attributes:
        decision: path of the decision, for example `block2.layer1.kernel`.
        choices: the alternatives, in the order of the decision's choices.
        labels: a short name per choice; layer paths and reports use it.
    """

    decision: str
    choices: tuple[Layer, ...] | tuple[int, ...] | tuple[float, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Scaled:
    """A width that is a multiple of the layer's own input channels.

    Attributes:
        ratio: the factor, fixed or open.
        rounding: `nearest` for expansions, `divisible` for squeeze layers.
    """

    ratio: float | OneOf
    rounding: Literal["nearest", "divisible"] = "nearest"

    def resolve(self, channels: int, ratio: float) -> int:
        """The width for `channels` input channels."""
        rule = nearest_multiple if self.rounding == "nearest" else make_divisible
        return rule(channels * ratio)


@dataclass(frozen=True)
class GateChannels:
    """A width equal to the channels of the enclosing `Gate`'s input."""


Width: TypeAlias = int | OneOf | Scaled | GateChannels


# ---------------------------------------------------------------- primitive layers


@dataclass(frozen=True)
class Conv2D:
    """A convolution. Weights: kernel `[k, k, in, out]`, then bias `[out]` when `use_bias`.

    Attributes:
        filters: output channels.
        kernel_size: side of the square kernel.
        strides: step in both directions.
        use_bias: whether a bias is added.
        kernel_init: `he_normal`, or `classifier` for a normal of standard deviation 0.01.
        regularized: whether weight decay applies to the kernel.
    """

    filters: Width
    kernel_size: int = 1
    strides: int = 1
    use_bias: bool = False
    kernel_init: Literal["he_normal", "classifier"] = "he_normal"
    regularized: bool = True


@dataclass(frozen=True)
class DepthwiseConv2D:
    """A depthwise convolution without bias. Weights: kernel `[k, k, channels, 1]`."""

    kernel_size: int
    strides: int = 1


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation, epsilon 1e-3. Weights: gamma, beta, moving mean, moving variance, each `[channels]`."""


@dataclass(frozen=True)
class Activation:
    """An activation; `hard_swish` is `x * relu6(x + 3) / 6`."""

    function: ActivationName


@dataclass(frozen=True)
class GlobalAveragePool:
    """The mean over height and width, kept as `[1, 1, channels]`."""


@dataclass(frozen=True)
class Dropout:
    """Dropout in training, nothing at inference."""

    rate: float


@dataclass(frozen=True)
class Flatten:
    """`[1, 1, channels]` to `[channels]`."""


@dataclass(frozen=True)
class Add:
    """The sum of two inputs of the same shape. Appears in graphs; templates say `Residual`."""


@dataclass(frozen=True)
class Multiply:
    """The product of an input and a `[1, 1, channels]` gate. Appears in graphs; templates say `Gate`."""


Primitive: TypeAlias = (
    Conv2D | DepthwiseConv2D | BatchNorm | Activation | GlobalAveragePool | Dropout | Flatten | Add | Multiply
)


# ---------------------------------------------------------------- composites (templates only)


@dataclass(frozen=True)
class Sequential:
    """Named layers applied in order; the names become part of the layer paths."""

    parts: tuple[tuple[str, Layer], ...]


@dataclass(frozen=True)
class Residual:
    """`x + body(x)`; with a `Zero` body it is the identity."""

    body: Layer


@dataclass(frozen=True)
class Gate:
    """`x * body(x)`, where the body ends in `[1, 1, channels]`."""

    body: Layer


@dataclass(frozen=True)
class Identity:
    """The input, unchanged."""


@dataclass(frozen=True)
class Zero:
    """Nothing: the branch that stands for a skipped layer. Only inside a `Residual`."""


Layer: TypeAlias = Primitive | Sequential | Residual | Gate | Identity | Zero | OneOf


def sequential(**parts: Layer) -> Sequential:
    """A `Sequential` from keyword arguments, in the order written."""
    return Sequential(tuple(parts.items()))
