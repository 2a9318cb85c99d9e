"""What a public format of latency tables is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nas_edge.errors import ConfigError
from nas_edge.formatting import reason
from nas_edge.latency.model_file import LARGEST_BYTES, ModelFile
from nas_edge.regular_file import open_regular
from nas_edge.spaces.decisions import SearchSpace


@dataclass(frozen=True)
class TableFormat:
    """A format.

    Attributes:
        summary: what it is, in a few words.
        read: makes a model of the file.
        write: makes files of a model, by the suffix that is added to the name ("" for the file itself); for the space
            that is given, where the format needs one. None where nothing is written.

    `read` and `write` raise ConfigError when the file, or the model, does not fit.
    """

    summary: str
    read: Callable[[Path], ModelFile]
    write: Callable[[ModelFile, SearchSpace | None], Mapping[str, str]] | None = None


def read_text(path: Path) -> str:
    """The text of a table.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the table {path}: {error.strerror or error}") from None
    if len(content) > LARGEST_BYTES:
        raise ConfigError(f"{path} is larger than {LARGEST_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text: byte {error.start} is not UTF-8") from None


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Says of whatever goes wrong which file it is and what it should be.

    Raises:
        ConfigError: in place of the errors that reading it has.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not {what}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError, csv.Error) as error:
        raise ConfigError(f"{path} is not {what}: {reason(error)}") from None


def unfit(what: str, file: ModelFile) -> ConfigError:
    """What to raise when a model cannot be written in a format."""
    return ConfigError(f"{what}, and this model is of the kind {file.model.kind}")
