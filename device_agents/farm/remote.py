"""Devices at the hosts of a farm: `RemoteAgent` over the driver, and what else is asked of their hosts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping

from device_agents.checks import Check
from device_agents.errors import DeviceError
from device_agents.farm.address import FarmAddress
from device_agents.measuring_checks import failed
from device_agents.remote_agent import RemoteAgent, RemoteProgram, clean_remote, connected
from device_agents.remote_frames import read_checks, read_rows
from device_agents.scheme import DeviceRow
from device_agents.worker_process import PACKAGE_ROOT, ProcessChannel


def start_driver(address: FarmAddress) -> ProcessChannel:
    """Starts a driver for a device.

    Raises:
        DeviceUnavailableError: If it cannot be started.
    """
    command = [sys.executable, "-m", "device_agents.farm.driver", address.head, address.node, address.device]
    return ProcessChannel(command, PACKAGE_ROOT)


def open_farm(address: FarmAddress) -> RemoteAgent:
    """Returns the agent of a device of a farm, once its host has opened it.

    Raises:
        DeviceError: If the farm cannot be reached, or its device not opened.
    """
    return connected(_agent(address))


def list_farm() -> list[DeviceRow]:
    """Returns what the hosts of the cluster offer that this machine has joined."""
    with _serving(FarmAddress("", "")) as program:
        return read_rows(program.ask("offers").header.get("rows"))


def examine_at_host(address: FarmAddress) -> list[Check]:
    """Looks at the cluster, and has the device's host look at the device."""
    checks: list[Check] = []
    try:
        with _serving(address) as program:
            checks += read_checks(program.ask("farm").header.get("checks"))
            return [*checks, *program.checks()]
    except DeviceError as error:
        fix = f"run `nas-edge devices doctor '{address.device}'` at {address.node}"
        return [*checks, failed("device" if checks else "farm", error, fix)]


def set_up_at_host(address: FarmAddress, options: Mapping[str, str]) -> list[tuple[str, str]]:
    """Has the device's host make it ready; see `devices.set_up_device`."""
    with _serving(address) as program:
        return program.set_up(options)


def clean_at_host(address: FarmAddress) -> list[str]:
    """Has the device's host remove what stays on it, and forgets what is kept of it here; a line for each."""
    return clean_remote(lambda: _serving(address), _agent(address))


def _agent(address: FarmAddress) -> RemoteAgent:
    return RemoteAgent(lambda: start_driver(address), address)


@contextlib.contextmanager
def _serving(address: FarmAddress) -> Iterator[RemoteProgram]:
    with contextlib.closing(RemoteProgram(start_driver(address), address)) as program:
        yield program
