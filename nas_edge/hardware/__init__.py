"""What kinds of hardware can run: to check a search space before a search, and a file before it is delivered.

A new kind is one file with its `Hardware`, and one line here. The word *target* stays for latencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from nas_edge.errors import ConfigError
from nas_edge.hardware.cpu import CPU
from nas_edge.hardware.edgetpu import EDGETPU
from nas_edge.hardware.gpu import GPU
from nas_edge.hardware.nnapi import NNAPI
from nas_edge.hardware.profile import Hardware

HARDWARE: Mapping[str, Hardware] = {hardware.name: hardware for hardware in (CPU, GPU, EDGETPU, NNAPI)}


def find_hardware(name: str) -> Hardware:
    """The profile of that name.

    Raises:
        ConfigError: when there is none.
    """
    if name not in HARDWARE:
        near = get_close_matches(name, HARDWARE, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        raise ConfigError(f"unknown hardware {name!r}{meant} supported: {', '.join(HARDWARE)}")
    return HARDWARE[name]


__all__ = ["HARDWARE", "Hardware", "find_hardware"]
