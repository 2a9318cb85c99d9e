"""Search spaces by name.

A new space of this package is one file with its settings and a function, and one line in `SPACES`. Other packages add
theirs by entry points of the group `nas_edge.spaces`: the name is the space's, the object an `Entry`, or just a
function of `input_size, width_multiplier, classes, channels` that makes a `NetworkSpace`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from nas_edge.errors import SpaceError
from nas_edge.registry import Entry, Registry
from nas_edge.spaces import enas_macro, enas_micro, mnas, mobilenet_v3_like, proxylessnas, scaled, table
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace
from nas_edge.spaces.settings import NetworkSpaceSettings, SpaceSettings

# Takes input_size, width_multiplier, classes, channels.
MakeSpace: TypeAlias = Callable[[int, float, int, int], NetworkSpace]


def network_space(make: MakeSpace, settings: type[NetworkSpaceSettings] = NetworkSpaceSettings) -> Entry[SearchSpace]:
    """The table's entry for a function that makes a space of networks."""
    return Entry(
        settings,
        lambda chosen, classes, channels: make(chosen.input_size, chosen.width_multiplier, classes, channels),
    )


def _scaled(chosen: scaled.ScaledSettings, classes: int, channels: int) -> NetworkSpace:
    of = SPACES.settings({**chosen.of, "input_size": chosen.input_size})
    return scaled.scaled_space(chosen, SPACES.make(of, classes, channels))


SPACES: Registry[SearchSpace] = Registry(
    "name",
    "space",
    "nas_edge.spaces",
    {
        "proxylessnas": network_space(proxylessnas.proxylessnas, proxylessnas.ProxylessNASSettings),
        "proxylessnas-enlarged": network_space(proxylessnas.proxylessnas_enlarged),
        "mobilenet-v3-like": network_space(
            mobilenet_v3_like.mobilenet_v3_like, mobilenet_v3_like.MobileNetV3LikeSettings
        ),
        "mnas": Entry(mnas.MnasSettings, mnas.mnas_space),
        "enas-macro": Entry(enas_macro.EnasMacroSettings, enas_macro.enas_macro),
        "enas-micro": Entry(enas_micro.EnasMicroSettings, enas_micro.enas_micro),
        "scaled": Entry(scaled.ScaledSettings, _scaled),
        "table": Entry(table.TableSpaceSettings, table.table_space),
    },
    error=SpaceError,
    made=SearchSpace,
    adapt=lambda _, make: network_space(make),  # type: ignore[arg-type] # what it makes is checked when it is called
)


def network_space_names() -> list[str]:
    """The built-in spaces of networks that their name alone makes."""
    return [
        name
        for name, entry in SPACES.entries.items()
        if issubclass(entry.settings, NetworkSpaceSettings)
        and not any(field.is_required() for key, field in entry.settings.model_fields.items() if key != SPACES.key)
    ]


def find_space(name: str) -> MakeSpace:
    """The function that makes the space of networks of that name; a plug-in is loaded when it is called.

    Raises:
        SpaceError: for an unknown name, or one that several packages claim. Calling what is returned raises it too,
            when a plug-in is broken, or the space is none of networks.
    """
    if SPACES.plugins.find(name) is None and name not in SPACES.entries:
        SPACES.find(name)  # says which there are

    def make(input_size: int, width_multiplier: float, classes: int, channels: int) -> NetworkSpace:
        settings = SPACES.settings({"name": name, "input_size": input_size, "width_multiplier": width_multiplier})
        space = SPACES.make(settings, classes, channels)
        if not isinstance(space, NetworkSpace):
            raise SpaceError(f"{name} is not a space of networks", received=f"{type(space).__name__}")
        return space

    return make


__all__ = [
    "SPACES",
    "MakeSpace",
    "NetworkSpaceSettings",
    "SpaceSettings",
    "find_space",
    "network_space",
    "network_space_names",
]
