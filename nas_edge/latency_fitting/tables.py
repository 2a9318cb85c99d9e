"""`latency import` and `latency export`: between models and the formats of published tables."""

from __future__ import annotations

from pathlib import Path

from nas_edge.errors import ConfigError, RunError
from nas_edge.latency.formats import FORMATS
from nas_edge.latency.formats.base import TableFormat
from nas_edge.latency.model_file import ModelFile
from nas_edge.runs.files import FILES
from nas_edge.spaces.decisions import SearchSpace


def import_table(table: Path, form: str, out: Path) -> ModelFile:
    """Makes a model of a published table, and writes it.

    Args:
        table: a file.
        form: a name in `FORMATS`.
        out: new file.

    Raises:
        ConfigError: when the format is unknown, or the table is not of it.
        RunError: when `out` exists, or cannot be written.
    """
    file = _format(form).read(table)
    _write(out, file.to_text())
    return file


def export_table(file: ModelFile, form: str, out: Path, space: SearchSpace | None) -> list[Path]:
    """Writes a model as a published table.

    Args:
        file: the model.
        form: a name in `FORMATS`.
        out: new file; others of the format go beside it.
        space: that the table is for, where the format needs one.

    Returns:
        What was written.

    Raises:
        ConfigError: when the model does not fit the format.
        RunError: when a file exists, or cannot be written.
    """
    write = _format(form).write
    if write is None:
        raise ConfigError(f"tables of the format {form} are read, and not written")
    texts = {out if not name else out.with_name(name): text for name, text in write(file, space).items()}
    if taken := next((path for path in texts if path.exists()), None):
        raise RunError(f"{taken} exists already", fix="name a file in another folder with --out")
    for path, text in texts.items():
        _write(path, text)
    return list(texts)


def _format(name: str) -> TableFormat:
    if name not in FORMATS:
        raise ConfigError(f"unknown format of latency tables {name!r}; supported: {', '.join(FORMATS)}")
    return FORMATS[name]


def _write(path: Path, text: str) -> None:
    if path.exists():
        raise RunError(f"{path} exists already", fix="name a new file with --out")
    FILES.write_whole(path, text.encode())
