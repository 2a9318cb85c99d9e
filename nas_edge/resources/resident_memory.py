"""Memory on the device: by how much a process grows while it loads and runs the network, weights and runtime included.

Measured with the latency, see `Measurement.peak_memory_bytes`; `peak_memory_bytes` is computed, of activations alone.
Memory comes in pages, so what grows by less than one is said to take one.
"""

from __future__ import annotations

from device_agents.api import Measurement
from nas_edge.resources.base import MEASURED, Resource, ResourceUse, Used, measured_use

_PAGE_BYTES = 4096


def _read(measurement: Measurement) -> ResourceUse:
    if measurement.peak_memory_bytes is None:
        return ResourceUse(None, MEASURED, "the device does not tell how much memory a process takes")
    return ResourceUse(float(max(_PAGE_BYTES, measurement.peak_memory_bytes)), MEASURED, "growth of resident memory")


def _use(used: Used) -> ResourceUse:
    return measured_use(used, _read)


RESIDENT_MEMORY = Resource(
    "growth of resident memory while the network is loaded and run", "bytes", _use, with_latency=True, measured=True
)
