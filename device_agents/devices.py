"""What can be done with a device address: open, set up, clean, complete it; and the list of devices.

    host:              this machine
    replay:TIMES.json  recorded times, each answered after as long as it says

An address is SCHEME:REST; `schemes.SCHEMES` has all schemes, and `nas-edge devices` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from device_agents.api import DeviceAgent
from device_agents.errors import DeviceAddressError, DeviceError, SpecError
from device_agents.scheme import DeviceRow, Scheme
from device_agents.schemes import find_scheme, loaded_schemes, schemes
from device_agents.wording import words_of

__all__ = [
    "DeviceRow",
    "Scheme",
    "clean_device",
    "completions",
    "list_devices",
    "open_device",
    "parse_address",
    "scheme_of",
    "schemes",
    "set_up_device",
]


def open_device(address: str) -> DeviceAgent:
    """Returns an agent for a device; close it, or use it in a `with` block.

    Args:
        address: For example "host:"; "host" alone is accepted too.

    Raises:
        DeviceAddressError: If the address is malformed or unknown.
        DeviceError: If the device cannot be opened.
    """
    scheme, rest = scheme_of(address)
    return scheme.open(rest)


def parse_address(address: str) -> tuple[str, str]:
    """Returns scheme and rest of an address.

    Raises:
        DeviceAddressError: If the address is malformed or unknown.
    """
    scheme, rest = scheme_of(address)
    return scheme.name, rest


def scheme_of(address: str) -> tuple[Scheme, str]:
    """Returns the scheme of an address and its rest.

    Raises:
        DeviceAddressError: If the address is malformed or unknown.
    """
    name, _, rest = address.partition(":")
    scheme = find_scheme(name, address)
    problem = scheme.problem(rest)
    if problem:
        raise DeviceAddressError(
            f"Bad device address: {problem}", expected=f"{scheme.form} ({scheme.what})", received=f"{address!r}"
        )
    return scheme, rest


def list_devices(at: str | None = None) -> list[DeviceRow]:
    """Returns the devices that can be found without being named; a scheme that fails at it is a row that says so.

    Args:
        at: Address of the host whose devices are listed; None for this machine.

    Raises:
        DeviceAddressError: If that is malformed or unknown.
        DeviceError: If it cannot be asked.
    """
    if at is None:
        return [row for scheme in loaded_schemes() for row in _found_by(scheme)]
    scheme, rest = scheme_of(at)
    if scheme.list_at is None:
        able = ", ".join(f"{other.name}:" for other in schemes() if other.list_at is not None)
        raise SpecError(f"{scheme.name}: names no host with devices; supported: {able}", received=f"{at!r}")
    return list(scheme.list_at(rest))


def _found_by(scheme: Scheme) -> Sequence[DeviceRow]:
    if scheme.list is None:
        return ()
    try:
        return scheme.list()
    except Exception as error:  # another package may raise anything
        detail = str(error) if isinstance(error, DeviceError) else f"looking for devices failed: {words_of(error)}"
        return [DeviceRow(f"{scheme.name}:", scheme.name, "", "unavailable", detail, present=False)]


def set_up_device(address: str, options: Mapping[str, str] | None = None) -> Sequence[tuple[str, str]]:
    """Makes a device ready for measuring.

    Args:
        address: The device.
        options: Those of the scheme's `Setup`, by name.

    Returns:
        What was done, as pairs of a word and a fact.

    Raises:
        DeviceAddressError: If the address is malformed or unknown.
        SpecError: If devices of this kind need no setup, or have no such option.
        DeviceError: If it fails.
    """
    scheme, rest = scheme_of(address)
    if scheme.setup is None:
        able = ", ".join(f"{other.name}:" for other in schemes() if other.setup is not None)
        raise SpecError(
            f"Setup is not needed for {scheme.name}: devices ({scheme.what}); supported: {able}",
            received=f"{address!r}",
        )
    known = {option.name for option in (*scheme.setup.options, *scheme.setup.options_at(rest))}
    unknown = sorted(set(options or {}) - known)
    if unknown:
        supported = ", ".join(f"--{name}" for name in sorted(known)) or "none"
        raise SpecError(
            f"--{unknown[0]} is not an option for setting up {scheme.name}: devices; supported: {supported}",
            received=f"address {address!r}",
        )
    return scheme.setup.run(rest, options or {})


def clean_device(address: str) -> Sequence[str] | None:
    """Removes what stays on a device for measuring, or is kept about it.

    Args:
        address: The device.

    Returns:
        A line for each thing that was removed; None if nothing ever stays on devices of this kind.

    Raises:
        DeviceAddressError: If the address is malformed or unknown.
        DeviceError: If it fails.
    """
    scheme, rest = scheme_of(address)
    return None if scheme.clean is None else scheme.clean(rest)


def completions(typed: str) -> list[str]:
    """Returns addresses that go on as typed: how they begin, or where a scheme can tell, all of them."""
    name, colon, rest = typed.partition(":")
    if not colon:
        return [found for found in (f"{scheme.name}:" for scheme in schemes()) if found.startswith(typed)]
    scheme = find_scheme(name)
    found = () if scheme.complete is None else scheme.complete(rest)
    return [f"{name}:{more}" for more in found if more.startswith(rest)]
