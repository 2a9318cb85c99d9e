"""This machine: measured by a warm worker process that is replaced when it dies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from device_agents.api import DeviceAgent, DeviceInfo
from device_agents.errors import DeviceError
from device_agents.floors import forget_floors
from device_agents.results import read_device_info
from device_agents.scheme import DeviceRow, Scheme
from device_agents.worker.runtime import find_runtime
from device_agents.worker.system import allowed_cores, cpu_capacities, describe
from device_agents.worker_agent import WorkerAgent, cores_of_kind
from device_agents.worker_process import start_local_worker


class HostAgent(WorkerAgent):
    """Measures on this machine."""

    def __init__(self) -> None:
        super().__init__(start_local_worker, host_info())

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return cores_of_kind(kind, cpu_capacities(allowed_cores() or ()), "This machine")


def host_info() -> DeviceInfo:
    """Returns what this machine is, without starting a worker.

    Raises:
        DeviceUnavailableError: If no TFLite runtime is installed.
    """
    runtime, version = find_runtime()
    hello: dict[str, Any] = {"runtime": runtime, "runtime_version": version, "device": describe()}
    return replace(read_device_info(hello, "host:", "host"), measures_on_host=True)


def pick_cores(threads: int) -> tuple[int, ...] | None:
    """Returns CPU ids to measure on that leave at least one core for everything else.

    Args:
        threads: Threads the models will run with.

    Returns:
        The last `threads` usable cores (interrupts and other programs tend to the first
        ones), or None if there are too few cores or the system cannot pin.
    """
    usable = allowed_cores()
    if usable is None or len(usable) <= threads:
        return None
    return usable[-threads:]


def _list() -> Sequence[DeviceRow]:
    try:
        info = host_info()
    except DeviceError as error:
        return [DeviceRow("host:", "host", "", "unavailable", str(error))]
    detail = f"{info.cores} cores, {info.soc}, {info.runtime} {info.runtime_version}"
    return [DeviceRow(info.address, info.kind, info.model, "ready", detail)]


def _clean(_: str) -> Sequence[str]:
    return forget_floors(host_info())


def _open(_: str) -> DeviceAgent:
    return HostAgent()


SCHEMES = (
    Scheme(
        name="host",
        form="host:",
        what="this machine",
        open=_open,
        problem=lambda rest: "nothing may follow 'host:'" if rest else "",
        list=_list,
        clean=_clean,
        packages={"ai_edge_litert": "ai-edge-litert ~= 2.3.0"},
    ),
)
