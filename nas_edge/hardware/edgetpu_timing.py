"""How long Coral's Edge TPU takes, as constants: all that `latency/roofline.py` knows of it.

Google publishes the peak rate, the memory and the links of the Edge TPU, and neither its clock at work nor how
operators are laid out on it. So a constant is of one of three kinds:

vendor    published by Google:
          - 4 TOPS, two operations to a multiply-accumulate, so 2e9 of them in a millisecond at the most: datasheets
          - `on_chip_bytes`: 8 MB for parameters and activations together (https://coral.ai/docs/edgetpu/compiler).
            That activations take their part is seen in logs of the compiler: google-coral/edgetpu#427, #572
          - 5 Gb/s: USB 3.1 Gen 1 and PCIe Gen 2 x1 (datasheets), which is 500 MB/s after 8b/10b coding. No link that
            is fitted may be faster
assumed   `array_side`: 64 x 64 multipliers at about 490 MHz make 4 TOPS, as is worked out at
          https://qengineering.eu/google-corals-tpu-explained.html
fitted    the rest, to the latencies that Google published of nine networks, each on a USB Accelerator and on a Dev
          Board (https://coral.ai/docs/edgetpu/benchmarks), by `python -m benchmarks.edgetpu_estimate`, which also
          leaves each network out in turn and compares this file with its fit. The array comes out at 43% of the
          vendor's peak rate, USB at all of its 500 MB/s (the bound), PCIe at 81%

None was measured by this project, and none is of a single network. What an operator and an inference cost on top is
known poorly: without one of the networks the fit gives other values for them.
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
    cycle_ns=4.71,
    block_us=0.836,
    depthwise_cycle_ns=1.27,
    operator_us=4.94,
    host_ms=0.275,
    link_bytes_per_ms={"usb": 500_000, "pcie": 403_000},
)
