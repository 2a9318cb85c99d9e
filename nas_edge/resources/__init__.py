"""What networks use, and a search may aim at or limit.

    latency_ms             as the latency source answers, see `latency.py`
    macs, parameters,
    peak_memory_bytes      computed from the network, see `network.py`

A new resource is one file, and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas_edge.resources.base import COMPUTED, MEASURED, Resource, ResourceUse, Used
from nas_edge.resources.latency import LATENCY
from nas_edge.resources.network import MACS, PARAMETERS, PEAK_MEMORY

RESOURCES: Mapping[str, Resource] = {
    "latency_ms": LATENCY,
    "macs": MACS,
    "parameters": PARAMETERS,
    "peak_memory_bytes": PEAK_MEMORY,
}

__all__ = ["COMPUTED", "MEASURED", "RESOURCES", "Resource", "ResourceUse", "Used"]
