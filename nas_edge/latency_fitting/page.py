"""A latency model as a page: how good it is, and where time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas_edge.formatting import ms_form
from nas_edge.latency.model_file import ModelFile
from nas_edge.latency_fitting import text
from nas_edge.report import plots, to_page, write_file
from nas_edge.report.content import Cell, ColumnSpec, Report, Section, Table, Tile, make_table
from nas_edge.spaces.decisions import SearchSpace


def write_model_page(name: str, file: ModelFile, space: SearchSpace | None, out: Path) -> Path:
    """Writes the page.

    Args:
        name: of the model.
        file: the model.
        space: whose networks are shown; None shows what the file alone tells.
        out: new file.

    Raises:
        RunError: when it cannot be written.
    """
    return write_file(out, to_page(model_report(name, file, space)))


def model_report(name: str, file: ModelFile, space: SearchSpace | None) -> Report:
    """What is to be seen of a model."""
    found = file.accuracy.get(file.model.kind)
    device = file.provenance.device or "an unnamed device"
    tiles = [Tile("Kind", file.model.kind), Tile("Networks", str(len(file.measurements)), "measured")]
    headline = f"Latencies of {device}."
    if found is not None:
        headline += f" On {found.networks} networks that it was not fitted to, its mean error is {found.mape:.1%}."
        tiles.append(Tile("Mean error", f"{found.mape:.1%}", f"{found.within_10:.0%} within 10%"))
    if file.noise_floor is not None:
        tiles.append(Tile("Noise", f"{file.noise_floor.mape:.1%}", "of two measurements of one network"))
    sections = [_facts(file), _isolated(file)]
    if space is not None:
        sections += [_held_out(file, space), _parts(file, space), _layers(file, space), _choices(file, space)]
    shown = tuple(section for section in sections if section.tables)
    return Report(name, "finished", headline, tuple(tiles), shown)


def _facts(file: ModelFile) -> Section:
    columns: list[ColumnSpec] = [("what", "", ""), ("value", "", "")]
    tables = [make_table("model", "", columns, text.summary_rows(file))]
    if rows := text.accuracy_rows(file):
        tables.append(_text_table("accuracy", rows))
    return Section("model", "The model", tables=tuple(tables))


def _held_out(file: ModelFile, space: SearchSpace) -> Section:
    rows: list[tuple[Cell, ...]] = [
        (one.measured_ms, one.predicted_ms, one.error, one.architecture) for one in text.held_out(file, space)
    ]
    form = ms_form(None if not rows else text.held_out(file, space)[0].measured_ms)
    columns: list[ColumnSpec] = [
        ("measured_ms", "measured, ms", form),
        ("predicted_ms", "predicted, ms", form),
        ("error", "error", "+.1%"),
        ("architecture", "architecture", ""),
    ]
    table = make_table("prediction", "", columns, rows, brief=False)
    says = ("Networks of the space that were measured in the same session, and that the model was not fitted to.",)
    shown = (plots.prediction(form),) if rows else ()
    return Section("prediction", "Predicted against measured", says, shown, (table,) if rows else ())


def _parts(file: ModelFile, space: SearchSpace) -> Section:
    rows = [(one.group, one.ms, one.share, one.ms_per_mmac) for one in text.part_costs(file, space)]
    columns: list[ColumnSpec] = [
        ("group", "operators", ""),
        ("ms", "ms", ".4g"),
        ("share", "share", ".1%"),
        ("ms_per_mmac", "ms per million MACs", ".4f"),
    ]
    says = (f"In the mean over networks of {space.name} that were drawn at random.",)
    plot = plots.bars("parts", "group", "ms", "ms", "Time by kind of operator")
    tables = (make_table("parts", "", columns, rows),) if rows else ()
    return Section("parts", "Time by kind of operator", says, (plot,) if rows else (), tables)


def _layers(file: ModelFile, space: SearchSpace) -> Section:
    rows = [(one.layer, one.operator, one.ms, one.ms_per_mmac) for one in text.layer_costs(file, space)]
    columns: list[ColumnSpec] = [
        ("layer", "layer", "d"),
        ("operator", "operator", ""),
        ("ms", "ms", ".4g"),
        ("ms_per_mmac", "ms per million MACs", ".4f"),
    ]
    says = (f"Of a network in the middle of {space.name}, in the order of execution.",)
    plot = plots.columns("layers", "layer", "ms_per_mmac", "ms per million MACs", "Cost per multiply-add by layer")
    tables = (make_table("layers", "", columns, rows, brief=False),) if rows else ()
    return Section("layers", "Cost by layer", says, (plot,) if rows else (), tables)


def _isolated(file: ModelFile) -> Section:
    rows = [(one.operator, one.alone_ms, one.entry_ms) for one in text.isolated_costs(file)]
    columns: list[ColumnSpec] = [
        ("operator", "operator", ""),
        ("alone_ms", "measured alone, ms", ".4g"),
        ("entry_ms", "in a network, ms", ".4g"),
    ]
    says = (
        "Operators that were measured on their own, including the overhead of a network of one operator, and their "
        "time in a network according to the model.",
    )
    tables = (make_table("isolated", "", columns, rows, brief=False),) if rows else ()
    return Section("isolated", "Operators on their own", says, tables=tables)


def _choices(file: ModelFile, space: SearchSpace) -> Section:
    rows = text.choices_rows(file, space)
    says = ("What the dearest choice of a decision adds to the cheapest, everything else being equal.",)
    return Section("choices", "Choices", says, tables=(_text_table("choices", rows),) if rows else ())


def _text_table(name: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """A table of rows of text, the first of which is its heading."""
    head, *others = rows
    columns: list[ColumnSpec] = [(title.lower(), title.lower(), "") for title in head]
    return make_table(name, "", columns, others)
