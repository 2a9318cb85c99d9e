"""The factorised hierarchical space of MnasNet: each block has its own decisions, which apply to all of its layers.

For each block of the network that is searched around, by default MobileNetV2: kernel size, squeeze-and-excitation,
operator, expansion ratio of an inverted bottleneck, skip, number of layers and filters; at most 432 combinations. All
layers of a block are alike except the first, which has the block's strides and no skip, since its input and output
differ in shape. The paper does not define the pooled skip; here it is a 3x3 average pool of the input at stride 1, so
that it can replace an identity skip anywhere.

Source: MnasNet, arXiv:1807.11626; US11531861.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field, field_validator

from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.spaces import block_strings, blocks
from nas_edge.spaces.block_strings import Block, Skip
from nas_edge.spaces.decisions import Architecture, Decision, NetworkSpace
from nas_edge.spaces.settings import NetworkSpaceSettings

MOBILENET_V2 = (
    "r1_k3_s11_e1_i32_o16_noskip",
    "r2_k3_s22_e6_i16_o24",
    "r3_k3_s22_e6_i24_o32",
    "r4_k3_s22_e6_i32_o64",
    "r3_k3_s11_e6_i64_o96",
    "r3_k3_s22_e6_i96_o160",
    "r1_k3_s11_e6_i160_o320",
)

# Values in block strings, by label. In every list the last choice is the largest.
KERNELS = {"k3": 3, "k5": 5}
GATES = {"none": 0.0, "se": 0.25}
RATIOS = (3, 6)
CONV, SEPARABLE, BOTTLENECK = OPS = ("conv", "separable", "mbconv")
SKIPS: tuple[Skip, ...] = ("none", "pool", "identity")
MULTIPLIERS = (0.75, 1.0, 1.25)
MORE_LAYERS = (-1, 0, 1)

DROPOUT = 0.2


class MnasSettings(NetworkSpaceSettings):
    """Settings of `mnas`."""

    default_reference: ClassVar[str] = "mnasnet-a1"
    # The first of the seven: with all of them, a smoke search took 164 s on two cores.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"space.blocks": MOBILENET_V2[:3]}}
    name: str = "mnas"
    blocks: tuple[str, ...] = Field(
        MOBILENET_V2,
        description="block strings of the network to search around: strides are kept, filters and layers are near its",
    )

    @field_validator("blocks")
    @classmethod
    def _form_a_network(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        try:
            block_strings.parse_all(given)
        except SpaceError as error:
            raise ValueError(str(error)) from None
        return given


@dataclass(frozen=True)
class _Around:
    """A block to search around.

    Attributes:
        path: of its decisions.
        strides: of its first layer.
        filters: choices of output filters.
        layers: choices of the number of layers.
    """

    path: str
    strides: int
    filters: tuple[int, ...]
    layers: tuple[int, ...]

    @property
    def decisions(self) -> list[Decision]:
        """Kernel, gate and ratio come before the operator that they are part of."""
        return [
            Decision(f"{self.path}.kernel", tuple(KERNELS), "op"),
            Decision(f"{self.path}.se", tuple(GATES), "op"),
            Decision(f"{self.path}.ratio", RATIOS, "filters"),
            Decision(f"{self.path}.op", OPS, "op"),
            Decision(f"{self.path}.skip", SKIPS, "op"),
            Decision(f"{self.path}.layers", self.layers, "op"),
            Decision(f"{self.path}.filters", self.filters, "filters"),
        ]

    def template(self) -> L.Sequential:
        """The block with the largest number of layers."""
        parts: dict[str, L.Layer] = {"layer1": self._ops(self.strides)}
        shortcuts = tuple(map(block_strings.shortcut, SKIPS))
        for number in range(2, self.layers[-1] + 1):
            body = L.Residual(self._ops(1), L.OneOf(f"{self.path}.skip", shortcuts, SKIPS))
            parts[f"layer{number}"] = body if number <= self.layers[0] else self._from(number, body)
        return L.Sequential(tuple(parts.items()))

    def _from(self, number: int, layer: L.Layer) -> L.OneOf:
        there = [number <= layers for layers in self.layers]
        choices = tuple(layer if one else L.Identity() for one in there)
        return L.OneOf(f"{self.path}.layers", choices, tuple("keep" if one else "skip" for one in there))

    def _ops(self, strides: int) -> L.OneOf:
        filters = blocks.number(f"{self.path}.filters", self.filters)
        expansions: tuple[int | L.OneOf | None, ...] = (None, 1, blocks.number(f"{self.path}.ratio", RATIOS))
        made = tuple(
            block_strings.layer(
                expansion,
                filters,
                strides,
                GATES["se"],
                lambda make: L.OneOf(f"{self.path}.kernel", tuple(map(make, KERNELS.values())), tuple(KERNELS)),
                lambda gate: L.OneOf(f"{self.path}.se", (L.Identity(), gate), tuple(GATES)),
            )
            for expansion in expansions
        )
        return L.OneOf(f"{self.path}.op", made, OPS)


class MnasSpace(NetworkSpace):
    """See the top of this file.

    Args:
        around: blocks of the network to search around.
        input_size: side of the images.
        width_multiplier: scales every filter count.
        classes: outputs.
        channels: of the images.
    """

    def __init__(
        self, around: Sequence[Block], input_size: int, width_multiplier: float, classes: int, channels: int
    ) -> None:
        self._stem = L.nearest_multiple(around[0].in_filters * width_multiplier)
        self._blocks = [
            _Around(
                f"block{number}",
                block.strides,
                tuple(blocks.widths(block.filters, MULTIPLIERS, width_multiplier)),
                tuple(sorted({max(1, block.layers + more) for more in MORE_LAYERS})),
            )
            for number, block in enumerate(around, start=1)
        ]
        head = L.nearest_multiple(block_strings.HEAD_WIDTH * width_multiplier)
        parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(self._stem, "relu", 3, 2)}
        parts |= {block.path: block.template() for block in self._blocks}
        parts |= {"head": blocks.conv_norm(head, "relu"), "pool": L.GlobalAveragePool()}
        template = L.Sequential(tuple((parts | blocks.classifier(classes, DROPOUT)).items()))
        decisions = [decision for block in self._blocks for decision in block.decisions]
        super().__init__("mnas", template, decisions, (input_size, input_size, channels), classes)

    def block_strings(self, architecture: Architecture) -> tuple[str, ...]:
        """The block strings of an architecture; `point` is the inverse.

        Raises:
            SpaceError: when it is not a point of this space.
        """
        found = self._network(architecture)
        return tuple(str(one) for block in found for one in (_first_apart(block) if block.has_skip(1) else [block]))

    def point(self, strings: Sequence[str]) -> Architecture:
        """The architecture whose network has these blocks.

        Raises:
            SpaceError: when they are not block strings, or not of a network of this space.
        """
        given = block_strings.parse_all(strings)
        found = [_without_idle_skip(block) for block in _together(given, len(self._blocks))]
        if len(found) != len(self._blocks):
            raise SpaceError(f"{self.name} has {len(self._blocks)} blocks", received=f"{len(found)}")
        if len(given) == len(found) and (skipping := [block for block in found if block.has_skip(1)]):
            raise SpaceError(f"{self.name} has no skip in the first layer of a block", received=f"{skipping[0]}")
        values: dict[str, int | float | str] = {}
        for around, block in zip(self._blocks, found, strict=True):
            paths = [decision.path for decision in around.decisions]
            labels = (_label(KERNELS, block.kernel), _label(GATES, block.squeezed))
            op = {None: CONV, 1: SEPARABLE}.get(block.expansion, BOTTLENECK)
            ratio = RATIOS[0] if block.expansion is None or op == SEPARABLE else block.expansion
            chosen: tuple[int | str, ...] = (*labels, ratio, op, block.skip, block.layers, block.filters)
            values |= dict(zip(paths, chosen, strict=True))
        architecture = self.encode(values)
        # Strides and the stem's filters are fixed.
        for block, made in zip(found, map(_without_idle_skip, self._network(architecture)), strict=True):
            if block != made:
                raise SpaceError(f"{self.name} has no such block", expected=f"{made}", received=f"{block}")
        return architecture

    def _network(self, architecture: Architecture) -> list[Block]:
        """The blocks of an architecture's network."""
        self.check(architecture)
        chosen = zip(self.decisions, self.canonical(architecture).choices, strict=True)
        values = {decision.path: decision.choices[choice] for decision, choice in chosen}
        found: list[Block] = []
        for around in self._blocks:
            kernel, gate, ratio, op, skip, layers, filters = (values[one.path] for one in around.decisions)
            block = Block(
                layers=int(layers),
                kernel=KERNELS[str(kernel)],
                strides=around.strides,
                expansion={CONV: None, SEPARABLE: 1}.get(str(op), int(ratio)),
                in_filters=found[-1].filters if found else self._stem,
                filters=int(filters),
                squeezed=GATES[str(gate)],
                skip=next(one for one in SKIPS if one == skip),
            )
            found.append(block)
        return found


