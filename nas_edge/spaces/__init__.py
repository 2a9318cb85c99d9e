"""Search spaces by name.

A new space of this package is one file with a function of this signature and one line in `SPACES`. Other packages add
theirs by entry points of the group `nas_edge.spaces`: the name is the space's, the object such a function.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeAlias

from device_agents.plugins import PluginGroup
from nas_edge.errors import NasEdgeError, SpaceError
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.spaces.mobilenet_v3_like import mobilenet_v3_like
from nas_edge.spaces.proxylessnas import proxylessnas, proxylessnas_enlarged

# Takes input_size, width_multiplier, classes, channels.
MakeSpace: TypeAlias = Callable[[int, float, int, int], SearchSpace]

SPACES: dict[str, MakeSpace] = {
    "proxylessnas": proxylessnas,
    "proxylessnas-enlarged": proxylessnas_enlarged,
    "mobilenet-v3-like": mobilenet_v3_like,
}

PLUGINS = PluginGroup("nas_edge.spaces", "search space", SPACES, SpaceError, NasEdgeError)


def find_space(name: str) -> MakeSpace:
    """The function that makes the space of that name; a plug-in is loaded when it is called.

    Raises:
        SpaceError: for an unknown name, or one that several packages claim. Calling what is returned raises it too,
            when a plug-in is broken.
    """
    plugin = PLUGINS.find(name)
    if plugin is not None:
        return lambda *arguments: plugin.make(SearchSpace, *arguments)
    if name not in SPACES:
        known = dict.fromkeys([*SPACES, *(plugin.name for plugin in PLUGINS.plugins())])
        near = get_close_matches(name, known, n=1)
        meant = f" did you mean {near[0]}?" if near else ""
        raise SpaceError(f"unknown space {name!r};{meant} expected one of {', '.join(known)}")
    return SPACES[name]
