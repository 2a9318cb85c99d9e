"""`Grid`: all scaled versions of a network, as a space of three decisions: depth, width, input size.

Only steps that make a difference are offered: layers are whole, widths are multiples of 8, and input sizes multiples of
the network's total stride. Latency depends on the effect of a step, not on its nominal factor, so each step has a
*growth*: the factor of the multiply-adds when this axis alone is changed in the network that was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import SpaceError
from nas_edge.networks.analysis import Analysis, analyze
from nas_edge.networks.graph import NetworkSpec
from nas_edge.spaces.decisions import Architecture, Decision, NetworkSpace, SearchSpace
from nas_edge.spaces.design import Design
from nas_edge.stages.context import space_of

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

AXES = ("depth", "width", "input_size")
DEPTHS = tuple(step / 10 for step in range(5, 41))
WIDTHS = (*(step / 8 for step in range(4, 17)), 2.25, 2.5, 2.75, 3.0)
# As multiples of the input size at which the network was found.
LEAST_INPUT, LARGEST_INPUT = 0.5, 2.5

# Multiply-adds grow with the square of width and input size, so the factor of either is the square root of the growth.
_POWERS = {"depth": 1.0, "width": 0.5, "input_size": 0.5}
# The one point of a space of a scaled network.
POINT = Architecture((0, 0))
# An input at which every feature map still has more than one pixel.
_LARGE_INPUT = 1024


@dataclass(frozen=True)
class Scale:
    """How a network is scaled.

    Attributes:
        depth: factor of the number of layers.
        width: factor of widths.
        input_size: side of the square input, pixels.
    """

    depth: float
    width: float
    input_size: int

    def __str__(self) -> str:
        return f"depth {self.depth:g}, width {self.width:g}, {self.input_size} pixels"


class Grid(SearchSpace):
    """All scaled versions of a network.

    Args:
        config: a run whose space is `scaled`, at a depth and width of 1: the network that was found.
        outputs: of the networks, see `Task.outputs`.
        channels: of their input.

    Raises:
        SpaceError: when the network cannot be scaled.
    """

    def __init__(self, config: RunConfig, outputs: int, channels: int) -> None:
        self._config, self._outputs, self._channels = config, outputs, channels
        # Checking operators against a hardware profile is slow, and does not affect how networks grow.
        anywhere = config.export.model_copy(update={"hardware": None})
        self._anywhere = config.model_copy(update={"export": anywhere})
        self._plain: dict[Scale, NetworkSpec] = {}
        self._networks: dict[Scale, NetworkSpec] = {}
        reference = config.reference
        assert reference is not None
        self.found = Scale(1.0, 1.0, reference.input_size)
        depths = self._distinct(DEPTHS, lambda value: Scale(value, 1.0, self.found.input_size))
        widths = self._distinct(WIDTHS, lambda value: Scale(1.0, value, self.found.input_size))
        super().__init__(
            f"scaled versions of a network of {self.space(self.found).name}",
            (
                Decision("depth", depths, "scale"),
                Decision("width", widths, "scale"),
                Decision("input_size", input_sizes(self.found.input_size, self._stride()), "scale"),
            ),
        )
        if self.size == 1:
            raise SpaceError("the network cannot be scaled: it has no blocks of layers, and a single input size")

    def scale(self, architecture: Architecture) -> Scale:
        """The scale that a point of the grid stands for."""
        self.check(architecture)
        depth, width, input_size = (
            decision.choices[choice] for decision, choice in zip(self.decisions, architecture.choices, strict=True)
        )
        return Scale(float(depth), float(width), int(input_size))

    def config(self, scale: Scale) -> RunConfig:
        """The settings of a run of the scaled network."""
        return _scaled(self._config, scale)

    def space(self, scale: Scale) -> NetworkSpace:
        """The space of such a run, whose only point is the network."""
        return self._space(self._config, scale)

    def build(self, architecture: Architecture) -> Design:
        """See `SearchSpace`."""
        scale = self.scale(architecture)
        if scale not in self._networks:
            self._networks[scale] = self.space(scale).decode(POINT)
        return Design(self._networks[scale])

    def analysis(self, architecture: Architecture) -> Analysis:
        """The cost of the network, without changes for `export.hardware`."""
        return analyze(self._network(self.scale(architecture)))

    @cached_property
    def base(self) -> Architecture:
        """The network that was found."""
        return self.encode({axis: getattr(self.found, axis) for axis in AXES})

    @cached_property
    def factors(self) -> tuple[FloatArray, ...]:
        """By axis, the natural logarithm of each step's effective factor of depth, width or input size, `[steps]` each.

        Effective factors are derived from the multiply-adds of the whole network.
        """
        return self._growth(lambda analysis: analysis.macs, _POWERS)

    @cached_property
    def points(self) -> FloatArray:
        """`factors` of every point, `[depths, widths, input sizes, 3]`."""
        return np.stack(np.meshgrid(*self.factors, indexing="ij"), axis=-1)

    @cached_property
    def macs_growth(self) -> FloatArray:
        """The logarithm of each point's approximate factor of multiply-adds, `[depths, widths, input sizes]`."""
        growth: FloatArray = self.points @ np.array([1 / _POWERS[axis] for axis in AXES])
        return growth

    @cached_property
    def parameters(self) -> FloatArray:
        """The approximate number of parameters of each point, `[depths, widths, input sizes]`."""
        growth = self._growth(lambda analysis: analysis.parameters, dict.fromkeys(AXES, 1.0))
        grown: FloatArray = np.exp(np.add.reduce(np.meshgrid(*growth, indexing="ij")))
        parameters: FloatArray = grown * self.analysis(self.base).parameters
        return parameters

    def _growth(self, cost: Callable[[Analysis], int], powers: dict[str, float]) -> tuple[FloatArray, ...]:
        found, of_base = [], cost(self.analysis(self.base))
        for i, axis in enumerate(AXES):
            steps = [self.along(i, step) for step in range(len(self.decisions[i].choices))]
            costs = np.array([cost(self.analysis(step)) for step in steps], float)
            found.append(powers[axis] * np.log(costs / of_base))
        return tuple(found)

    def along(self, axis: int, step: int) -> Architecture:
        """The network that was found, with one axis at another step."""
        choices = list(self.base.choices)
        choices[axis] = step
        return Architecture(tuple(choices))

    def _space(self, config: RunConfig, scale: Scale) -> NetworkSpace:
        space = space_of(_scaled(config, scale), self._outputs, self._channels)
        assert isinstance(space, NetworkSpace)
        return space

    def _network(self, scale: Scale) -> NetworkSpec:
        if scale not in self._plain:
            self._plain[scale] = self._space(self._anywhere, scale).decode(POINT)
        return self._plain[scale]

    def _distinct(self, values: Iterable[float], scale: Callable[[float], Scale]) -> tuple[float, ...]:
        """The values that make different networks; of several for the same network, the one nearest to 1."""
        kept: dict[str, float] = {}
        for value in sorted(values, key=lambda value: abs(math.log(value))):
            kept.setdefault(self._network(scale(value)).fingerprint, value)
        return tuple(sorted(kept.values()))

    def _stride(self) -> int:
        network = self._network(Scale(1.0, 1.0, _LARGE_INPUT))
        return _LARGE_INPUT // min(shape[0] for shape in network.shapes.values() if len(shape) == 3 and shape[0] > 1)


