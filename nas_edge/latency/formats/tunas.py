"""TuNAS' published linear table of the ProxylessNAS space: CSV with the columns layer, type, choice and coef_ms.

The bias is `bias_ms` of `golden.json` beside it. Layer 0 is block 1, 1 to 20 are blocks 2 to 6 with four layers each,
21 is block 7; choices are `sepconv_k3`, `mb_k3_e6` and `zero`.

Source: google-research/tunas, `cost_model_data.py`, decoded; see `latency.table.read_tunas_pixel1`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from nas_edge.errors import ConfigError
from nas_edge.latency.formats.base import TableFormat, read_text, reading, unfit
from nas_edge.latency.model_file import ModelFile, Provenance, SpaceRecord
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.table import TUNAS_COLUMNS, Term, tunas_terms
from nas_edge.spaces.decisions import SearchSpace

_WHAT = "the published Pixel-1 table of TuNAS"


def _read(path: Path) -> ModelFile:
    text, golden = read_text(path), path.with_name("golden.json")
    bias = read_text(golden)
    with reading(golden, "a JSON object with bias_ms"):
        bias_ms = float(json.loads(bias)["bias_ms"])
    with reading(path, _WHAT):
        terms = tunas_terms(csv.DictReader(io.StringIO(text)))
        if not terms:
            raise ValueError("it has no rows")
        model = DecisionModel(bias_ms=bias_ms, terms=tuple(terms))
    space = SpaceRecord(name="proxylessnas", input_shape=(224, 224, 3))
    return ModelFile(provenance=Provenance(source="tunas", device="Pixel 1", space=space), model=model)


def _write(file: ModelFile, space: SearchSpace | None) -> Mapping[str, str]:
    model = file.model
    if not isinstance(model, DecisionModel):
        raise unfit("tunas tables are linear in the decisions", file)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(TUNAS_COLUMNS)
    for term in model.terms:
        if term.ms != 0.0 or len(term.when) > 1:
            writer.writerow([*_row(term), term.ms])
    return {"": out.getvalue(), "golden.json": json.dumps({"bias_ms": model.bias_ms}) + "\n"}


def _row(term: Term) -> tuple[int, str, str]:
    """Layer, type and choice of a term."""
    choices = {path.rpartition(".")[2]: value for path, value in term.when.items()}
    layers = {path.rpartition(".")[0] for path in term.when}
    try:
        (layer,) = layers
        block, number = (
            int(part.removeprefix(word)) for part, word in zip(layer.split("."), ("block", "layer"), strict=True)
        )
        if choices == {"op": "skip"}:
            return 4 * (block - 2) + number, "bneck", "zero"
        if block == 1 and set(choices) == {"kernel"}:
            return 0, "sep", f"sepconv_{choices['kernel']}"
        if set(choices) == {"kernel", "ratio", "op"} and choices["op"] == "keep":
            return 4 * (block - 2) + number, "bneck", f"mb_{choices['kernel']}_e{choices['ratio']}"
    except ValueError:
        pass
    listed = ", ".join(f"{path}={value}" for path, value in term.when.items())
    raise ConfigError(f"tunas tables have a term per layer of proxylessnas, and the model has one of {listed}")


TUNAS = TableFormat("the published Pixel-1 table of TuNAS, CSV", _read, _write)
