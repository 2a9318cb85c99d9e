"""Writes a report: the page, and beside it `report.json` and a CSV file for each table."""

from __future__ import annotations

import csv
import io
import os
from contextlib import suppress
from pathlib import Path

from nas_edge.errors import RunError
from nas_edge.report.content import Cell, Report, Table
from nas_edge.report.page import to_page


def write_report(report: Report, folder: Path) -> Path:
    """Writes all files into a folder, replacing an earlier report.

    Returns:
        The page.

    Raises:
        RunError: when it cannot be written.
    """
    if folder.is_symlink():
        raise RunError(
            f"{folder} is a symbolic link, and reports are not written through links; choose a file with --out"
        )
    for table in report.tables:
        write_file(folder / f"{table.name}.csv", to_csv(table))
    write_file(folder / "report.json", report.to_json() + "\n")
    return write_file(folder / "index.html", to_page(report))


def write_file(path: Path, text: str) -> Path:
    """Writes a file atomically, so that readers of an earlier one never see half of it.

    Raises:
        RunError: when it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("x", encoding="utf-8", newline="\n") as file:  # follows no link
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(f"cannot write {path}: {error.strerror or error}; choose another path with --out") from None
    return path


def to_csv(table: Table) -> str:
    """A table as CSV, numbers at full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([_safe(value) for value in row] for row in table.rows())
    return out.getvalue()


def _safe(value: Cell) -> Cell:
    """A cell that no spreadsheet reads as a formula: text in a run folder may come from anywhere."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
