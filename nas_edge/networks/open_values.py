"""Values that a template leaves open, and how a width becomes a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from nas_edge.networks.layers import Layer


def nearest_multiple(value: float, divisor: int = 8) -> int:
    """Rounds half up to a multiple of `divisor`, at least `divisor` (how TuNAS scales filter counts)."""
    return max(divisor, divisor * math.floor(value / divisor + 0.5))


def make_divisible(value: float, divisor: int = 8) -> int:
    """As `nearest_multiple`, but never more than 10% below `value` (how MobileNetV3 sizes its squeeze layers)."""
    rounded = nearest_multiple(value, divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class OneOf:
    """A choice: exactly one of `choices` (all layers, or all numbers) is used, picked by the named decision.

    Several `OneOf` may name the same decision; they are then decided together.

    Attributes:
        decision: path of the decision, for example `block2.layer1.kernel`.
        choices: the alternatives, in the order of the decision's choices.
        labels: a short name per choice; layer paths and reports use it. Choices of one label are one alternative, with
            the same weights, as a layer is that several numbers of layers have in common.

    Raises:
        ValueError: when different choices have the same label.
    """

    decision: str
    choices: tuple[Layer, ...] | tuple[int, ...] | tuple[float, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        for first, *others in self.alternatives():
            if any(self.choices[other] != self.choices[first] for other in others):
                raise ValueError(f"{self.decision}: different choices have the label {self.labels[first]!r}")

    def alternatives(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the choices, grouped by label, in order of first occurrence."""
        of_label: dict[str, list[int]] = {}
        for index, label in enumerate(self.labels):
            of_label.setdefault(label, []).append(index)
        return tuple(map(tuple, of_label.values()))

    def layers(self) -> tuple[Layer, ...]:
        """The alternatives, which must be layers.

        Raises:
            ValueError: when they are numbers.
        """
        for choice in self.choices:
            if isinstance(choice, (int, float)):
                raise ValueError(f"{self.decision}: expected layers to choose from, received the number {choice}")
        return self.choices  # type: ignore[return-value]

    def numbers(self) -> tuple[float, ...]:
        """The alternatives, which must be numbers.

        Raises:
            ValueError: when they are layers.
        """
        for choice in self.choices:
            if not isinstance(choice, (int, float)):
                raise ValueError(
                    f"{self.decision}: expected numbers to choose from, received the layer {type(choice).__name__}"
                )
        return self.choices  # type: ignore[return-value]

    @property
    def of_numbers(self) -> bool:
        """Whether a number is chosen, not a layer."""
        return isinstance(self.choices[0], (int, float))


@dataclass(frozen=True)
class Scaled:
    """A width that is a multiple of the layer's own input channels.

    Attributes:
        ratio: the factor, fixed or open.
        rounding: `nearest` for expansions, `divisible` for squeeze layers, both to multiples of 8; `whole` to the
            nearest integer, as MnasNet sizes its squeeze layers.
        per: what the channels are divided by, fixed or open, such as the expansion that made them.
    """

    ratio: float | OneOf
    rounding: Literal["nearest", "divisible", "whole"] = "nearest"
    per: float | OneOf = 1.0

    def closed(self, number: Callable[[OneOf], float]) -> tuple[float, float]:
        """`ratio` and `per`; `number` gives the value of an open choice."""
        ratio, per = (number(one) if isinstance(one, OneOf) else one for one in (self.ratio, self.per))
        return ratio, per

    def resolve(self, channels: int, number: Callable[[OneOf], float]) -> int:
        """The width for `channels` input channels; see `closed` for `number`."""
        ratio, per = self.closed(number)
        if self.rounding == "divisible":
            return make_divisible(channels * ratio / per)
        return nearest_multiple(channels * ratio / per, 1 if self.rounding == "whole" else 8)


@dataclass(frozen=True)
class GateChannels:
    """A width equal to the channels of the enclosing `Gate`'s input."""


Width: TypeAlias = int | OneOf | Scaled | GateChannels


def open_numbers(width: Width | None) -> list[OneOf]:
    """The choices that a width depends on."""
    values = (width.ratio, width.per) if isinstance(width, Scaled) else (width,)
    return [value for value in values if isinstance(value, OneOf)]


def closed_width(width: Width | None, number: Callable[[OneOf], float]) -> Width | None:
    """The width with its open choices replaced by their values."""
    if isinstance(width, OneOf):
        return int(number(width))
    if isinstance(width, Scaled):
        ratio, per = width.closed(number)
        return replace(width, ratio=ratio, per=per)
    return width


def resolve_width(
    width: Width | None, in_channels: int, gate_channels: int | None, number: Callable[[OneOf], float]
) -> int:
    """The output channels of a layer.

    Args:
        width: the layer's width; None for a layer that keeps its input's channels.
        in_channels: channels that the layer reads.
        gate_channels: channels at the input of the enclosing `Gate`; None outside one.
        number: gives the number that an open choice takes.

    Raises:
        ValueError: for `GateChannels` outside a `Gate`.
    """
    if width is None:
        return in_channels
    if isinstance(width, OneOf):
        return int(number(width))
    if isinstance(width, Scaled):
        return width.resolve(in_channels, number)
    if isinstance(width, GateChannels):
        if gate_channels is None:
            raise ValueError("GateChannels may only stand inside a Gate")
        return gate_channels
    return width
