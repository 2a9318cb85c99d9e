"""Addresses of boards and other hosts: `ssh://[USER@]HOST[:PORT][?python=COMMAND][&accelerator=NAME][&device=ADDRESS]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote

from device_agents.accelerators import accelerator_problem
from device_agents.addresses import problem_in, well_formed
from device_agents.ssh_host import SshHost, split_host

FORM = "ssh://[USER@]HOST[:PORT][?python=COMMAND][&accelerator=NAME][&device=ADDRESS]"
_OPTIONS = ("python", "accelerator", "device")


@dataclass(frozen=True)
class BoardAddress(SshHost):
    """Where a board, or another host with devices of its own, is.

    Attributes:
        python: The Python to use there, a path or a name on its PATH; "" for the one that setup has made, else
            `python3`.
        accelerator: What is plugged in there and to be used, see `accelerators`; "" for nothing but the CPU.
        device: The address that a device has on that host, for example "coral:usb:0"; "" for the board itself.
    """

    python: str = ""
    accelerator: str = ""
    device: str = ""

    @property
    def of_host(self) -> BoardAddress:
        """The address of the host that the device is at."""
        return replace(self, device="")

    def of_device(self, device: str) -> BoardAddress:
        """Returns the address of another device there."""
        return replace(self, device=device)

    @property
    def called(self) -> str:
        """What it is called in messages."""
        return f"host of {self}" if self.device else f"board at {self}"

    def __str__(self) -> str:
        options = {name: getattr(self, name) for name in _OPTIONS}
        query = "&".join(f"{name}={quote(value, safe='/:')}" for name, value in options.items() if value)
        return super().__str__() + (f"?{query}" if query else "")


def address_problem(rest: str) -> str:
    """Returns what is wrong with the part of an address after `ssh:`, or ""."""
    return problem_in(_parse(rest))


def read_address(rest: str) -> BoardAddress:
    """Returns the address that stands after `ssh:`.

    Raises:
        DeviceAddressError: If it is malformed.
    """
    return well_formed(_parse(rest), FORM, f"ssh:{rest}")


def _parse(rest: str) -> BoardAddress | str:
    found = split_host(rest)
    if isinstance(found, str):
        return found
    host, parts = found
    if parts.path not in ("", "/") or parts.fragment:
        return f"nothing but {', '.join(f'?{name}=...' for name in _OPTIONS)} may follow the host"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        return f"unknown option {unknown[0]!r}; supported: {', '.join(_OPTIONS)}"
    python, accelerator, device = (options.get(name, "") for name in _OPTIONS)
    if python.startswith("-") or not python.isprintable() or ("python" in options and not python):
        return "python= must name a command or a path"
    problem = accelerator_problem(accelerator) if "accelerator" in options else ""
    if "device" in options and not problem:
        problem = _device_problem(device, accelerator)
    return problem or BoardAddress(host.host, host.user, host.port, python, accelerator, device)


def _device_problem(device: str, accelerator: str) -> str:
    if accelerator:
        return "accelerator= is what the board itself uses; of device= and accelerator= only one may be given"
    if not re.fullmatch(r"[a-z][a-z0-9-]*:[^\s']*", device) or not device.isprintable():
        return "device= must be an address of that host, for example device=coral:"
    if device.startswith("ssh:"):
        return "a host behind a host is reached by ProxyJump in your SSH configuration"
    return ""
