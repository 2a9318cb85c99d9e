"""How long Coral's Edge TPU takes, as constants: all that `latency/roofline.py` knows of it.

Google publishes the peak rate, the memory and the links of the Edge TPU, and neither its clock at work nor how operators
are laid out on it. Those constants are *fitted* to what Google published of whole networks
(https://coral.ai/docs/edgetpu/benchmarks; nine networks, USB Accelerator and Dev Board), by
`python -m benchmarks.edgetpu_estimate`, which also leaves each network out in turn and compares what it finds with this
file. None was measured by this project, and none is of a single network.

| constant | what it is | where it is from |
|---|---|---|
| `array_side` | rows and columns of the array of multipliers | assumed: 64 x 64 at about 490 MHz is the published peak of 4 TOPS, as https://qengineering.eu/google-corals-tpu-explained.html works out |
| `peak_macs_per_ms` | 2e9: 4 TOPS, two operations each | vendor: Coral datasheets |
| `on_chip_bytes` | 8 MB, parameters and activations together | vendor: https://coral.ai/docs/edgetpu/compiler; that activations take from it, by compiler logs in google-coral/edgetpu#427 and #572 |
| `cycle_ns` | one pixel times one block of 64 x 64 weights | fit: 42% of the peak rate |
| `block_us` | reading a block of 64 x 64 weights into the array | fit |
| `depthwise_cycle_ns` | one pixel times one tap of 64 channels | fit |
| `operator_us` | what every operator costs on top | fit |
| `host_ms` | what every inference costs on top, also at the host | fit |
| `link_bytes_per_ms` | streaming parameters | fit: 98% and 80% of 500 MB/s, which 5 Gb/s (USB 3 Gen 1, PCIe Gen 2 x1: vendor) carry after 8b/10b coding |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nas_edge.hardware.edgetpu import EDGETPU

Link: TypeAlias = Literal["usb", "pcie"]


@dataclass(frozen=True)
class EdgeTpuTiming:
    """Constants of the estimate; the table above says where each is from.

    Attributes:
        cycle_ns: nanoseconds for one pixel and one block of `array_side` x `array_side` weights.
        block_us: microseconds to read such a block into the array.
        depthwise_cycle_ns: nanoseconds for one pixel and one tap of `array_side` channels of a depthwise convolution.
        operator_us: microseconds for every operator.
        host_ms: milliseconds for every inference.
        link_bytes_per_ms: how fast parameters are streamed, by link.
        array_side: rows and columns of the array.
        on_chip_bytes: memory for parameters and activations.
    """

    cycle_ns: float
    block_us: float
    depthwise_cycle_ns: float
    operator_us: float
    host_ms: float
    link_bytes_per_ms: Mapping[Link, float]
    array_side: int = 64
    on_chip_bytes: int = EDGETPU.on_chip_bytes or 0


EDGETPU_TIMING = EdgeTpuTiming(
    cycle_ns=4.86,
    block_us=0.84,
    depthwise_cycle_ns=1.30,
    operator_us=4.7,
    host_ms=0.27,
    link_bytes_per_ms={"usb": 492_000, "pcie": 403_000},
)
