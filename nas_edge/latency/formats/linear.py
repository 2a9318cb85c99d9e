"""The linear tables of `table:FILE`; see `latency/table.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from nas_edge.errors import ConfigError
from nas_edge.latency.formats.base import TableFormat, read_text, unfit
from nas_edge.latency.model_file import ModelFile, Provenance
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.table import parse_linear
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace


def _read(path: Path) -> ModelFile:
    table = parse_linear(read_text(path), str(path))
    # The file does not say of which space it is; the terms do when it is used.
    note = f"inputs of {'x'.join(map(str, table.input_shape))}"
    model = DecisionModel(bias_ms=table.bias_ms, terms=table.terms)
    return ModelFile(provenance=Provenance(source="linear", note=note), model=model)


def _write(file: ModelFile, space: SearchSpace | None) -> Mapping[str, str]:
    model, told = file.model, file.provenance.space
    if not isinstance(model, DecisionModel):
        raise unfit("linear tables are linear in the decisions", file)
    shape = space.input_shape if isinstance(space, NetworkSpace) else told and told.input_shape
    if shape is None:
        raise ConfigError("a linear table says the shape of its inputs, which this model does not tell", fix="--space")
    terms = [{"when": dict(term.when), "ms": term.ms} for term in model.terms]
    table = {"schema_version": 1, "input_shape": list(shape), "bias_ms": model.bias_ms, "terms": terms}
    return {"": json.dumps(table, indent=1) + "\n"}


LINEAR = TableFormat("a linear table of `table:FILE`, JSON", _read, _write)
