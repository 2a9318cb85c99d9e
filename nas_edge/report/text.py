"""The report in a terminal: the same sentences and tables, without plots and the longest tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from nas_edge.report.content import Column, Drawing, Layer, Report, Table, text_of
from nas_edge.terminal import printable

# Limits on cell length, so that one long cell does not wrap every row: the first that makes a table fit, else the last.
_LONGEST_CELLS = (60, 40, 24)


def to_text(report: Report, width: int = 80) -> str:
    """The report as plain text; sentences are wrapped to `width` characters, and tables keep to it where they can."""
    lines = [f"{report.title} ({report.state})", "", *textwrap.wrap(report.headline, width), ""]
    lines += _aligned([(tile.label, tile.value, tile.note) for tile in report.tiles])
    for section in report.sections:
        said = [line for sentence in section.says for line in (*textwrap.wrap(sentence, width), "")]
        tables = [
            line for table in section.tables if table.shown and table.brief for line in (*_table(table, width), "")
        ]
        drawn = [line for drawing in section.drawings for line in (*_drawing(drawing), "")]
        if said or tables or drawn:
            lines += ["", section.title, "-" * len(section.title), *said, *drawn, *tables]
            lines.pop()
    return "\n".join(printable(line) for line in lines) + "\n"


def _drawing(drawing: Drawing) -> list[str]:
    rows = []
    for stage in drawing.stages:
        layers = " | ".join(map(_layer, stage.layers))
        stride = f"stride {stage.stride}" if stage.stride > 1 else ""
        rows.append((f"  {stage.label}", f"{stage.channels} channels", f"{stage.size} px", stride, layers))
    return [drawing.name, *filter(None, [drawing.words]), *_aligned(rows), *filter(None, [drawing.architecture])]


def _layer(layer: Layer) -> str:
    if layer.skipped:
        return "skipped"
    expansion = "" if layer.expansion is None else f" x{layer.expansion:.3g}"
    return f"{layer.kernel}x{layer.kernel}{expansion}{' se' if layer.gated else ''}"


def _table(table: Table, width: int) -> list[str]:
    columns = [column for column in table.columns if column.shown and any(v is not None for v in column.values)]
    if not columns:
        return []
    for longest in _LONGEST_CELLS:
        cells = zip(*(_cells(column, longest) for column in columns), strict=True)
        lines = _aligned([[column.title for column in columns], *cells], [bool(column.form) for column in columns])
        if max(map(len, lines)) <= width:
            break
    return [*([table.title] if table.title else []), *lines]


def _cells(column: Column, longest: int) -> list[str]:
    return [textwrap.shorten(text_of(value, column.form), longest, placeholder="...") for value in column.values]


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> list[str]:
    """Rows as aligned columns, numbers right-aligned."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if i < len(right) and right[i] else "<" for i in range(len(widths))]
    return ["  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip() for row in rows]
