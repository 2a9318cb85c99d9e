"""Memory on the device: growth of a process while it loads and runs the network, weights and runtime included.

Measured with the latency, see `Measurement.peak_memory_bytes`. The resource `peak_memory_bytes` is another one: it is
computed, and of activations only. Memory comes in pages, so growth of less than one page counts as one.
"""

from __future__ import annotations

from device_agents.api import Measurement
from nas_edge.resources.base import MEASURED, Resource, ResourceUse, Used, measured_use

_PAGE_BYTES = 4096


def _read(measurement: Measurement) -> ResourceUse:
    if measurement.peak_memory_bytes is None:
        return ResourceUse(None, MEASURED, "the device does not report the memory of a process")
    return ResourceUse(float(max(_PAGE_BYTES, measurement.peak_memory_bytes)), MEASURED, "growth of resident memory")


def _use(used: Used) -> ResourceUse:
    return measured_use(used, _read)


RESIDENT_MEMORY = Resource(
    "growth of resident memory while the network is loaded and run", "bytes", _use, with_latency=True, measured=True
)