def mnas_space(settings: MnasSettings, classes: int, channels: int) -> MnasSpace:
    """Makes the space of the settings."""
    around = block_strings.parse_all(settings.blocks)
    return MnasSpace(around, settings.input_size, settings.width_multiplier, classes, channels)


def _label(labels: dict[str, int] | dict[str, float], value: float) -> str:
    """The label of a value; without one, the value itself, which no decision offers."""
    return next((label for label, one in labels.items() if one == value), str(value))


def _without_idle_skip(block: Block) -> Block:
    """The block, with its skip `none` if no layer has one."""
    return block if any(map(block.has_skip, range(1, block.layers + 1))) else replace(block, skip="none")


def _first_apart(block: Block) -> list[Block]:
    """The same layers as two blocks, so that the first layer has no skip although it could have one."""
    first = replace(block, layers=1, skip="none")
    return [first, replace(block, layers=block.layers - 1)] if block.layers > 1 else [first]


def _together(found: Sequence[Block], count: int) -> list[Block]:
    """The reverse of `_first_apart`, wherever it can be and there are more than `count` blocks."""
    joined: list[Block] = []
    for number, block in enumerate(found):
        if joined and len(joined) + len(found) - number > count:
            whole = replace(block, layers=1 + block.layers)
            if whole.has_skip(1) and _first_apart(whole)[0] == joined[-1]:
                joined[-1] = whole
                continue
        joined.append(block)
    return joined
