"""Networks made deeper and wider: the transformation behind compound scaling.

    stem, [block 1], block 2 ... block n-1, [block n], head        a block is a first layer and residual layers after it

    depth   every block gets ceil(depth * layers) layers; added layers repeat its residual layers in turn
    width   every width inside the blocks is multiplied, and rounded to a multiple of 8, never down by more than 10%

Stem and head stay as they are, and a first or last block of a single layer keeps it, which is the rule of
EfficientNet-Lite. Expanded widths that are given as a ratio follow from the widths that they read.

Source: Tan and Le, 2019 (arXiv:1905.11946); for Lite, tensorflow/tpu, `models/official/efficientnet/lite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from math import ceil
from typing import TypeAlias

from nas_edge.networks import layers as L
from nas_edge.networks.template import join

# A part of a network that is scaled as a unit: its path and its layer.
Unit: TypeAlias = tuple[str, L.Layer]


def scaled(template: L.Layer, depth: float, width: float) -> L.Sequential:
    """A template made deeper and wider, or shallower and narrower.

    Args:
        template: without open choices, see `template.resolve`; ends like a classifier's, without the head of a task.
        depth: factor of the number of layers.
        width: factor of widths.
    """
    units = list(_units("", template))
    blocks, taken = list(_blocks(units)), {path for path, _ in units}
    done, parts = 0, list[Unit]()
    for number, (start, end) in enumerate(blocks):
        parts += units[done:start]
        at_an_end = len(blocks) > 1 and number in (0, len(blocks) - 1)
        fixed = at_an_end and end - start == 1
        layers = units[start:end] if fixed else _deepened(units[start:end], depth, taken)
        parts += [(path, _widened(layer, width)) for path, layer in layers]
        done = end
    return L.Sequential((*parts, *units[done:]))


def _units(path: str, layer: L.Layer) -> Iterator[Unit]:
    """Layers in order of application with their paths: single operations, and layers of blocks as a whole."""
    if isinstance(layer, L.Identity):
        return
    holds_layers = isinstance(layer, L.Sequential) and any(_is_layer(part) for _, part in layer.parts)
    if isinstance(layer, L.Sequential) and (not path or len(layer.parts) == 1 or holds_layers):
        for name, part in layer.parts:
            yield from _units(join(path, name), part)
    else:
        yield path, layer


def _is_layer(layer: L.Layer) -> bool:
    """Whether it is, or holds, a layer of a block: one made of several operations."""
    if isinstance(layer, L.Sequential) and len(layer.parts) == 1:
        return _is_layer(layer.parts[0][1])
    if isinstance(layer, L.Sequential):
        return any(isinstance(part, (L.Sequential, L.Residual)) for _, part in layer.parts)
    return isinstance(layer, L.Residual)


def _is_repeatable(layer: L.Layer) -> bool:
    """Whether its output has the shape of its input."""
    return isinstance(layer, L.Residual) and isinstance(layer.shortcut, L.Identity)


def _blocks(units: Sequence[Unit]) -> Iterator[tuple[int, int]]:
    """Where each block starts and ends: a layer, and the residual ones after it."""
    start = None
    for i, (_, layer) in enumerate(units):
        if start is not None and not _is_repeatable(layer):
            yield start, i
            start = None
        if _is_layer(layer) and not _is_repeatable(layer):
            start = i
    if start is not None:
        yield start, len(units)


def _deepened(layers: Sequence[Unit], depth: float, taken: set[str]) -> list[Unit]:
    """The layers of a block, their number multiplied; new ones get paths that are not taken yet."""
    wanted = max(1, ceil(round(depth * len(layers), 6)))  # 1.1 * 10 is more than 11 in floating point
    path, first = layers[0]
    repeated = layers[1:] or [(path, L.Residual(_each(first, _without_strides)))]
    added = []
    for i in range(wanted - len(layers)):
        name, layer = repeated[i % len(repeated)]
        stem = name.rstrip("0123456789")
        free = next(path for number in count(2) if (path := f"{stem}{number}") not in taken)
        taken.add(free)
        added.append((free, layer))
    return [*layers[:wanted], *added]


def _without_strides(layer: L.Primitive) -> L.Primitive:
    return replace(layer, **{"strides": 1}) if getattr(layer, "strides", 1) != 1 else layer


def _widened(layer: L.Layer, width: float) -> L.Layer:
    def wider(one: L.Primitive) -> L.Primitive:
        return one.with_width(L.make_divisible(one.width * width)) if isinstance(one.width, int) else one

    return layer if width == 1 else _each(layer, wider)


def _each(layer: L.Layer, change: Callable[[L.Primitive], L.Primitive]) -> L.Layer:
    """A layer with all its primitives changed."""
    if isinstance(layer, L.Composite):
        return layer.changed(lambda part: _each(part, change))
    return change(layer) if isinstance(layer, L.Primitive) else layer
