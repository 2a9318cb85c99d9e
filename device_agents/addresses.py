"""What the readers of addresses have in common: each returns what it read, or a text that says what is wrong."""

from __future__ import annotations

from typing import TypeVar

from device_agents.errors import DeviceAddressError

T = TypeVar("T")


def problem_in(found: object) -> str:
    """Returns what is wrong with an address that was read, or ""."""
    return found if isinstance(found, str) else ""


def well_formed(found: T | str, form: str, address: str, what: str = "Bad device address") -> T:
    """Returns what was read.

    Args:
        found: That, or what is wrong.
        form: How such addresses look.
        address: What was read it from.
        what: What is said of a malformed one.

    Raises:
        DeviceAddressError: If something is wrong.
    """
    if isinstance(found, str):
        raise DeviceAddressError(f"{what}: {found}", expected=form, received=f"{address!r}")
    return found
