"""Resources that networks use and that a search may aim at or limit.

    latency_ms             from the latency source, see `latency.py`
    macs, parameters,
    peak_memory_bytes      computed from the network, see `network.py`
    file_size_bytes        of the TFLite file, see `file_size.py`
    resident_memory_bytes  measured on the device, see `resident_memory.py`
    energy_mj              measured on the device, where it reports energy, or simulated, see `energy.py`
    relative_area          of an accelerator searched jointly, simulated, see `relative_area.py`

A new resource is one file, and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas_edge.resources.base import COMPUTED, MEASURED, Resource, ResourceUse, Used, most_used
from nas_edge.resources.energy import ENERGY
from nas_edge.resources.file_size import FILE_SIZE
from nas_edge.resources.latency import LATENCY
from nas_edge.resources.network import MACS, PARAMETERS, PEAK_MEMORY
from nas_edge.resources.relative_area import RELATIVE_AREA
from nas_edge.resources.resident_memory import RESIDENT_MEMORY

RESOURCES: Mapping[str, Resource] = {
    "latency_ms": LATENCY,
    "macs": MACS,
    "parameters": PARAMETERS,
    "peak_memory_bytes": PEAK_MEMORY,
    "file_size_bytes": FILE_SIZE,
    "resident_memory_bytes": RESIDENT_MEMORY,
    "energy_mj": ENERGY,
    "relative_area": RELATIVE_AREA,
}


def check_resource(name: str) -> None:
    """Raises ValueError unless there is a resource of that name."""
    if name not in RESOURCES:
        raise ValueError(f"expected one of the resources {', '.join(RESOURCES)}, received {name!r:.80}")


def other_uses(used: Used) -> dict[str, ResourceUse]:
    """What a network uses on a device of every resource except time, which is in its measurement."""
    return {
        name: resource.use(used)
        for name, resource in RESOURCES.items()
        if resource is not LATENCY and resource.of_networks
    }


__all__ = [
    "COMPUTED",
    "LATENCY",
    "MEASURED",
    "RESOURCES",
    "Resource",
    "ResourceUse",
    "Used",
    "check_resource",
    "most_used",
    "other_uses",
]
