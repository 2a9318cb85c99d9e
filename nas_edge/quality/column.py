"""Qualities from a column of the table that is searched; see `spaces/table.py`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nas_edge.latency.source import Candidate
from nas_edge.quality.source import FunctionQuality, Quality, QualityContext, QualitySettings
from nas_edge.spaces.table import table_of


class ColumnQualitySettings(QualitySettings):
    """Settings of `column`."""

    text_field: ClassVar[str] = "column"

    source: str = "column"
    column: str = Field(min_length=1, description="of the table that is searched")
    scale: float = Field(1.0, gt=0, description="times the column's values; 0.01 turns percent into shares")

    @property
    def origin(self) -> str:
        """See `QualitySettings`."""
        return f"from column {self.column!r}"


def open_column(settings: ColumnQualitySettings, context: QualityContext) -> FunctionQuality:
    """Reads a column.

    Raises:
        ConfigError: when the space is none of a table, or the table has no such column of numbers.
    """
    table = table_of(context.space, "a quality")
    known = table.column(settings.column, settings.scale)

    def evaluate(candidate: Candidate) -> Quality:
        value = None if candidate.architecture is None else known.get(candidate.architecture)
        return Quality(value, "" if value is not None else f"{table.name} has no quality of {candidate.architecture}")

    return FunctionQuality(f"column {settings.column!r} of {table.name}", evaluate)
