"""A linear latency table: a bias plus one term per combination of choices.

    T(architecture) = bias + sum of the terms whose conditions all hold

The published Pixel-1 table of the ProxylessNAS space has this form (TuNAS reference code, `mobile_cost_model.py`): one
term per layer and (kernel, ratio) pair, or per skipped layer.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from nas_edge.errors import ConfigError
from nas_edge.spaces.decisions import Architecture, SearchSpace

Choice: TypeAlias = int | float | str


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


def read_tunas_pixel1(folder: Path, space: SearchSpace) -> LinearTable:
    """The published Pixel-1 table of the ProxylessNAS space at input 224.

    Args:
        folder: holds `proxylessnas_search_pixel1_cost_model.csv` (columns layer, type, choice, coef_ms; layers
            numbered 0..21, choices `sepconv_k3`, `mb_k3_e6`, `zero`) and `golden.json` (the bias).
        space: `proxylessnas`.

    Raises:
        ConfigError: when a file is missing or a row is not of this form.
    """
    path = folder / "proxylessnas_search_pixel1_cost_model.csv"
    try:
        bias_ms = float(json.loads((folder / "golden.json").read_text(encoding="utf-8"))["bias_ms"])
        with path.open(encoding="utf-8", newline="") as file:
            terms = [Term(_tunas_conditions(row), float(row["coef_ms"])) for row in csv.DictReader(file)]
    except OSError as error:
        raise ConfigError(f"cannot read the latency table: {error}") from error
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{folder} does not hold the published Pixel-1 table: {error}") from error
    return LinearTable(space, terms, bias_ms)


def _tunas_conditions(row: Mapping[str, str]) -> dict[str, Choice]:
    """Conditions of one row, for example `3,bneck,mb_k5_e6` -> block2.layer3 keeps kernel 5 and ratio 6."""
    position = int(row["layer"]) - 1
    # Layer 0 is block 1; 1..20 are blocks 2..6 of four layers; 21 is block 7.
    where = "block1.layer1" if position < 0 else f"block{2 + position // 4}.layer{1 + position % 4}"
    kind, *numbers = row["choice"].split("_")
    if kind == "sepconv":
        return {f"{where}.kernel": numbers[0]}
    if kind == "zero":
        return {f"{where}.op": "skip"}
    if kind != "mb":
        raise ValueError(f"unknown choice {row['choice']!r}")
    return {f"{where}.kernel": numbers[0], f"{where}.ratio": int(numbers[1][1:]), f"{where}.op": "keep"}
