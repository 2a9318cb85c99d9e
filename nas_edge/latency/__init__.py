"""Where latencies of candidates come from.

    device        measured on the run's device
    table:FILE    looked up in a table, see `table.py`
    column:NAME   looked up in a column of the table that is searched, see `column.py`
    sim:NAME      simulated, for hardware that is not there, see `simulated.py`
    model:FILE    predicted by a model that was fitted to a device, see `model_source.py`
    accelerator   simulated on the accelerator that a design names, see `accelerator.py`
    hybrid        predicted, and measured where that matters, see `hybrid.py`

A new source of this package is one file with its settings and a class, and one line in `LATENCY_SOURCES`. Other
packages add theirs by entry points of the group `nas_edge.latency_sources`: the name is what stands before the colon,
the object an `Entry`, or just a function of what follows the colon, the space that is searched and the precision that
is delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nas_edge.errors import ConfigError
from nas_edge.latency.accelerator import AcceleratorLatencySettings, open_accelerator
from nas_edge.latency.column import ColumnSettings, open_column
from nas_edge.latency.hybrid import HybridSettings
from nas_edge.latency.model_source import ModelSettings, open_model
from nas_edge.latency.settings import DeviceLatencySettings, LatencySettings, TextSettings
from nas_edge.latency.simulated import SimulatedSettings, open_simulated
from nas_edge.latency.source import LatencySource
from nas_edge.latency.table import TableSettings, open_table
from nas_edge.networks.precisions import Precision
from nas_edge.registry import Entry, Registry
from nas_edge.spaces.decisions import SearchSpace


@dataclass(frozen=True)
class LatencyContext:
    """What a latency source may be made of.

    Attributes:
        space: where the search is.
        precision: what is delivered.
        device: the run's device; None for a run that needs none.
    """

    space: SearchSpace
    precision: Precision
    device: LatencySource | None


def _the_device(settings: LatencySettings, context: LatencyContext) -> LatencySource:
    if context.device is None:
        raise ConfigError(
            f"the space {context.space.name} describes no networks, so no device can measure them",
            fix="name where latencies come from, for example --latency-column NAME",
        )
    return context.device


def _what_measures(settings: HybridSettings, context: LatencyContext) -> LatencySource:
    """The search itself puts the model around it, outside of what it keeps of measurements."""
    of = LATENCY_SOURCES.settings(settings.of)
    assert isinstance(of, LatencySettings)
    if of.predicts or of.measures_some:
        raise ConfigError(
            f"latency.of={settings.of} predicts itself, so nothing would be measured",
            expected="device, column:NAME or table:FILE",
            fix="leave it out (--latency hybrid), or begin with a model: --latency hybrid --set latency.model=FILE",
        )
    return LATENCY_SOURCES.make(of, context)


def _of_function(name: str, make: Callable[..., LatencySource]) -> Entry[LatencySource]:
    def open_(settings: Any, context: LatencyContext) -> LatencySource:
        return make(settings.rest, context.space, context.precision)

    return Entry(TextSettings, open_)


LATENCY_SOURCES: Registry[LatencySource] = Registry(
    "source",
    "latency source",
    "nas_edge.latency_sources",
    {
        "device": Entry(DeviceLatencySettings, _the_device, "measured on the run's device"),
        "table": Entry(TableSettings, lambda settings, context: open_table(settings.file, context.space), "table:FILE"),
        "column": Entry(
            ColumnSettings, lambda settings, context: open_column(settings.column, context.space), "column:NAME"
        ),
        "sim": Entry(
            SimulatedSettings,
            lambda settings, context: open_simulated(settings.device, context.space, context.precision),
            "sim:NAME",
        ),
        "model": Entry(
            ModelSettings,
            lambda settings, context: open_model(settings.file, context.space, context.precision, context.device),
            "model:FILE",
        ),
        "accelerator": Entry(
            AcceleratorLatencySettings,
            lambda settings, context: open_accelerator(settings, context.space, context.precision),
            "simulated on the accelerator that a design names",
        ),
        "hybrid": Entry(HybridSettings, _what_measures, "predicted, and measured where that matters"),
    },
    made=LatencySource,
    adapt=_of_function,
)


def open_latency_source(settings: LatencySettings, context: LatencyContext) -> LatencySource:
    """Where the latencies of candidates come from: the device itself, or what stands in for it.

    Raises:
        ConfigError: when there is no such source, or it cannot be opened.
    """
    return LATENCY_SOURCES.make(settings, context)


__all__ = ["LATENCY_SOURCES", "LatencyContext", "LatencySettings", "open_latency_source"]
