"""The space of a table of results: a CSV file with a column per decision and a row per architecture.

    op_0,op_1,accuracy,phone_ms
    conv,skip,93.1,4.2
    conv,pool,91.7,3.9

Tabular benchmarks such as NAS-Bench-201 and HW-NAS-Bench come in this form. Quality and latency are then read from
other columns of the same table (`quality/column.py`, `latency/column.py`), so that a search can be rehearsed in
seconds. There are no networks in such a space, so nothing is measured, trained or exported.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nas_edge.errors import ConfigError
from nas_edge.spaces.decisions import Architecture, Decision, SearchSpace
from nas_edge.spaces.design import Design
from nas_edge.spaces.settings import SpaceSettings

if TYPE_CHECKING:
    import pandas as pd

MAX_TABLE_BYTES = 2**30


class TableSpaceSettings(SpaceSettings):
    """Settings of the space of a table."""

    name: str = "table"
    file: str = Field(min_length=1, description="CSV file, plain or gzip, with a row per architecture")
    decisions: tuple[str, ...] = Field(min_length=1, description="its columns that are decisions, in order")


@dataclass(frozen=True)
class ResultsTable:
    """A table of results.

    Attributes:
        name: file name and content hash, so that a run is not continued with another table in the same place.
        decisions: a decision per column, its choices sorted.
        rows: position of each architecture's row.
        frame: the whole table.
    """

    name: str
    decisions: tuple[Decision, ...]
    rows: dict[Architecture, int]
    frame: pd.DataFrame

    def column(self, name: str, scale: float = 1.0) -> dict[Architecture, float]:
        """The finite values of a column by architecture, times `scale`.

        Raises:
            ConfigError: when there is no such column, or it does not hold numbers.
        """
        import pandas as pd

        if name not in self.frame.columns:
            raise ConfigError(f"{self.name} has no column {name!r}; its columns: {', '.join(self.frame.columns)}")
        try:
            values = pd.to_numeric(self.frame[name])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"column {name!r} of {self.name} must hold numbers: {error}") from None
        known = {architecture: float(values.iloc[row]) * scale for architecture, row in self.rows.items()}
        return {architecture: value for architecture, value in known.items() if math.isfinite(value)}


class TableSpace(SearchSpace):
    """The architectures that a table offers, with whatever else it says of them.

    Args:
        table: what is known.
    """

    def __init__(self, table: ResultsTable) -> None:
        super().__init__("table", table.decisions)
        self.table = table

    def build(self, architecture: Architecture) -> Design:
        """See `SearchSpace`; the chosen values, and no network."""
        self.check(architecture)
        return Design(None, self.describe(architecture))


def table_of(space: SearchSpace, what: str) -> ResultsTable:
    """The table of a space that has one.

    Args:
        space: of the run.
        what: is to be read from it, for the message.

    Raises:
        ConfigError: for any other space.
    """
    if not isinstance(space, TableSpace):
        raise ConfigError(
            f"{what} from a column requires a table of results (--table FILE --decisions NAME,NAME...)",
            received=f"the space {space.name}",
        )
    return space.table


def table_space(settings: TableSpaceSettings, classes: int = 0, channels: int = 0) -> TableSpace:
    """Reads the table; what the data would decide is of no use to it.

    Raises:
        ConfigError: when it cannot be read, or is no table of architectures.
    """
    import pandas as pd

    path = Path(settings.file).expanduser()
    try:
        if not path.is_file():
            raise ConfigError(f"the table {settings.file} does not exist, or is not a regular file")
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ConfigError(f"the table {settings.file} is larger than {MAX_TABLE_BYTES >> 20} MiB")
        content = path.read_bytes()
        frame = pd.read_csv(path, compression="gzip" if content[:2] == b"\x1f\x8b" else None)
    except OSError as error:
        raise ConfigError(f"cannot read the table {settings.file}: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:  # pandas' parser errors among them
        raise ConfigError(f"the table {settings.file} is not a CSV file: {' '.join(str(error).split())}") from None
    name = f"table {path.name} (sha256 {hashlib.sha256(content).hexdigest()[:12]})"
    return TableSpace(_results(name, frame, settings.decisions))


def _results(name: str, frame: pd.DataFrame, columns: Sequence[str]) -> ResultsTable:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ConfigError(f"{name} has no column {missing[0]!r}; its columns: {', '.join(map(str, frame.columns))}")
    if len(set(columns)) != len(columns):
        raise ConfigError("--decisions names a column twice", received=f"{','.join(columns)}")
    if frame.empty:
        raise ConfigError(f"{name} has no rows")
    decisions, codes = [], []
    for column in columns:
        values = frame[column]
        if values.isna().any():
            raise ConfigError(f"{name}: row {int(values.isna().to_numpy().argmax()) + 1} has no value in {column!r}")
        plain = [_plain(value) for value in values]
        choices = tuple(sorted(set(plain)))
        position = {choice: index for index, choice in enumerate(choices)}
        decisions.append(Decision(column, choices, "op"))
        codes.append([position[value] for value in plain])
    rows: dict[Architecture, int] = {}
    for row, choice_indices in enumerate(zip(*codes, strict=True)):
        architecture = Architecture(choice_indices)
        if architecture in rows:
            raise ConfigError(
                f"{name}: rows {rows[architecture] + 1} and {row + 1} have the same decisions",
                fix="name all decision columns, or remove one of the rows",
            )
        rows[architecture] = row
    return ResultsTable(name, tuple(decisions), rows, frame)


def _plain(value: Any) -> Any:
    """A value as Python knows it; truth values as text, since JSON would give them back as such."""
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, bool) else value
