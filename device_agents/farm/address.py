"""Addresses of a farm's devices: `farm:NODE/DEVICE`, `farm://HEAD[:PORT]/NODE/DEVICE`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from device_agents.addresses import problem_in, well_formed

FORM = "farm:[//HEAD[:PORT]/]NODE/DEVICE"
DEFAULT_PORT = 6379
RESOURCE_PREFIX = "nas_edge:"
"""A host offers a device as a custom resource of Ray whose name is this and the device's address there."""

_HEAD = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.%]{2,60}\])(:[0-9]{1,5})?")
_NODE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]{0,252}")
_DEVICE = re.compile(r"[a-z][a-z0-9-]*:[!-~]{0,500}")


@dataclass(frozen=True)
class FarmAddress:
    """A device of a farm.

    Attributes:
        node: Name of its host in the Ray cluster, as given by `ray start --node-name`; else its IP address.
        device: The device's address on that host, for example "ssh://pi@board".
        head: HOST:PORT of the cluster's head node; "" for the cluster that this machine has joined.
    """

    node: str
    device: str
    head: str = ""

    def __str__(self) -> str:
        return f"farm:{self.rest}"

    @property
    def of_host(self) -> str:
        """What its host is called in messages."""
        return self.node

    def of_device(self, device: str) -> FarmAddress:
        """Returns the address of another device there."""
        return replace(self, device=device)

    @property
    def rest(self) -> str:
        """What follows the colon."""
        return f"//{self.head}/{self.node}/{self.device}" if self.head else f"{self.node}/{self.device}"

    @property
    def resource(self) -> str:
        """The custom resource by which its host offers it."""
        return f"{RESOURCE_PREFIX}{self.device}"


def address_problem(rest: str) -> str:
    """Returns what is wrong with the part of an address after `farm:`, or ""."""
    return problem_in(_parse(rest))


def read_address(rest: str) -> FarmAddress:
    """Returns the address that stands after `farm:`.

    Raises:
        DeviceAddressError: If it is malformed.
    """
    return well_formed(_parse(rest), FORM, f"farm:{rest}")


def joined_cluster() -> str:
    """Returns HOST:PORT of the head node of the Ray cluster that this machine has joined; "" for none.

    Where Ray itself looks: RAY_ADDRESS, then the file that `ray start` leaves. The cluster may be gone.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named not in ("", "auto"):
        return named
    try:
        folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
        return (folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _parse(rest: str) -> FarmAddress | str:
    head = ""
    if rest.startswith("//"):
        head, _, rest = rest[2:].partition("/")
        if not (match := _HEAD.fullmatch(head)):
            return "a host, and perhaps ':' and a port, must follow '//'"
        head = head if match[2] else f"{head}:{DEFAULT_PORT}"
    node, slash, device = rest.partition("/")
    if not slash or not _NODE.fullmatch(node):
        return "the name of a node and '/' must come before the device, as `nas-edge devices` lists them"
    if not _DEVICE.fullmatch(device):
        return "the device's address on its node must follow the node, for example 'host:' or 'ssh://pi@board'"
    if device.startswith("farm:"):
        return "a device of a farm is plugged in at a node, and not reached over another farm"
    return FarmAddress(node, device, head)
