"""A table of results to search in."""

from __future__ import annotations

from pathlib import Path

from nas_edge.spaces.table import TableSpace, TableSpaceSettings, table_space

ROWS = """op,width,accuracy,phone_ms,note
pool,16,91.7,3.9,b
conv,16,93.1,4.2,a
conv,8,92.4,2.1,
skip,8,,1.0,c
pool,8,90.0,,d
"""


def write_table(folder: Path, content: str = ROWS) -> Path:
    """The table as a file."""
    file = folder / "results.csv"
    file.write_text(content)
    return file


def open_space(file: Path, *decisions: str) -> TableSpace:
    """Its space; by default with both decisions."""
    return table_space(TableSpaceSettings(file=str(file), decisions=decisions or ("op", "width")))
