"""The parameters of an accelerator: processing elements of lanes of SIMD units, their memories, and the I/O.

Source: NAHAS, patent US20240005129A1, arXiv:2102.08619, whose space has 50,000 accelerators. The values of each
parameter are UNVERIFIED: they were written down from memory and not compared with the paper. Two checks hold: they make
50,000 combinations, and the baseline's 16,384 multiply-accumulates per cycle at 0.8 GHz are the 26 TOPS of the paper.
The baseline's bandwidth is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from nas_edge.errors import SpaceError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """One parameter of an accelerator.

    Attributes:
        values: its choices, ascending.
        baseline: its value in the accelerator that others are compared with.
    """

    values: tuple[int, ...] | tuple[float, ...]
    baseline: int | float


PARAMETERS: Mapping[str, Parameter] = {
    "pes_x": Parameter((1, 2, 4, 6, 8), 4),
    "pes_y": Parameter((1, 2, 4, 6, 8), 4),
    "simd_units": Parameter((16, 32, 64, 128), 64),  # per lane, each of four multiply-accumulates
    "lanes": Parameter((1, 2, 4, 8), 4),  # per processing element
    "local_memory_mb": Parameter((0.5, 1.0, 2.0, 3.0, 4.0), 2.0),  # per processing element, MiB
    "register_file_kb": Parameter((8, 16, 32, 64, 128), 32),  # per lane, KiB
    "io_gbps": Parameter((5, 10, 15, 20, 25), 20),
}

MACS_PER_UNIT = 4


@dataclass(frozen=True)
class Accelerators:
    """Several accelerators: arrays `[n]`, one value per accelerator, with names and units of `PARAMETERS`."""

    pes_x: FloatArray
    pes_y: FloatArray
    simd_units: FloatArray
    lanes: FloatArray
    local_memory_mb: FloatArray
    register_file_kb: FloatArray
    io_gbps: FloatArray

    def __len__(self) -> int:
        return len(self.pes_x)

    @property
    def pes(self) -> FloatArray:
        """Processing elements `[n]`."""
        return self.pes_x * self.pes_y

    @property
    def macs_per_cycle(self) -> FloatArray:
        """Multiply-accumulates `[n]`."""
        return self.pes * self.lanes * self.simd_units * MACS_PER_UNIT

    @property
    def memory_bytes(self) -> FloatArray:
        """Local memory of all processing elements `[n]`."""
        return self.pes * self.local_memory_mb * 2**20

    @property
    def register_bytes(self) -> FloatArray:
        """Register files of all lanes `[n]`."""
        return self.pes * self.lanes * self.register_file_kb * 2**10

    @property
    def area(self) -> FloatArray:
        """Area relative to the baseline's `[n]`.

        Rounded to far less than any difference between two accelerators, so that an area equal to the baseline's is 1.
        """
        return np.round(
            0.40 * self.macs_per_cycle / 16_384
            + 0.33 * self.pes * self.local_memory_mb / 32
            + 0.12 * self.pes * self.lanes * self.register_file_kb / 2_048
            + 0.10 * self.io_gbps / 20
            + 0.05 * self.pes / 16,
            12,
        )


def accelerators(values: Sequence[Mapping[str, int | float | str]]) -> Accelerators:
    """Accelerators from the values of their parameters.

    Raises:
        SpaceError: when a parameter is missing, or its value is not a positive number.
    """
    columns: dict[str, FloatArray] = {}
    for name in PARAMETERS:
        column = [one.get(name) for one in values]
        for value in column:
            if isinstance(value, str) or value is None or not value > 0:
                raise SpaceError(f"an accelerator needs a positive {name}", received=f"{value!r}")
        columns[name] = np.array(column, np.float64)
    return Accelerators(**columns)


def baseline() -> dict[str, int | float]:
    """The values of the accelerator that others are compared with."""
    return {name: parameter.baseline for name, parameter in PARAMETERS.items()}


def choices_of(position: int) -> tuple[int, ...]:
    """The index of each parameter's choice, in the order of `PARAMETERS`, for a position in `all_accelerators`."""
    return tuple(int(index) for index in np.unravel_index(position, _sizes()))


@cache
def all_accelerators() -> Accelerators:
    """Every accelerator of the space, the last parameter changing fastest."""
    grid = np.meshgrid(*(np.array(p.values, np.float64) for p in PARAMETERS.values()), indexing="ij")
    return Accelerators(**dict(zip(PARAMETERS, (axis.ravel() for axis in grid), strict=True)))


def count() -> int:
    """How many accelerators there are."""
    return prod(_sizes())


def _sizes() -> tuple[int, ...]:
    return tuple(len(parameter.values) for parameter in PARAMETERS.values())
