"""Latencies from a table that was measured beforehand, `table:FILE`.

A linear table, JSON, has a bias plus one term per combination of choices:

    T(architecture) = bias + sum of the terms whose conditions all hold

    {"schema_version": 1, "input_shape": [224, 224, 3], "bias_ms": 92.1,
     "terms": [{"when": {"block2.layer1.kernel": "k5", "block2.layer1.ratio": 6}, "ms": 1.3}, ...]}

The published Pixel-1 table of the ProxylessNAS space has this form (TuNAS reference code, `mobile_cost_model.py`): one
term per layer and (kernel, ratio) pair, or per skipped layer. It is read as it was published, a CSV file with the
columns layer, type, choice and coef_ms. A CSV file with the columns architecture and latency_ms has a row for every
architecture of the space.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_agents.api import Verdict
from nas_edge.errors import ConfigError, RunError, SpaceError
from nas_edge.formatting import reason
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.source import Candidate, LatencySource, resolve
from nas_edge.spaces.decisions import Architecture, NetworkSpace, SearchSpace

Choice: TypeAlias = int | float | str

TUNAS_COLUMNS = ["layer", "type", "choice", "coef_ms"]
_ARCHITECTURE_COLUMNS = ["architecture", "latency_ms"]


class TableSource(LatencySource):
    """Answers with what a table says.

    Args:
        latency_ms: looks an architecture of the space up; None for one that the table does not have.
        name: for reports; tables that differ have other names.
    """

    def __init__(self, latency_ms: Callable[[Architecture], float | None], name: str) -> None:
        self._latency_ms, self._name = latency_ms, name

    @property
    def name(self) -> str:
        """The table's name."""
        return self._name

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`; an architecture that the table does not have is the verdict `not_known`."""
        future: Future[LatencyAnswer] = Future()
        try:
            resolve(future, self._look_up(candidate))
        except RunError as error:
            resolve(future, error)
        return future

    def _look_up(self, candidate: Candidate) -> LatencyAnswer:
        if candidate.architecture is None:
            raise RunError(f"{self._name} knows the architectures of its space only", fix="name a target (--target-ms)")
        latency_ms = self._latency_ms(candidate.architecture)
        if latency_ms is None:
            missing = f"{self._name} has no latency of {candidate.architecture}"
            return LatencyAnswer.failed(LatencyKind.LOOKED_UP, Verdict.NOT_KNOWN, missing)
        if not 0 < latency_ms < math.inf:
            raise RunError(
                f"{self._name} gives {candidate.architecture} a latency of {latency_ms:g} ms",
                fix="correct it, and start a new run",
            )
        return LatencyAnswer.estimated(LatencyKind.LOOKED_UP, latency_ms)


def check_latencies(name: str, known: Mapping[Architecture, float]) -> None:
    """Refuses a table before it stops a search half-way.

    Raises:
        ConfigError: when it gives an architecture a latency that there cannot be.
    """
    for architecture, latency_ms in known.items():
        if not 0 < latency_ms < math.inf:
            raise ConfigError(
                f"{name} gives {architecture} a latency that there cannot be",
                expected="milliseconds above 0",
                received=f"{latency_ms:g}",
            )


class TableSettings(LatencySettings):
    """Settings of `table`."""

    text_field: ClassVar[str] = "file"

    source: str = "table"
    file: str = Field(min_length=1, description="a linear table (JSON), or a CSV file with a row per architecture")


def open_table(file: str, space: SearchSpace) -> TableSource:
    """Reads a table; see the top of this file. Which precision it was measured in is for the user to know.

    Raises:
        ConfigError: when it cannot be read or does not fit the space.
    """
    path = Path(file).expanduser()
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the latency table {file!r}: {error}", expected="table:FILE") from error
    # The content is part of the name, so that a run is not continued with another table in the same place.
    name = f"table {path.name} (sha256 {hashlib.sha256(content).hexdigest()[:12]})"
    columns = text.split("\n", 1)[0].strip().split(",")
    if columns == TUNAS_COLUMNS:
        return TableSource(read_tunas_pixel1(path, space).latency_ms, name)
    if columns == _ARCHITECTURE_COLUMNS:
        return TableSource(_read_architectures(text, name, space), name)
    return TableSource(_read_linear(text, name, space).latency_ms, name)


@dataclass(frozen=True)
class Term:
    """Milliseconds that count when every named decision has the given choice *value*."""

    when: Mapping[str, Choice]
    ms: float


class LinearTable:
    """Latency of an architecture as a sum of table entries.

    Args:
        space: whose architectures the table costs.
        terms: its entries.
        bias_ms: what every architecture pays.

    Raises:
        ConfigError: when a term names a decision or choice that the space does not have.
    """

    def __init__(self, space: SearchSpace, terms: Sequence[Term], bias_ms: float) -> None:
        self._bias_ms = bias_ms
        # Keyed by (decision positions) -> (choice indices) -> ms, so that costing is one look-up per layer.
        self._groups: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
        for term in terms:
            positions, indices = [], []
            for path, value in term.when.items():
                position = space.index.get(path)
                if position is None or value not in space.decisions[position].choices:
                    raise ConfigError(f"the latency table names {path}={value!r}, which {space.name} does not offer")
                positions.append(position)
                indices.append(space.decisions[position].choices.index(value))
            group = self._groups.setdefault(tuple(positions), {})
            group[tuple(indices)] = group.get(tuple(indices), 0.0) + term.ms

    def latency_ms(self, architecture: Architecture) -> float:
        """What the table says, in milliseconds."""
        choices = architecture.choices
        return self._bias_ms + math.fsum(
            costs.get(tuple(choices[position] for position in positions), 0.0)
            for positions, costs in self._groups.items()
        )


class LinearTableFile(BaseModel):
    """The content of a linear table's file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1]
    input_shape: tuple[int, int, int]
    bias_ms: float
    terms: tuple[Term, ...]


def parse_linear(text: str, name: str) -> LinearTableFile:
    """Reads a linear table.

    Args:
        text: of the file.
        name: for the message.

    Raises:
        ConfigError: when it is none.
    """
    try:
        return LinearTableFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ConfigError(
            f"{name} is neither a linear table nor a CSV file with the columns {','.join(_ARCHITECTURE_COLUMNS)}: "
            f"{where}: {first['msg']}"
        ) from None


def _read_linear(text: str, name: str, space: SearchSpace) -> LinearTable:
    table = parse_linear(text, name)
    _check_shape(name, table.input_shape, space)
    return LinearTable(space, table.terms, table.bias_ms)


def _check_shape(name: str, input_shape: tuple[int, int, int], space: SearchSpace) -> None:
    if not isinstance(space, NetworkSpace):
        raise ConfigError(f"{name} is a latency table of networks, which {space.name} does not describe")
    if space.input_shape != input_shape:
        raise ConfigError(f"{name} was measured with inputs of {input_shape}, but this run's are {space.input_shape}")


def _read_architectures(text: str, name: str, space: SearchSpace) -> Callable[[Architecture], float | None]:
    known: dict[Architecture, float] = {}
    rows = csv.reader(io.StringIO(text))
    next(rows)  # the columns' names
    try:
        for architecture, latency_ms in rows:
            known[space.canonical(space.parse(architecture))] = float(latency_ms)
    except (SpaceError, ValueError, csv.Error) as error:
        raise ConfigError(f"line {rows.line_num} of {name} is not an architecture with its latency: {error}") from None

    check_latencies(name, known)
    return lambda architecture: known.get(space.canonical(architecture))


def read_tunas_pixel1(path: Path, space: SearchSpace) -> LinearTable:
    """The published Pixel-1 table of the ProxylessNAS space at input 224.

    Args:
        path: CSV file with columns layer, type, choice, coef_ms; layers numbered 0..21, choices `sepconv_k3`,
            `mb_k3_e6`, `zero`. The published bias is `bias_ms` of `golden.json` beside it.
        space: `proxylessnas`.

    Raises:
        ConfigError: when a file is missing or a row is not of this form.
    """
    _check_shape(path.name, (224, 224, 3), space)
    try:
        bias_ms = float(json.loads(path.with_name("golden.json").read_text(encoding="utf-8"))["bias_ms"])
        with path.open(encoding="utf-8", newline="") as file:
            terms = tunas_terms(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"cannot read the latency table: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise ConfigError(f"{path} does not hold the published Pixel-1 table: {reason(error)}") from error
    return LinearTable(space, terms, bias_ms)


def tunas_terms(rows: Iterable[Mapping[str, str]]) -> list[Term]:
    """The terms of the published Pixel-1 table.

    Args:
        rows: of its CSV file.

    Raises:
        KeyError, ValueError: when a row is not of its form.
    """
    terms = [Term(_tunas_conditions(row), float(row["coef_ms"])) for row in rows]
    # A space of other widths does not offer that, and is refused.
    return [*terms, Term({"stem.filters": 32}, 0.0)] if terms else []


def _tunas_conditions(row: Mapping[str, str]) -> dict[str, Choice]:
    """Conditions of one row, for example `3,bneck,mb_k5_e6` -> block2.layer3 keeps kernel 5 and ratio 6."""
    position = int(row["layer"]) - 1
    # Layer 0 is block 1; 1..20 are blocks 2..6 of four layers; 21 is block 7.
    where = "block1.layer1" if position < 0 else f"block{2 + position // 4}.layer{1 + position % 4}"
    kind, *numbers = row["choice"].split("_")
    if kind == "sepconv":
        (kernel,) = numbers
        return {f"{where}.kernel": kernel}
    if kind == "zero":
        return {f"{where}.op": "skip"}
    if kind != "mb":
        raise ValueError(f"unknown choice {row['choice']!r}")
    kernel, ratio = numbers
    return {f"{where}.kernel": kernel, f"{where}.ratio": int(ratio[1:]), f"{where}.op": "keep"}
