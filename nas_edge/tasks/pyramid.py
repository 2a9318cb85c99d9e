"""Dense heads: a feature pyramid, which joins features of several strides from the coarsest to the finest.

Source: Lin et al., 2017 (arXiv:1612.03144), section 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.networks.graph import Shape
from nas_edge.networks.template import decode
from nas_edge.spaces import blocks

Parts: TypeAlias = Sequence[tuple[str, L.Layer]]


@dataclass(frozen=True)
class Pyramid:
    """A classifier's template without its head.

    Attributes:
        early: its parts up to the finest features that are joined.
        joined: makes the joined features, of `width` channels, from these.
        rows: height of the joined features.
        columns: width of the joined features.
        logits: the layer that made the classifier's outputs.
    """

    early: Parts
    joined: L.Layer
    rows: int
    columns: int
    logits: L.Conv2D


def pyramid(template: L.Layer, input_shape: Shape, stride: int, width: int, task: str) -> Pyramid:
    """Joins the features at all strides from `stride` on.

    A 1x1 convolution projects the features of each stride to `width` channels; those of the next coarser stride are
    resized and added.

    Args:
        template: a classifier's.
        input_shape: `[height, width, channels]`.
        stride: of the finest features, pixels of the input in each direction.
        width: channels of the joined features.
        task: its name, for messages.

    Raises:
        SpaceError: when the template is not a Sequential with a classifier at its end, or has no features that coarse.
    """
    parts, logits = _without_classifier(template, task)
    height, across = (-(-size // stride) for size in input_shape[:2])
    sizes = _sizes(parts, input_shape)
    # The last part of each size that is no larger than the output.
    ends = [i for i, size in enumerate(sizes) if i + 1 == len(sizes) or sizes[i + 1] != size]
    ends = [i for i in ends if sizes[i][0] <= height and sizes[i][1] <= across]
    if not ends:
        raise SpaceError(
            f"no part of the space's networks has features at a stride of {stride} or more",
            fix="set task.stride to a smaller number",
        )
    return Pyramid(parts[: ends[0] + 1], _joined(parts, sizes, ends, width), *sizes[ends[0]], logits)


def _joined(parts: Parts, sizes: Sequence[tuple[int, int]], ends: Sequence[int], width: int) -> L.Layer:
    """What makes `width` channels of the features after `ends[0]`, by itself and by what follows."""
    own = blocks.conv_norm(width, None)
    if len(ends) == 1:
        return L.Sequential((*own.parts, ("act", L.Activation("relu"))))
    deeper = parts[ends[0] + 1 : ends[1] + 1]
    coarser = _joined(parts, sizes, ends[1:], width)
    body = L.Sequential((*deeper, ("coarser", coarser), ("resize", L.Resize(*sizes[ends[0]]))))
    return L.sequential(sum=L.Residual(body, own), act=L.Activation("relu"))


def _without_classifier(template: L.Layer, task: str) -> tuple[Parts, L.Conv2D]:
    """The parts of a classifier's template without pooling and head, and what makes its logits."""
    parts = template.parts if isinstance(template, L.Sequential) else ()
    for i, (_, part) in reversed(list(enumerate(parts))):
        if isinstance(part, L.Conv2D) and part.kernel_init == "classifier":
            left_out = (L.GlobalAveragePool, L.Dropout)
            return [(name, one) for name, one in parts[:i] if not isinstance(one, left_out)], part
    raise SpaceError(f"{task} requires a space whose template is a Sequential with a classifier at its end")


def _sizes(parts: Parts, input_shape: Shape) -> list[tuple[int, int]]:
    """Height and width after each part; no choice changes them."""
    first: Mapping[str, int] = defaultdict(int)
    shapes = [decode(L.Sequential(tuple(parts[: i + 1])), input_shape, first).output_shape for i in range(len(parts))]
    return [(shape[0], shape[1]) for shape in shapes]
