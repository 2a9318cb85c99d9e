"""Latencies from a column of the table that is searched, `column:NAME`; see `spaces/table.py`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nas_edge.errors import RunError
from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.table import TableSource
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.table import table_of


class ColumnSettings(LatencySettings):
    """Settings of `column`."""

    source: str = "column"
    column: str = Field(min_length=1, description="of the table that is searched; milliseconds")

    @classmethod
    def from_text(cls, rest: str) -> dict[str, Any]:
        """`column:NAME`."""
        return {"column": rest}


def open_column(column: str, space: SearchSpace) -> TableSource:
    """Reads a column.

    Raises:
        ConfigError: when the space is none of a table, or the table has no such column of numbers.
    """
    table = table_of(space, "a latency")
    known = table.column(column)

    def latency_ms(architecture: Architecture) -> float:
        try:
            return known[architecture]
        except KeyError:
            raise RunError(f"column {column!r} of {table.name} has no latency of {architecture}") from None

    return TableSource(latency_ms, f"column {column!r} of {table.name}")
