"""What a latency model is told of a network: its operators, and the choices that were made for it.

    NetworkSpec  -->  operators, as its TFLite file has them, each with its shapes; how often each occurs
    Architecture -->  chosen values by decision, of those that are reached

A model goes by either, so it serves any space; which one, it says itself. Operators are written as a line of text,
`CONV_2D 56x56x24 -> 56x56x144 k1x1 s1 RELU`, from which all that is known of one can be read back: the files of models
stay readable.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.pooled import relative_error
from nas_edge.latency.source import Candidate
from nas_edge.networks.graph import NetworkSpec, Shape
from nas_edge.networks.tflite_graph import Operator, Tensor, TFLiteGraph
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.design import Extra

_TEXT = re.compile(
    r"(?P<kind>[A-Z][A-Z0-9_]*) (?P<sources>[0-9x]+(?:\+[0-9x]+)*) -> (?P<output>[0-9x]+)"
    r"(?: k(?P<kernel>[0-9]+x[0-9]+) s(?P<stride>[0-9]+))?(?: (?P<activation>[A-Z][A-Z0-9_]*))?"
)
_DEPTHWISE = "DEPTHWISE_CONV_2D"


@dataclass(frozen=True)
class OperatorShape:
    """An operator and all that decides its time, but for the device. Operators that are equal share a time.

    Attributes:
        kind: its name in TFLite's schema.
        sources: shapes of the activations that it reads, without the batch.
        output: shape that it writes.
        kernel: height and width; empty without a kernel.
        stride: of the kernel; 1 without one.
        activation: that is fused into it; `NONE` without one.
    """

    kind: str
    sources: tuple[Shape, ...]
    output: Shape
    kernel: tuple[int, ...] = ()
    stride: int = 1
    activation: str = "NONE"

    def __str__(self) -> str:
        """One line, from which `parse` reads it back."""
        sources = "+".join("x".join(map(str, shape)) for shape in self.sources)
        text = f"{self.kind} {sources} -> {'x'.join(map(str, self.output))}"
        if self.kernel:
            text += f" k{'x'.join(map(str, self.kernel))} s{self.stride}"
        return text if self.activation == "NONE" else f"{text} {self.activation}"

    @classmethod
    def parse(cls, text: str) -> OperatorShape:
        """Reads the text form.

        Raises:
            ValueError: when it is none.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not an operator such as 'ADD 7x7x96+7x7x96 -> 7x7x96', received {text[:80]!r}")
        sources = tuple(_shape(part) for part in match["sources"].split("+"))
        kernel = () if match["kernel"] is None else _shape(match["kernel"])
        return cls(
            match["kind"],
            sources,
            _shape(match["output"]),
            kernel,
            int(match["stride"] or 1),
            match["activation"] or "NONE",
        )

    @property
    def group(self) -> str:
        """Operators of one group are computed in the same way: `CONV_2D 1x1`, `DEPTHWISE_CONV_2D 5x5`, `ADD`."""
        return f"{self.kind} {'x'.join(map(str, self.kernel))}" if self.kernel else self.kind

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 without a kernel."""
        if not self.kernel:
            return 0
        summed = prod(self.kernel) if self.kind == _DEPTHWISE else prod(self.kernel) * self.sources[0][-1]
        return prod(self.output) * summed

    @property
    def activation_values(self) -> int:
        """Values read and written."""
        return sum(map(prod, self.sources)) + prod(self.output)

    @property
    def parameter_values(self) -> int:
        """Values of the kernel; 0 without one."""
        if not self.kernel:
            return 0
        return prod(self.kernel) * self.output[-1] * (1 if self.kind == _DEPTHWISE else self.sources[0][-1])


def _shape(text: str) -> Shape:
    return tuple(int(size) for size in text.split("x"))


def _operator_shape(operator: Operator) -> OperatorShape:
    sources = tuple(_without_batch(tensor) for tensor in operator.inputs if tensor.data is None)
    kernel: tuple[int, ...] = ()
    if operator.kernel_axes is not None:
        kernel, sources = tuple(operator.inputs[1].shape[1:3]), (_without_batch(operator.inputs[0]),)
    fields = {} if operator.options is None else operator.options[1]
    stride = int(fields.get("strideH", 1)) if kernel else 1
    return OperatorShape(operator.kind, sources, _without_batch(operator.output), kernel, stride, operator.activation)


def _without_batch(tensor: Tensor) -> Shape:
    """A vector is one without a batch: the converter has some added to tensors of 1x1 pixels."""
    return tensor.shape[1:] if len(tensor.shape) > 1 else tensor.shape


def operator_sequence(network: NetworkSpec) -> list[OperatorShape]:
    """The operators of a network's TFLite file, in the order of execution."""
    return [_operator_shape(operator) for operator in TFLiteGraph(network).operators]


@dataclass(frozen=True)
class Subject:
    """What is known of one candidate.

    Attributes:
        sequence: its operators, in the order of execution; None where there is no network.
        choices: chosen values by decision, of the decisions that are reached; None for a network of no space.
    """

    sequence: tuple[OperatorShape, ...] | None = None
    choices: Mapping[str, Extra] | None = None

    @cached_property
    def operators(self) -> Counter[OperatorShape] | None:
        """How often each operator occurs."""
        return None if self.sequence is None else Counter(self.sequence)

    @property
    def macs(self) -> float:
        """Multiply-accumulates; 0 without a network."""
        return float(sum(operator.macs for operator in self.sequence or ()))


def subject_of(candidate: Candidate, space: SearchSpace) -> Subject:
    """What a model is told of a candidate.

    Args:
        candidate: an architecture of `space`, or a network from outside.
        space: that is searched.
    """
    network = candidate.design.network
    sequence = None if network is None else tuple(operator_sequence(network))
    architecture = candidate.architecture
    return Subject(sequence, None if architecture is None else chosen_values(space, architecture))


def subject_of_architecture(space: SearchSpace, architecture: Architecture) -> Subject:
    """As `subject_of`, of an architecture of the space."""
    canonical = space.canonical(architecture)
    return subject_of(Candidate(space.build(canonical), canonical), space)


def chosen_values(space: SearchSpace, architecture: Architecture) -> dict[str, Extra]:
    """The value of each decision that is reached, also of those with a single choice."""
    active = space.active(architecture)
    return {
        decision.path: decision.choices[choice]
        for decision, choice, reached in zip(space.decisions, architecture.choices, active, strict=True)
        if reached
    }


@dataclass(frozen=True)
class Observation:
    """A latency that was measured, as a model is fitted to it.

    Attributes:
        subject: of what.
        latency_ms: in milliseconds.
        relative_error: its standard error, as a share of it: from its visits and its verdict.
    """

    subject: Subject
    latency_ms: float
    relative_error: float = 0.005

    @classmethod
    def of(cls, subject: Subject, answer: LatencyAnswer) -> Observation:
        """From an answer that is `ok`."""
        assert answer.latency_ms is not None
        return cls(subject, answer.latency_ms, relative_error(answer))


@lru_cache(maxsize=65536)
def parse_operator(text: str) -> OperatorShape:
    """As `OperatorShape.parse`; the same lines come again and again."""
    return OperatorShape.parse(text)
