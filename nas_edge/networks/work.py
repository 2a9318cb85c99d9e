"""The work of a network's operators, on which analytic latency models are based."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from nas_edge.networks.graph import NetworkSpec, Shape
from nas_edge.networks.tflite_graph import Operator, Tensor, TFLiteGraph

_BIAS_BYTES = 4


@dataclass(frozen=True)
class OperatorWork:
    """The work of an int8 operator.

    Attributes:
        kind: its name in TFLite's schema.
        activation_bytes: read and written.
        parameter_bytes: of kernel and bias.
        pixels: number of positions of the kernel; 0 without one.
        summed: number of products per output value; for a depthwise convolution, the taps of its kernel.
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
