"""The table of accelerators that a worker can use beside the CPU.

A new one is one package and one line here, and one module and one line in the worker, which stands alone.

An accelerator is named as NAME or NAME:DEVICE, for example `edgetpu` or `edgetpu:usb:0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_agents.compiling import Compiler
from device_agents.edgetpu.accelerator import DEVICE, EdgeTpuAccelerator
from device_agents.edgetpu.compiler import EdgeTpuCompiler
from device_agents.worker_agent import Accelerator


@dataclass(frozen=True)
class AcceleratorKind:
    """A line of the table.

    Attributes:
        open: Makes the accelerator of a device; what follows NAME and a colon.
        compiler: Makes what compiles models for it on this machine.
        allows: Whether a device may be called so.
    """

    open: Callable[[str], Accelerator]
    compiler: Callable[[], Compiler]
    allows: Callable[[str], bool]


ACCELERATORS: Mapping[str, AcceleratorKind] = {
    "edgetpu": AcceleratorKind(EdgeTpuAccelerator, EdgeTpuCompiler, lambda device: bool(DEVICE.fullmatch(device))),
}


def accelerator_problem(text: str) -> str:
    """Returns what is wrong with the name of an accelerator, or ""."""
    name, _, device = text.partition(":")
    if name not in ACCELERATORS:
        return f"unknown accelerator {name!r}; supported: {', '.join(ACCELERATORS)}"
    return "" if ACCELERATORS[name].allows(device) else f"no accelerator {name} is called {device!r}"


def open_accelerator(text: str) -> Accelerator:
    """Returns an accelerator by its name, which has been checked."""
    name, _, device = text.partition(":")
    return ACCELERATORS[name].open(device)


def compiler_for(text: str) -> Compiler:
    """Returns what compiles models for an accelerator, by its name, which has been checked."""
    return ACCELERATORS[text.partition(":")[0]].compiler()
