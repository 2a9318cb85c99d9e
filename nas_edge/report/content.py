"""What a report consists of, independent of its form: page, text, CSV or JSON.

A report is a headline and sections; a section is sentences, tables, plots and drawn networks. A plot is a Vega-Lite
specification that takes its data from tables by their names, so every number shown is in a table, and every table in a
CSV file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Cell: TypeAlias = str | float | int | bool | None
# Key, title and format of a column; one whose format is None feeds plots and CSV, and is not shown.
ColumnSpec: TypeAlias = tuple[str, str, str | None]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: name in CSV files and plots, with the unit.
        title: its heading.
        form: format of its numbers: `d`, `.3f`, `.1%`; empty for text.
        values: one per row.
        shown: whether the page and the text show it; plots, CSV and JSON always have it.
    """

    key: str
    title: str
    form: str
    values: Sequence[Cell]
    shown: bool = True


@dataclass(frozen=True)
class Table:
    """A table, stored by column; all columns have the same length.

    Attributes:
        name: unique in a report; names the CSV file.
        title: its heading, empty for none.
        columns: see `Column`.
        shown: whether the page and the text show it, or it only feeds plots and CSV.
        brief: whether it is short enough for the text form.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    shown: bool = True
    brief: bool = True

    def rows(self) -> Iterable[tuple[Cell, ...]]:
        """The table by row."""
        return zip(*(column.values for column in self.columns), strict=True)


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        name: unique in a report.
        title: what it shows.
        note: how to read it; may be empty.
        alt: text alternative for screen readers.
        spec: Vega-Lite, without width and theme. A colour `$name` stands for the page's CSS variable `--name`.
    """

    name: str
    title: str
    note: str
    alt: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """A layer of a drawn network.

    Attributes:
        label: `layer2`.
        kernel: side of its spatial kernel.
        expansion: expanded channels over input channels; None where nothing is expanded.
        gated: whether it has squeeze-and-excitation.
        skipped: an optional layer that this network leaves out.
    """

    label: str
    kernel: int = 1
    expansion: float | None = None
    gated: bool = False
    skipped: bool = False


@dataclass(frozen=True)
class Stage:
    """Layers with the same number of output channels.

    Attributes:
        label: `block2`.
        channels: of its output.
        size: side of its output, in pixels.
        stride: input side over output side.
        layers: in order.
    """

    label: str
    channels: int
    size: int
    stride: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Drawing:
    """A drawing of a network.

    Attributes:
        name: what it is.
        architecture: its text form, if it has one.
        words: its cost in a few words.
        stages: from the image to the classes.
    """

    name: str
    architecture: str
    words: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        key: unique; the anchor in the page.
        title: heading.
        says: its paragraphs.
        plots: see `Plot`.
        tables: see `Table`.
        drawings: networks side by side.
        folded: whether the page shows it collapsed.
    """

    key: str
    title: str
    says: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Tile:
    """One number at the top: what it is, the number with its unit, and what it means."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        title: name of the run.
        state: `finished`, `running`, `stopped` or `comparison`.
        headline: the result in one or two sentences.
        tiles: the few numbers that matter most.
        sections: see `Section`.
    """

    title: str
    state: str
    headline: str
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]

    @property
    def tables(self) -> list[Table]:
        """All tables."""
        return [table for section in self.sections for table in section.tables]

    def to_json(self) -> str:
        """The content of `report.json`, and of the page."""
        # Not `asdict`, which copies every cell.
        return json.dumps({"schema_version": SCHEMA_VERSION, **vars(self)}, default=vars, allow_nan=False)


def text_of(value: Cell, form: str) -> str:
    """A cell as shown; page.js has the same rules."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not form or isinstance(value, str):
        return str(value)
    return format(value, ".0f" if form == "d" else form)


def make_table(
    name: str,
    title: str,
    columns: Sequence[ColumnSpec],
    rows: Sequence[Sequence[Cell]],
    shown: bool = True,
    brief: bool = True,
) -> Table:
    """A table from its rows."""
    by_column: list[list[Cell]] = [[row[i] for row in rows] for i in range(len(columns))]
    return Table(
        name,
        title,
        tuple(
            Column(key, heading, form or "", values, shown=form is not None)
            for (key, heading, form), values in zip(columns, by_column, strict=True)
        ),
        shown,
        brief,
    )
