"""Addresses of boards and other hosts: `ssh://[USER@]HOST[:PORT][?python=COMMAND][&accelerator=NAME][&device=ADDRESS]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote, urlsplit

from device_agents.accelerators import accelerator_problem
from device_agents.errors import DeviceAddressError

FORM = "ssh://[USER@]HOST[:PORT][?python=COMMAND][&accelerator=NAME][&device=ADDRESS]"
_OPTIONS = ("python", "accelerator", "device")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,100}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f:.%]{2,60}")


@dataclass(frozen=True)
class BoardAddress:
    """Where a board, or another host with devices of its own, is.

    Attributes:
        host: A name out of the user's SSH configuration, a host name or an IP address.
        user: None for what the configuration says.
        port: None for what the configuration says.
        python: The Python to use there, a path or a name on its PATH; "" for the one that setup has made, else
            `python3`.
        accelerator: What is plugged in there and to be used, see `accelerators`; "" for nothing but the CPU.
        device: The address that a device has on that host, for example "coral:usb:0"; "" for the board itself.
    """

    host: str
    user: str | None = None
    port: int | None = None
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
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        options = {name: getattr(self, name) for name in _OPTIONS}
        query = "&".join(f"{name}={quote(value, safe='/:')}" for name, value in options.items() if value)
        return f"ssh://{user}{host}{port}" + (f"?{query}" if query else "")

    @property
    def for_ssh(self) -> str:
        """Arguments of OpenSSH's client that reach the same, for messages."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"


def address_problem(rest: str) -> str:
    """Returns what is wrong with the part of an address after `ssh:`, or ""."""
    found = _parse(rest)
    return found if isinstance(found, str) else ""


def read_address(rest: str) -> BoardAddress:
    """Returns the address that stands after `ssh:`.

    Raises:
        DeviceAddressError: If it is malformed.
    """
    found = _parse(rest)
    if isinstance(found, str):
        raise DeviceAddressError(f"Bad device address: {found}", expected=FORM, received=f"'ssh:{rest}'")
    return found


def _parse(rest: str) -> BoardAddress | str:
    if not rest.startswith("//"):
        return "'//' must follow 'ssh:'"
    try:
        parts = urlsplit(f"ssh:{rest}")
        port = parts.port
    except ValueError as error:
        return str(error)
    # urlsplit makes host names small; names in an SSH configuration are told apart by it.
    host = parts.netloc.rpartition("@")[2].partition("]")[0].lstrip("[") if "]" in parts.netloc else ""
    host = host or parts.netloc.rpartition("@")[2].partition(":")[0]
    if parts.password is not None:
        return "a password must not stand in an address; use a key (ssh-copy-id)"
    if not _HOST.fullmatch(host):
        return "a host name must follow '//'"
    if parts.username is not None and not _NAME.fullmatch(parts.username):
        return "the user name has characters that are not allowed"
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
    return problem or BoardAddress(host, parts.username, port, python, accelerator, device)


def _device_problem(device: str, accelerator: str) -> str:
    if accelerator:
        return "accelerator= is what the board itself uses; of device= and accelerator= only one may be given"
    if not re.fullmatch(r"[a-z][a-z0-9-]*:[^\s']*", device) or not device.isprintable():
        return "device= must be an address of that host, for example device=coral:"
    if device.startswith("ssh:"):
        return "a host behind a host is reached by ProxyJump in your SSH configuration"
    return ""
