"""Where latencies come from.

    device       measured on the run's device
    table:FILE   looked up in a table, see `table.py`

Other packages add sources by entry points of the group `nas_edge.latency_sources`: the name is what stands before the
colon, the object a function like those in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable

from device_agents.plugins import PluginGroup
from nas_edge.errors import ConfigError, NasEdgeError
from nas_edge.latency.source import LatencySource
from nas_edge.latency.table import open_table
from nas_edge.networks.tflite_model import Precision
from nas_edge.spaces.decisions import SearchSpace

# Each takes what follows the colon, the space that is searched, and the precision that is delivered.
SOURCES: dict[str, Callable[[str, SearchSpace, Precision], LatencySource]] = {"table": open_table}

PLUGINS = PluginGroup("nas_edge.latency_sources", "latency source", ("device", *SOURCES), ConfigError, NasEdgeError)


def open_latency_source(address: str, space: SearchSpace, precision: Precision, device: LatencySource) -> LatencySource:
    """What judges candidates: the device itself, or what stands in for it.

    Args:
        address: see the top of this file.
        space: where the search is.
        precision: what is delivered.
        device: the run's device.

    Raises:
        ConfigError: when there is no such source, or it cannot be opened.
    """
    name, _, rest = address.partition(":")
    plugin = PLUGINS.find(name)
    if plugin is not None:
        return plugin.make(LatencySource, rest, space, precision)  # type: ignore[type-abstract] # only for isinstance
    if address == "device":
        return device
    if name not in SOURCES:
        others = "".join(f", {plugin.name}:... ({plugin.origin})" for plugin in PLUGINS.plugins())
        raise ConfigError(f"unknown latency source {address!r}; expected device, table:FILE{others}")
    return SOURCES[name](rest, space, precision)
