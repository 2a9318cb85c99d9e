"""`nas-edge devices doctor`: whether a device is fit to be measured, point by point, with the fix."""

from __future__ import annotations

from collections.abc import Sequence

from device_agents.checks import Check
from device_agents.devices import scheme_of
from device_agents.errors import DeviceError
from device_agents.measuring_checks import check_measuring, failed


def examine(address: str) -> Sequence[Check]:
    """Looks at a device and measures a small model on it twice, which may take minutes.

    Raises:
        DeviceAddressError: If the address is malformed or unknown.
    """
    scheme, rest = scheme_of(address)
    if scheme.doctor is not None:
        return scheme.doctor(rest)
    try:
        with scheme.open(rest) as agent:
            info = agent.info()
            found = f"{info.model}, {info.os}, {info.cores} cores, {info.runtime} {info.runtime_version}"
            return [Check("device", "pass", found), *check_measuring(agent)]
    except DeviceError as error:
        return [failed("device", error)]
