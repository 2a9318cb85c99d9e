"""An analytic simulator: latency, area and energy of networks on accelerators that do not exist.

    symbol     meaning
    X, Y       processing elements along x and y        S, L   SIMD units per lane, lanes per processing element
    M, R, B    local memory, register files, bandwidth of the I/O, of the whole accelerator
    P, K, C    of an operator: output pixels, values summed for each output, output channels
    w, W       bytes of the kernel: of the operator, of the network

    cycles of a convolution = min of two mappings, co * px being X*L * Y*S or X*S * Y*L,
                              of ceil(C / co) * ceil(P / px) * ceil(K / 4)
    cycles of a depthwise one = ceil(C / (X*S)) * ceil(P / Y) * K      no channels to sum over, so one lane has work
    times, if the register files are too small: 1 + 0.05 * (clip(w / R, 1, 4) - 1)
    bytes from memory = w * max(0, 1 - 0.75 * M / W) + max(0, activations in and out - M / 4)
    time = sum over operators of max(cycles / 0.8 GHz, bytes / B) + 1 us
    energy = 1 pJ per multiply-accumulate + 6 pJ per byte of kernels and activations + 150 pJ per byte from memory

Only operators with a kernel are counted. The form is the project's, in the spirit of the simulators behind NAHAS
(arXiv:2102.08619, patent US20240005129A1); its constants are plausible, the energies are placeholders. It ranks
designs; its milliseconds are not those of any device unless `calibration.py` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_edge.accelerators.space import MACS_PER_UNIT, Accelerators, FloatArray
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.work import OperatorWork, network_work

# Incremented with every change of a figure, after which no run is continued.
VERSION = 1

_CLOCK_HZ = 0.8e9
_OPERATOR_S = 1e-6
_MAC_PJ, _LOCAL_PJ, _MEMORY_PJ = 1.0, 6.0, 150.0


@dataclass(frozen=True)
class Simulated:
    """Latency, area and energy of a network on several accelerators.

    Attributes:
        latency_ms: of one inference `[n]`.
        area: relative to the baseline's `[n]`; the same for any network.
        energy_mj: of one inference `[n]`, millijoules.
    """

    latency_ms: FloatArray
    area: FloatArray
    energy_mj: FloatArray

    @property
    def other_usage(self) -> dict[str, FloatArray]:
        """Resources other than time by name, see `nas_edge.resources`."""
        return {"relative_area": self.area, "energy_mj": self.energy_mj}


def simulate(network: NetworkSpec, on: Accelerators) -> Simulated:
    """Simulates a network, as in its int8 TFLite file, on each accelerator."""
    return simulate_work(network_work(network), on)


def simulate_work(works: Sequence[OperatorWork], on: Accelerators) -> Simulated:
    """As `simulate`, given the operators of a network."""
    works = [work for work in works if work.channels]
    kernel_bytes = [work.summed * work.channels for work in works]
    missing = np.maximum(0.0, 1.0 - 0.75 * on.memory_bytes / max(1, sum(kernel_bytes)))
    registers, on_chip = on.register_bytes, on.memory_bytes / 4
    seconds, moved = np.zeros(len(on)), np.zeros(len(on))
    for work, size in zip(works, kernel_bytes, strict=True):
        cycles = _cycles(work, on) * (1.0 + 0.05 * (np.clip(size / registers, 1.0, 4.0) - 1.0))
        bytes_ = size * missing + np.maximum(0.0, work.activation_bytes - on_chip)
        seconds += np.maximum(cycles / _CLOCK_HZ, bytes_ * 8 / (on.io_gbps * 1e9)) + _OPERATOR_S
        moved += bytes_
    local_bytes = sum(work.activation_bytes for work in works) + sum(kernel_bytes)
    macs = sum(work.macs for work in works)
    energy_pj = _MAC_PJ * macs + _LOCAL_PJ * local_bytes + _MEMORY_PJ * moved
    return Simulated(seconds * 1e3, on.area, energy_pj / 1e9)


def _cycles(work: OperatorWork, on: Accelerators) -> FloatArray:
    if work.kind == "DEPTHWISE_CONV_2D":
        return _ceil(work.channels, on.pes_x * on.simd_units) * _ceil(work.pixels, on.pes_y) * work.summed
    rounds = -(-work.summed // MACS_PER_UNIT)
    mappings = (
        (on.pes_x * on.lanes, on.pes_y * on.simd_units),
        (on.pes_x * on.simd_units, on.pes_y * on.lanes),
    )
    tiles = [_ceil(work.channels, channels) * _ceil(work.pixels, pixels) for channels, pixels in mappings]
    return np.minimum(*tiles) * rounds


def _ceil(value: int, by: NDArray[np.float64]) -> FloatArray:
    return np.ceil(value / by)
