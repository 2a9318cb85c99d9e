"""Area of the accelerator that a design specifies beside its network, relative to the baseline's; simulated."""

from __future__ import annotations

from nas_edge.resources.base import Resource, simulated_use

RELATIVE_AREA = Resource(
    "area of the accelerator, relative to the baseline's",
    "",
    simulated_use("relative_area"),
    with_latency=True,
    of_networks=False,
)
