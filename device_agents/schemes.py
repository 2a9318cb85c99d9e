"""The table of device schemes. A new family of devices is one file with its `SCHEMES`, and one line here.

Other packages add schemes by entry points of the group `nas_edge.devices`: the name is the scheme, the object either a
`Scheme` of that name, or a function that is given the part of the address after the colon and returns a `DeviceAgent`.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from device_agents import host, replay
from device_agents.android import scheme as android
from device_agents.api import DeviceAgent
from device_agents.checks import Check
from device_agents.coral import scheme as coral
from device_agents.errors import DeviceAddressError, DeviceError
from device_agents.farm import scheme as farm
from device_agents.plugins import Plugin, PluginGroup
from device_agents.scheme import DeviceRow, Scheme
from device_agents.ssh import scheme as ssh

FAMILIES = (
    host.SCHEMES,
    android.SCHEMES,
    # Another host has devices of any kind.
    ssh.schemes(lambda name: find_scheme(name), lambda: schemes()),
    coral.SCHEMES,
    farm.SCHEMES,
    replay.SCHEMES,
)
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for family in FAMILIES for scheme in family}

PLUGINS = PluginGroup("nas_edge.devices", "device scheme", SCHEMES, DeviceAddressError, DeviceError)

_SEE = "`nas-edge devices` says what they are"


def schemes() -> list[Scheme]:
    """Returns every scheme: what is built in, then what other packages add, of which nothing is loaded."""
    return [*SCHEMES.values(), *map(_unloaded, PLUGINS.plugins())]


def loaded_schemes() -> list[Scheme]:
    """Returns every scheme with its hooks; of a package that is broken, one whose hooks say so."""
    names = dict.fromkeys(plugin.name for plugin in PLUGINS.plugins())
    return [*SCHEMES.values(), *(_found(name) for name in names if name not in SCHEMES)]


def find_scheme(name: str, address: str | None = None) -> Scheme:
    """Returns the scheme of that name.

    Args:
        name: The part of an address before the colon.
        address: The whole of it, for the error; None for the name.

    Raises:
        DeviceAddressError: If it is unknown, or the package it comes from is broken.
    """
    received = name if address is None else repr(address)
    plugin = PLUGINS.find(name)
    if plugin is not None:
        return _loaded(plugin)
    if name not in SCHEMES:
        near = get_close_matches(name, [scheme.name for scheme in schemes()], n=1)
        fix = f"did you mean {near[0]}: ? {_SEE}" if near else _SEE
        raise DeviceAddressError("Unknown device address", expected=_supported(), received=received, fix=fix)
    return SCHEMES[name]


def _found(name: str) -> Scheme:
    try:
        return find_scheme(name)
    except DeviceAddressError as error:
        return _broken(name, error)


def _broken(name: str, error: DeviceAddressError) -> Scheme:
    def refuse(_: str) -> DeviceAgent:
        raise error

    return Scheme(
        name=name,
        form=f"{name}:...",
        what="broken",
        open=refuse,
        list=lambda: [DeviceRow(f"{name}:", name, "", "unavailable", str(error), present=False)],
        check_host=lambda: [Check(f"{name}: devices", "warn", str(error), "update or uninstall that package")],
    )


def _unloaded(plugin: Plugin) -> Scheme:
    """What is known of a plug-in's scheme without loading it."""
    return Scheme(
        name=plugin.name,
        form=f"{plugin.name}:...",
        what=plugin.origin,
        open=lambda rest: plugin.make(DeviceAgent, rest),  # type: ignore[type-abstract] # only for isinstance
    )


def _loaded(plugin: Plugin) -> Scheme:
    known, loaded = _unloaded(plugin), plugin.load(object)
    if not isinstance(loaded, Scheme):
        return known  # a function
    if loaded.name != plugin.name:
        raise DeviceAddressError(
            f"The device scheme {plugin.name!r} of {plugin.package} calls itself {loaded.name!r}",
            fix="its entry point must have the name of the scheme",
        )
    return replace(loaded, open=known.open)


def _supported() -> str:
    *others, last = [scheme.form for scheme in schemes()]
    return f"{', '.join(others)} or {last}" if others else last
