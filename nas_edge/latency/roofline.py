"""A roofline of the Edge TPU: from the operators of a network to milliseconds, without the device.

Each operator takes what is longer, computing or getting the parameters that it has not got:

    T(network) = host + sum over operators of max(compute, streamed parameters / link)

    compute(convolution)  = pixels * blocks * cycle + blocks * block + operator
    compute(depthwise)    = pixels * taps * ceil(channels / 64) * depthwise cycle + operator
    compute(another)      = operator

    pixels    where the kernel is applied: of the output, of a transposed convolution those of the input
    blocks    ceil(summed values / 64) * ceil(output channels / 64): a kernel, cut up to fit the array

The activations of the operator that needs most take their part of the on-chip memory. In the rest, parameters are kept
between inferences, in the order of execution, as far as they go; what does not fit is streamed in every inference,
while the array computes. Reshapes and concatenations move nothing.

This orders networks, and tells small from large. It knows nothing of the host's processor, of the compiler's tiling,
nor of elementwise work on large activations; `python -m benchmarks.edgetpu_estimate` says how far off it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, prod

from nas_edge.hardware.edgetpu_timing import EdgeTpuTiming, Link
from nas_edge.networks.graph import NetworkSpec, Shape
from nas_edge.networks.tflite_graph import Operator, Tensor, TFLiteGraph

_BIAS_BYTES = 4
_MOVES_NOTHING = frozenset({"RESHAPE", "CONCATENATION"})


@dataclass(frozen=True)
class OperatorWork:
    """What an int8 operator asks of the hardware.

    Attributes:
        kind: its name in TFLite's schema.
        activation_bytes: what it reads and writes.
        parameter_bytes: kernel and bias.
        pixels: where the kernel is applied; 0 without one.
        summed: values that make an output; of a depthwise convolution the taps of its kernel.
        channels: of the output.
    """

    kind: str
    activation_bytes: int
    parameter_bytes: int = 0
    pixels: int = 0
    summed: int = 0
    channels: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.pixels * self.summed * self.channels


@dataclass(frozen=True)
class RooflineEstimate:
    """What came out.

    Attributes:
        latency_ms: of one inference.
        on_chip_bytes: parameters that stay on the chip.
        streamed_bytes: parameters that travel in every inference.
    """

    latency_ms: float
    on_chip_bytes: int
    streamed_bytes: int


def kernel_work(kind: str, source: Shape, kernel: Shape, output: Shape) -> OperatorWork:
    """The work of an operator with a kernel and a bias.

    Args:
        kind: its name in TFLite's schema.
        source: shape that it reads, `[height, width, channels]`.
        kernel: `[out, height, width, in]`, of a depthwise convolution `[1, height, width, channels]`, as TFLite has it.
        output: shape that it writes.
    """
    channels = kernel[-1] if kind == "DEPTHWISE_CONV_2D" else kernel[0]
    applied = source if kind == "TRANSPOSE_CONV" else output
    return OperatorWork(
        kind,
        activation_bytes=prod(source) + prod(output),
        parameter_bytes=prod(kernel) + _BIAS_BYTES * channels,
        pixels=prod(applied[:-1]),
        summed=prod(kernel) // channels,
        channels=channels,
    )


def network_work(spec: NetworkSpec) -> list[OperatorWork]:
    """The work of a network's operators, as they are in its TFLite file, in the order of execution."""
    return [_operator_work(operator) for operator in TFLiteGraph(spec).operators]


def _operator_work(operator: Operator) -> OperatorWork:
    if operator.kernel_axes is not None:
        source, kernel, _ = operator.inputs
        return kernel_work(operator.kind, source.shape[1:], kernel.shape, operator.output.shape[1:])
    activations = [tensor for tensor in operator.inputs if tensor.data is None]
    return OperatorWork(operator.kind, sum(_values(tensor) for tensor in (*activations, operator.output)))


def _values(tensor: Tensor) -> int:
    return prod(tensor.shape)


def estimate(works: Sequence[OperatorWork], timing: EdgeTpuTiming, link: Link) -> RooflineEstimate:
    """How long an inference takes; see the top of this file.

    Args:
        works: the operators, in the order of execution.
        timing: of the hardware.
        link: over which parameters are streamed.
    """
    streamed = list(_streamed(works, timing))
    times_ms = (
        max(_compute_ms(work, timing), missing / timing.link_bytes_per_ms[link])
        for work, missing in zip(works, streamed, strict=True)
    )
    total = sum(work.parameter_bytes for work in works)
    return RooflineEstimate(timing.host_ms + sum(times_ms), total - sum(streamed), sum(streamed))


def _streamed(works: Sequence[OperatorWork], timing: EdgeTpuTiming) -> Iterable[int]:
    """Bytes of each operator's parameters that find no room on the chip."""
    room = max(0, timing.on_chip_bytes - max((work.activation_bytes for work in works), default=0))
    for work in works:
        kept = min(work.parameter_bytes, room)
        room -= kept
        yield work.parameter_bytes - kept


def _compute_ms(work: OperatorWork, timing: EdgeTpuTiming) -> float:
    if work.kind in _MOVES_NOTHING:
        return 0.0
    columns = ceil(work.channels / timing.array_side)
    if work.kind == "DEPTHWISE_CONV_2D":
        array_ns = work.pixels * work.summed * columns * timing.depthwise_cycle_ns
    else:
        blocks = ceil(work.summed / timing.array_side) * columns
        array_ns = blocks * (work.pixels * timing.cycle_ns + timing.block_us * 1e3)
    return array_ns / 1e6 + timing.operator_us / 1e3
