"""What the host of a device is asked about it, whether or not it can be measured: doctor, setup, clean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from device_agents.checks import Check
from device_agents.errors import DeviceError
from device_agents.farm.address import FarmAddress
from device_agents.farm.link import FarmLink
from device_agents.measuring_checks import failed
from device_agents.remote_frames import read_checks

# The longest is a runtime that is installed on a board.
_LIMIT_S = 1200.0


def set_up_at_host(address: FarmAddress, options: Mapping[str, str]) -> list[tuple[str, str]]:
    """Has the device's host make it ready; see `devices.set_up_device`."""
    with FarmLink() as link:
        link.open(address)
        rows = link.ask_for_list({"do": "setup", "options": dict(options)}, _LIMIT_S)
    return [(str(word), str(fact)) for word, fact in rows]


def clean_at_host(address: FarmAddress) -> list[str]:
    """Has the device's host remove what stays on the device or is kept about it there; see `devices.clean_device`."""
    with FarmLink() as link:
        link.open(address)
        return [f"{address.node}: {line}" for line in link.ask_for_list({"do": "clean"}, _LIMIT_S)]


def examine_at_host(address: FarmAddress) -> list[Check]:
    """Looks at the cluster, and has the device's host look at the device."""
    try:
        with FarmLink() as link:
            checks = [_check_cluster(link, address)]
            link.open(address)
            about = link.ask({"do": "about"}, (), _LIMIT_S).header
            checks += [_check_authentication(about), *_check_priority(about, address)]
            found = link.ask_for_list({"do": "doctor"}, _LIMIT_S)
    except DeviceError as error:
        return [failed("farm", error, f"run `nas-edge devices doctor '{address.device}'` at {address.node}")]
    return [*checks, *(_at_node(check, address) for check in read_checks(found))]


def _check_cluster(link: FarmLink, address: FarmAddress) -> Check:
    devices, facts = link.devices(address.head)
    used = sum(bool(device.user) for device in devices)
    found = f"Ray {facts.get('ray')}, {facts.get('nodes')} nodes, {len(devices)} devices, {used} of them in use"
    return Check("farm", "pass", found)


def _check_authentication(about: Mapping[str, Any]) -> Check:
    if about.get("authentication") == "token":
        return Check("authentication", "pass", "by token")
    return Check(
        "authentication",
        "warn",
        "none: whoever reaches a port of Ray can run code on every host of the farm",
        "stop Ray on all hosts and start it with RAY_AUTH_MODE=token, see docs/farm.md",
    )


def _check_priority(about: Mapping[str, Any], address: FarmAddress) -> list[Check]:
    niceness = about.get("niceness")
    if not isinstance(niceness, int) or niceness <= 0:
        return []
    found = f"Ray runs what measures at nice {niceness}, so all other programs of {address.node} come first"
    return [Check("priority", "warn", found, "set RAY_worker_niceness=0 there before `ray start`")]


def _at_node(check: Check, address: FarmAddress) -> Check:
    return replace(check, fix=f"at {address.node}: {check.fix}") if check.fix else check
