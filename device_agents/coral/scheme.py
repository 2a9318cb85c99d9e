"""The scheme of Edge TPUs at this machine: `coral:`, `coral:usb`, `coral:usb:0`, `coral:pci:0`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from device_agents.api import DeviceAgent, DeviceInfo
from device_agents.checks import Check
from device_agents.scheme import DeviceRow, Scheme
from device_agents.worker.edgetpu import pci_devices, usb_devices

_FORMS = ("usb", "usb:0", "pci", "pci:0")


def _open(rest: str) -> DeviceAgent:
    from device_agents.compiling import CompilingAgent
    from device_agents.edgetpu.accelerator import EdgeTpuAccelerator
    from device_agents.edgetpu.compiler import EdgeTpuCompiler
    from device_agents.worker_agent import WorkerAgent
    from device_agents.worker_process import start_local_worker

    accelerator = EdgeTpuAccelerator(rest)
    start = functools.partial(start_local_worker, accelerator.arguments)
    agent = WorkerAgent(start, functools.partial(_read_info, f"coral:{rest}"), accelerator)
    return CompilingAgent(agent, EdgeTpuCompiler())


def _read_info(address: str, hello: Mapping[str, Any]) -> DeviceInfo:
    from device_agents.results import read_device_info

    # What trains here takes the CPU and the USB bus that the Edge TPU is fed by.
    return replace(read_device_info(hello, address, "coral"), measures_on_host=True)


def _problem(rest: str) -> str:
    from device_agents.edgetpu.accelerator import DEVICE

    return (
        "" if DEVICE.fullmatch(rest) else "'usb', 'pci' or nothing must follow 'coral:', then perhaps ':' and a number"
    )


def _list() -> Sequence[DeviceRow]:
    rows = []
    for kind, found in (("usb", usb_devices()), ("pci", pci_devices())):
        for number, one in enumerate(found):
            ready, speed = bool(one["may_open"]), int(one["speed_mbps"])
            detail = f"{speed} Mbit/s" if speed else ""
            fix = "" if ready else f"nas-edge devices doctor coral:{kind}:{number}"
            state = "ready" if ready else "no permission"
            rows.append(DeviceRow(f"coral:{kind}:{number}", "coral", "Coral Edge TPU", state, detail, fix))
    return rows


def _doctor(rest: str) -> Sequence[Check]:
    from device_agents.coral.doctor import examine_coral

    return examine_coral(rest, _open)


def _clean(_: str) -> Sequence[str]:
    from device_agents.edgetpu.compiler import clean_cache

    return clean_cache()


SCHEMES = (
    Scheme(
        name="coral",
        form="coral:[usb|pci][:N]",
        what="a Coral Edge TPU at this machine",
        open=_open,
        problem=_problem,
        list=_list,
        doctor=_doctor,
        complete=lambda rest: _FORMS,
        clean=_clean,
        packages={"ai_edge_litert": "ai-edge-litert"},
    ),
)
