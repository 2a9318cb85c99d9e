"""The table of blocks, as published for mobile spaces: a time for each inverted bottleneck, by its shapes.

    T(network) = fixed + sum over its blocks of t(block)

A block is written as in the tables of ProxylessNAS and Once-for-all:

    expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:5-stride:1-idskip:1

`expand` is the ratio; where `se` and `hs` follow, as in those of Once-for-all, it is the number of channels. `Conv` is
the first convolution, `Conv_1` the last 1x1 one before the pool, `Logits` all that follows. Blocks are found in the
operators of a network's TFLite file, so the table serves any space that is made of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from nas_edge.latency.models.predictor import Prediction, Predictor
from nas_edge.latency.models.subject import OperatorShape, Subject
from nas_edge.networks.graph import Shape

BOTTLENECK = "expanded_conv"
_KEY = re.compile(
    r"(?P<kind>[A-Za-z0-9_]+)-input:(?P<input>[0-9x]+)-output:(?P<output>[0-9x]+)"
    r"(?:-expand:(?P<expand>[0-9]+)-kernel:(?P<kernel>[0-9]+)-stride:(?P<stride>[0-9]+)-idskip:(?P<idskip>[01])"
    r"(?:-se:(?P<se>[01])-hs:(?P<hs>[01]))?)?"
)


@dataclass(frozen=True)
class Block:
    """A part of a network that published tables have a time of.

    Attributes:
        kind: `Conv`, `expanded_conv`, `Conv_1` or `Logits`.
        source: shape that it reads.
        output: shape that it writes; of `Logits` the number of outputs.
        width: channels of the depthwise convolution; 0 but for a bottleneck.
        kernel: of the depthwise convolution; likewise.
        stride: likewise.
        residual: whether its input is added to its output.
        squeezes: whether it has squeeze-and-excitation.
        hard_swish: whether its activations are hard swish.
        expands: whether a convolution comes before the depthwise one.
    """

    kind: str
    source: Shape
    output: Shape
    width: int = 0
    kernel: int = 0
    stride: int = 1
    residual: bool = False
    squeezes: bool = False
    hard_swish: bool = False
    expands: bool = False

    def key(self, by_channels: bool) -> str:
        """As a table has it.

        Args:
            by_channels: whether `expand` is a number of channels, and `se` and `hs` follow.
        """
        text = f"{self.kind}-input:{_x(self.source)}-output:{_x(self.output)}"
        if self.kind != BOTTLENECK:
            return text
        expand = self.width if by_channels else self.width / self.source[-1]
        text += f"-expand:{expand:g}-kernel:{self.kernel}-stride:{self.stride}-idskip:{int(self.residual)}"
        return f"{text}-se:{int(self.squeezes)}-hs:{int(self.hard_swish)}" if by_channels else text


def _x(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _key_text(text: str) -> str:
    match = _KEY.fullmatch(text)
    if match is None or (match["expand"] is None) == (match["kind"] == BOTTLENECK):
        raise ValueError(f"not a block such as 'Conv-input:224x224x3-output:112x112x32', received {text[:100]!r}")
    return text


class BlockTable(Predictor):
    """A fixed time and one per block.

    Attributes:
        fixed_ms: of all that the table has no blocks of.
        covers: the kinds of blocks that it has; a network with one of these that is not in it is not known.
        entries: milliseconds by block, see `Block.key`.
        error: relative standard error; None where it is not known.
    """

    kind: Literal["blocks"] = "blocks"
    fixed_ms: float = Field(0.0, ge=0)
    covers: tuple[str, ...]
    entries: Mapping[Annotated[str, AfterValidator(_key_text)], float]
    error: float | None = Field(None, ge=0)

    @property
    def by_channels(self) -> bool:
        """See `Block.key`."""
        return any("-se:" in key for key in self.entries)

    def predict(self, subjects: Sequence[Subject]) -> Prediction:
        """See `Predictor`; NaN for what is not made of the blocks of the table."""
        latencies_ms = np.array([self._predict(subject) for subject in subjects])
        error = np.nan if self.error is None else self.error
        return Prediction(latencies_ms, np.where(np.isnan(latencies_ms), np.nan, error))

    def _predict(self, subject: Subject) -> float:
        blocks = None if subject.sequence is None else blocks_of(subject.sequence)
        if blocks is None:
            return math.nan
        by_channels = self.by_channels
        keys = [block.key(by_channels) for block in blocks if block.kind in self.covers]
        return self.fixed_ms + math.fsum(self.entries.get(key, math.nan) for key in keys)


def blocks_of(sequence: Sequence[OperatorShape]) -> list[Block] | None:
    """The blocks of a network; None for one that is made of something else."""
    found = spans_of(sequence)
    return None if found is None else [block for block, _ in found]


def spans_of(sequence: Sequence[OperatorShape]) -> list[tuple[Block, Sequence[OperatorShape]]] | None:
    """The blocks of a network, each with its operators; None for one that is made of something else."""
    operators = _Operators(sequence)
    try:
        return list(_spans(operators))
    except _UnknownError:
        return None


class _UnknownError(Exception):
    """The operators that come next are those of no block."""


class _Operators:
    """The operators that are left."""

    def __init__(self, sequence: Sequence[OperatorShape]) -> None:
        self.sequence, self.place = sequence, 0

    def has(self, kind: str, kernel: int | None = None, ahead: int = 0) -> bool:
        """Whether the next one is of that kind."""
        if self.place + ahead >= len(self.sequence):
            return False
        operator = self.sequence[self.place + ahead]
        return operator.kind == kind and (kernel is None or operator.kernel == (kernel, kernel))

    def take(self, kind: str, kernel: int | None = None) -> OperatorShape:
        """The next one, which must be of that kind."""
        if not self.has(kind, kernel):
            raise _UnknownError
        self.place += 1
        return self.sequence[self.place - 1]

    def skip(self, kind: str) -> bool:
        """Takes the next one if it is of that kind."""
        found = self.has(kind)
        self.place += found
        return found

    def since(self, start: int) -> Sequence[OperatorShape]:
        """Those that were taken since a place."""
        return self.sequence[start : self.place]


def _spans(operators: _Operators) -> Iterator[tuple[Block, Sequence[OperatorShape]]]:
    first = operators.take("CONV_2D")
    operators.skip("HARD_SWISH")
    yield Block("Conv", first.sources[0], first.output), operators.since(0)
    while True:
        start = operators.place
        if operators.has("DEPTHWISE_CONV_2D"):
            block = _bottleneck(operators, None)
        else:
            pointwise = operators.take("CONV_2D", 1)
            swish = operators.skip("HARD_SWISH")
            if operators.has("DEPTHWISE_CONV_2D"):
                block = _bottleneck(operators, pointwise, swish)
            elif operators.has("MEAN"):
                yield Block("Conv_1", pointwise.sources[0], pointwise.output), operators.since(start)
                rest = operators.sequence[operators.place :]
                outputs = (rest[-1].output[-1],)
                yield Block("Logits", pointwise.output, outputs), rest
                return
            else:
                raise _UnknownError
        yield block, operators.since(start)


def _bottleneck(operators: _Operators, expansion: OperatorShape | None, swish: bool = False) -> Block:
    depthwise = operators.take("DEPTHWISE_CONV_2D")
    swish = operators.skip("HARD_SWISH") or swish
    squeezes = operators.has("MEAN")
    if squeezes:
        for kind in ("MEAN", "CONV_2D", "CONV_2D", "LOGISTIC", "MUL"):
            operators.take(kind)
    projection = operators.take("CONV_2D", 1)
    if operators.has("ADD", ahead=1):  # what is added at 1x1 pixels is reshaped before
        operators.skip("RESHAPE")
    source = (depthwise if expansion is None else expansion).sources[0]
    return Block(
        BOTTLENECK,
        source,
        projection.output,
        width=depthwise.output[-1],
        kernel=depthwise.kernel[0],
        stride=depthwise.stride,
        residual=operators.skip("ADD"),
        squeezes=squeezes,
        hard_swish=swish,
        expands=expansion is not None,
    )
