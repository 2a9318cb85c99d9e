"""Latencies from a column of the table that is searched, `column:NAME`; see `spaces/table.py`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.table import TableSource, check_latencies
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.spaces.table import table_of


class ColumnSettings(LatencySettings):
    """Settings of `column`."""

    text_field: ClassVar[str] = "column"

    source: str = "column"
    column: str = Field(min_length=1, description="of the table that is searched; milliseconds")


def open_column(column: str, space: SearchSpace) -> TableSource:
    """Reads a column.

    Raises:
        ConfigError: when the space is none of a table, or the table has no such column of latencies.
    """
    table = table_of(space, "a latency")
    known = table.column(column)
    check_latencies(f"column {column!r} of {table.name}", known)
    return TableSource(known.get, f"column {column!r} of {table.name}")
