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
from math import ceil

from nas_edge.hardware.edgetpu_timing import EdgeTpuTiming, Link
from nas_edge.networks.work import OperatorWork

_MOVES_NOTHING = frozenset({"RESHAPE", "CONCATENATION"})


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
