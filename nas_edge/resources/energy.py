"""Energy of one inference, where the device reports it: battery current on phones, RAPL on hosts.

It covers the whole phone, or all CPU packages, see `Measurement.energy_mj`. It is never guessed: where the device does
not report it, it is not available, with the reason. The simulator of accelerators gives it, too, as simulated.
"""

from __future__ import annotations

from device_agents.api import Measurement
from nas_edge.resources.base import MEASURED, Resource, ResourceUse, Used, measured_use, simulated_use


def _read(measurement: Measurement) -> ResourceUse:
    # Counters have a resolution; an energy of 0 was below it.
    known = measurement.energy_mj if measurement.energy_mj else None
    return ResourceUse(known, MEASURED, measurement.energy_note or "it was not requested (device.energy)")


def _use(used: Used) -> ResourceUse:
    simulated = simulated_use("energy_mj")(used)
    return measured_use(used, _read) if simulated.value is None else simulated


ENERGY = Resource(
    "energy of one inference", "mJ", _use, with_latency=True, measured=True, device_settings={"energy": True}
)