def _scaled(config: RunConfig, scale: Scale) -> RunConfig:
    return load_config(flags={f"space.{axis}": getattr(scale, axis) for axis in AXES}, base=config)


def input_sizes(found: int, stride: int) -> tuple[int, ...]:
    """The input sizes to offer: the original one, and multiples of the network's stride around it."""
    first, last = math.ceil(LEAST_INPUT * found / stride), math.floor(LARGEST_INPUT * found / stride)
    return tuple(sorted({found, *(step * stride for step in range(max(1, first), last + 1))}))


def at(array: FloatArray, architectures: Sequence[Architecture]) -> FloatArray:
    """The values of an array over the grid at some of its points, `[n]` or `[n, 3]`."""
    values: FloatArray = array[tuple(np.array([one.choices for one in architectures], int).reshape(-1, 3).T)]
    return values


def grows(grid: Grid) -> BoolArray:
    """The points that are no smaller than the network that was found, on any axis."""
    return _where_all(grid, np.greater_equal)


def shrinks(grid: Grid) -> BoolArray:
    """The points that are no larger than the network that was found, on any axis."""
    return _where_all(grid, np.less_equal)


def _where_all(grid: Grid, compare: Callable[[NDArray[np.intp], int], BoolArray]) -> BoolArray:
    """The points whose steps on every axis compare like that with those of the network that was found."""
    axes = zip(grid.decisions, grid.base.choices, strict=True)
    met = [compare(np.arange(len(decision.choices)), base) for decision, base in axes]
    found: BoolArray = np.logical_and.reduce(np.meshgrid(*met, indexing="ij"))
    return found
