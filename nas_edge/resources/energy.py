"""Energy of one inference, where the device tells it: battery current on phones, RAPL on hosts.

It is that of the whole phone, or of the CPU's packages, see `Measurement.energy_mj`. Never guessed: where the device
does not tell it, it is not available, and why. A simulator of accelerators tells it, too, and then it is simulated.
"""

from __future__ import annotations

from device_agents.api import Measurement
from nas_edge.resources.base import MEASURED, Resource, ResourceUse, Used, measured_use, simulated_use


def _read(measurement: Measurement) -> ResourceUse:
    # Counters have steps; what is below the smallest of them is not known.
    known = measurement.energy_mj if measurement.energy_mj else None
    return ResourceUse(known, MEASURED, measurement.energy_note or "it was not asked for (device.energy)")


def _use(used: Used) -> ResourceUse:
    simulated = simulated_use("energy_mj")(used)
    return measured_use(used, _read) if simulated.value is None else simulated


ENERGY = Resource(
    "energy of one inference", "mJ", _use, with_latency=True, measured=True, device_settings={"energy": True}
)
