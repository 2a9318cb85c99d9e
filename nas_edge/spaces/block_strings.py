"""Block strings: networks of repeated layers as lines of text, for example `r2_k3_s22_e6_i16_o24_se0.25_noskip`.

    r2      number of layers; the first has the strides and the input filters of the block
    k3      kernel size
    s22     strides of the first layer, vertical and horizontal
    e6      expansion ratio of an inverted bottleneck; 1 for a separable convolution, which expands nothing
    i16     input filters of the block
    o24     output filters of each layer
    se0.25  ratio of squeeze-and-excitation to a layer's input filters; without it, none
    noskip  no residuals; without it, layers whose input and output have the same shape have one

Two things have no published form, and the published reader refuses or misreads them: `conv` in place of `e` for full
convolutions, whose gate's ratio is to their output filters; and `poolskip` for residuals whose shortcut is pooled.

Source: tensorflow/tpu, `models/official/mnasnet/mnasnet_models.py`; MnasNet, arXiv:1807.11626.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.spaces import blocks

EXAMPLE = "r2_k3_s22_e6_i16_o24_se0.25_noskip"
HEAD_WIDTH = 1280
POOL_SIZE = 3

# Strings may come from anywhere; these limits are far beyond any published network.
MOST_CHARACTERS = 100
MOST_BLOCKS = 100
_MOST = {"r": 100, "k": 31, "s": 99, "e": 100, "i": 100_000, "o": 100_000}
_TOKEN = re.compile(r"([a-z]+)([0-9]+(?:\.[0-9]+)?)?")

Skip: TypeAlias = Literal["none", "pool", "identity"]
_SKIP_TEXTS: dict[Skip, str] = {"none": "_noskip", "pool": "_poolskip", "identity": ""}


@dataclass(frozen=True)
class Block:
    """A parsed block string.

    Attributes:
        layers: number of layers.
        kernel: kernel size.
        strides: of the first layer.
        expansion: ratio of the inverted bottleneck, 1 for a separable convolution; None for a full one.
        in_filters: input filters of the block.
        filters: output filters of each layer.
        squeezed: ratio of squeeze-and-excitation; 0 without it.
        skip: the shortcut of layers that can have one.
    """

    layers: int
    kernel: int
    strides: int
    expansion: int | None
    in_filters: int
    filters: int
    squeezed: float = 0.0
    skip: Skip = "identity"

    def __str__(self) -> str:
        """The block string."""
        ratio = "conv" if self.expansion is None else f"e{self.expansion}"
        text = f"r{self.layers}_k{self.kernel}_s{self.strides}{self.strides}_{ratio}_i{self.in_filters}_o{self.filters}"
        gate = f"_se{self.squeezed:g}" if self.squeezed else ""
        return f"{text}{gate}{_SKIP_TEXTS[self.skip]}"

    @classmethod
    def parse(cls, text: str) -> Block:
        """Reads a block string.

        Raises:
            SpaceError: when it is not a valid one.
        """
        found = _tokens(text)
        skips = [skip for skip, token in _SKIP_TEXTS.items() if token.removeprefix("_") in found]
        if len(skips) > 1:
            raise _error(text, "noskip and poolskip are mutually exclusive")
        if ("e" in found) == ("conv" in found):
            raise _error(text, "it must have either e or conv")
        vertical, horizontal = divmod(_integer(text, found, "s"), 10)
        if vertical != horizontal or vertical == 0:
            raise _error(text, "s must be two equal strides, as in s22")
        squeezed = float(found.get("se", 0))
        if "se" in found and not 0 < squeezed <= 1:
            raise _error(text, "se must be a ratio above 0 and at most 1")
        kernel = _integer(text, found, "k")
        if kernel % 2 == 0:
            raise _error(text, "k must be odd")
        return cls(
            layers=_integer(text, found, "r"),
            kernel=kernel,
            strides=vertical,
            expansion=None if "conv" in found else _integer(text, found, "e"),
            in_filters=_integer(text, found, "i"),
            filters=_integer(text, found, "o"),
            squeezed=squeezed,
            skip=skips[0] if skips else "identity",
        )

    def has_skip(self, number: int) -> bool:
        """Whether a layer, numbered from 1, has a shortcut: its input and output must have the same shape."""
        alike = number > 1 or (self.strides == 1 and self.in_filters == self.filters)
        return self.skip != "none" and alike


def _tokens(text: str) -> dict[str, str]:
    """The value of each name; empty for names without one."""
    if len(text) > MOST_CHARACTERS:
        raise _error(text, f"it has more than {MOST_CHARACTERS} characters")
    found: dict[str, str] = {}
    for token in text.split("_"):
        match = _TOKEN.fullmatch(token)
        if match is None or match[1] not in (*_MOST, "se", "conv", "noskip", "poolskip"):
            raise _error(text, f"unknown part {token!r}")
        name, value = match[1], match[2] or ""
        if name in found:
            raise _error(text, f"{name} is given twice")
        if bool(value) != (name in _MOST or name == "se"):
            raise _error(text, f"{name} {'takes no' if value else 'needs a'} number")
        found[name] = value
    return found


def _integer(text: str, found: dict[str, str], name: str) -> int:
    if name not in found:
        raise _error(text, f"{name} is missing")
    if not found[name].isdecimal() or not 1 <= int(found[name]) <= _MOST[name]:
        raise _error(text, f"{name} must be an integer from 1 to {_MOST[name]}")
    return int(found[name])


def _error(text: str, why: str) -> SpaceError:
    shown = text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
    return SpaceError(f"{shown!r} is not a block string: {why}", expected=f"one such as {EXAMPLE}")


def parse_all(texts: Sequence[str]) -> tuple[Block, ...]:
    """Reads the blocks of a network.

    Raises:
        SpaceError: when one is invalid, or its input filters differ from the output filters of the one before.
    """
    if not 1 <= len(texts) <= MOST_BLOCKS:
        raise SpaceError(f"a network has 1 to {MOST_BLOCKS} blocks", received=f"{len(texts)}")
    found = tuple(map(Block.parse, texts))
    for before, after in pairwise(found):
        if after.in_filters != before.filters:
            raise SpaceError(
                f"{after} has i{after.in_filters}, but the block before it, {before}, has o{before.filters}"
            )
    return found


# ---------------------------------------------------------------- layers of blocks

# Given a function from kernel size to convolution: a convolution of one size, or a choice among several.
OverKernels: TypeAlias = Callable[[Callable[[int], L.Layer]], L.Layer]


def layer(
    expansion: int | L.OneOf | None,
    filters: L.Width,
    strides: int,
    squeezed: float,
    over_kernels: OverKernels,
    gated: Callable[[L.Gate], L.Layer],
) -> L.Sequential:
    """A layer of a block, without its shortcut.

    Args:
        expansion: see `Block`.
        filters: output filters.
        strides: in both directions.
        squeezed: see `Block`; ratio of the gate that `gated` receives.
        over_kernels: makes the convolution.
        gated: given the gate, makes the layer in its place: the gate, nothing, or a choice.
    """
    parts: dict[str, L.Layer] = {}
    if expansion is None:
        parts["conv"] = over_kernels(lambda kernel: L.Conv2D(filters, kernel, strides))
    else:
        if expansion != 1:
            parts["expand"] = blocks.conv_norm(L.Scaled(expansion), "relu")
        parts["depthwise"] = over_kernels(lambda kernel: L.DepthwiseConv2D(kernel, strides))
    # The gate sees the expanded filters.
    gate = blocks.squeeze_excite(L.Scaled(squeezed, "whole", per=1.0 if expansion is None else expansion))
    parts |= {"norm": L.BatchNorm(), "act": L.Activation("relu"), "se": gated(gate)}
    if expansion is not None:
        parts["project"] = blocks.conv_norm(filters, None)
    return L.Sequential(tuple(parts.items()))


def shortcut(skip: Skip) -> L.Layer:
    """What is added to a layer's output: nothing, its input, or a 3x3 average pool of the input at stride 1."""
    shortcuts: dict[Skip, L.Layer] = {"none": L.Zero(), "pool": L.AveragePool(POOL_SIZE), "identity": L.Identity()}
    return shortcuts[skip]


