"""Whether an Edge TPU at this machine is fit to be measured, point by point, with the fix."""

from __future__ import annotations

from collections.abc import Callable

from device_agents.api import DeviceAgent
from device_agents.checks import Check
from device_agents.edgetpu.accelerator import EdgeTpuAccelerator, describe_device, is_usb2
from device_agents.edgetpu.compiler import cache_folder
from device_agents.edgetpu.program import HOW_TO_GET, find_program
from device_agents.errors import DeviceError
from device_agents.measuring_checks import failed
from device_agents.wording import what_happened
from device_agents.worker_link import WorkerLink
from device_agents.worker_process import start_local_worker


def examine_coral(device: str, open_: Callable[[str], DeviceAgent]) -> list[Check]:
    """Looks at an Edge TPU, its library and its compiler.

    Args:
        device: What follows `coral:` in its address.
        open_: Opens such an address.
    """
    accelerator = EdgeTpuAccelerator(device)
    try:
        worker = WorkerLink(start_local_worker(accelerator.arguments))
        try:
            accelerator.attach(worker)
        finally:
            worker.close()
    except DeviceError as error:
        return [failed("edge tpu", error), check_compiler()]
    facts = accelerator.facts
    assert facts is not None
    checks = [Check("edge tpu", "pass", f"{describe_device(facts, device)}; {facts.library} {facts.version}".rstrip())]
    chosen = facts.chosen(device)
    if chosen is not None and is_usb2(chosen):
        fix = "use a USB 3 port, and the cable that came with it"
        checks.append(
            Check("port", "warn", f"USB 2 ({chosen.speed_mbps} Mbit/s): images and parameters travel slowly", fix)
        )
    if facts.max_clock:
        found = "libedgetpu1-max: the maximum clock, at which the device becomes hot and may slow down"
        checks.append(Check("clock", "warn", found, "install libedgetpu1-std, unless the product has the same clock"))
    try:
        with open_(device) as agent:
            info = agent.info()
            checks.append(
                Check("system", "pass", f"{info.model}, {info.cores} cores, {info.runtime} {info.runtime_version}")
            )
    except DeviceError as error:
        checks.append(failed("system", error))
    return [*checks, check_compiler()]


def check_compiler() -> Check:
    """Whether models can be compiled here, and what is kept of those that were."""
    try:
        program = find_program()
    except DeviceError as error:
        found = f"{what_happened(error)}: only compiled files can be measured"
        return Check("compiler", "warn", found, error.fix or HOW_TO_GET)
    try:
        program.version()
    except DeviceError as error:
        return Check("compiler", "warn", what_happened(error), error.fix or HOW_TO_GET)
    folder = cache_folder()
    kept = f"; compiled files are kept in {folder}" if folder.is_dir() else ""
    return Check("compiler", "pass", f"{program}{kept}")
