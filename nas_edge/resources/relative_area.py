"""Area of the accelerator that a design names beside its network, as a share of the baseline's; simulated."""

from __future__ import annotations

from nas_edge.resources.base import Resource, simulated_use

RELATIVE_AREA = Resource(
    "area of an accelerator, of which the baseline's is 1",
    "",
    simulated_use("relative_area"),
    with_latency=True,
    of_networks=False,
)