def template(
    network: Sequence[Block],
    classes: int,
    dropout: float,
    scale: Callable[[int], int] = lambda width: width,
    stem_width: int | None = None,
) -> L.Sequential:
    """A network of blocks as published: a 3x3 stem of stride 2, the blocks, a head of 1,280 filters, a classifier.

    Args:
        network: its blocks.
        classes: outputs.
        dropout: before the classifier.
        scale: maps filters of a string to filters of the network.
        stem_width: filters of the stem; None for the input filters of the first block.
    """
    stem = scale(stem_width or network[0].in_filters)
    parts: dict[str, L.Layer] = {"stem": blocks.conv_norm(stem, "relu", 3, 2)}
    for number, block in enumerate(_scaled(network, scale), start=1):
        for i in range(1, block.layers + 1):
            body = _body(block, block.strides if i == 1 else 1)
            path = f"block{number}.layer{i}"
            parts[path] = L.Residual(body, shortcut(block.skip)) if block.has_skip(i) else body
    parts["head"] = blocks.conv_norm(scale(HEAD_WIDTH), "relu")
    parts["pool"] = L.GlobalAveragePool()
    return L.Sequential(tuple((parts | blocks.classifier(classes, dropout)).items()))


def _body(block: Block, strides: int) -> L.Sequential:
    return layer(
        block.expansion,
        block.filters,
        strides,
        block.squeezed,
        lambda make: make(block.kernel),
        lambda gate: gate if block.squeezed else L.Identity(),
    )


def _scaled(network: Sequence[Block], scale: Callable[[int], int]) -> list[Block]:
    return [replace(block, in_filters=scale(block.in_filters), filters=scale(block.filters)) for block in network]
