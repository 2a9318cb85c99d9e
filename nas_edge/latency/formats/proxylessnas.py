"""The tables of ProxylessNAS and Once-for-all: YAML, milliseconds by block.

    expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:5-stride:2-idskip:0:
      mean: 6.81
      count: 100

Source: mit-han-lab/proxylessnas and mit-han-lab/once-for-all, `LatencyEstimator`, which reads `mean` by such a key;
`count` is how often was measured. Values are milliseconds, as the sums that both report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import yaml

from nas_edge.errors import ConfigError
from nas_edge.latency.formats.base import TableFormat, read_text, reading, unfit
from nas_edge.latency.model_file import ModelFile, Provenance
from nas_edge.latency.models.blocks import Block, BlockTable, spans_of
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.subject import OperatorShape, operator_sequence
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace

_WHAT = "a table of blocks, such as those of ProxylessNAS"
# Architectures in a row without a new block, after which there are taken to be no others.
_WITHOUT_NEWS, _MOST = 200, 20_000


def _read(path: Path) -> ModelFile:
    text = read_text(path)
    with reading(path, _WHAT):
        try:
            raw = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(getattr(error, "problem", None) or error).split())) from None
        if not isinstance(raw, dict) or not raw:
            raise ValueError("expected milliseconds by block")
        entries = {str(key): float(value["mean"] if isinstance(value, dict) else value) for key, value in raw.items()}
        kinds = tuple(dict.fromkeys(key.partition("-")[0] for key in entries))
        model = BlockTable(covers=kinds, entries=entries)
    return ModelFile(provenance=Provenance(source="proxylessnas"), model=model)


def _write(file: ModelFile, space: SearchSpace | None) -> Mapping[str, str]:
    model = file.model
    if isinstance(model, BlockTable):
        times = dict(model.entries)
    elif isinstance(model, OperatorTable):
        if not isinstance(space, NetworkSpace):
            raise ConfigError("a table of blocks is written for a space of networks", fix="name it with --space")
        times = _times(model, space)
    else:
        raise unfit("tables of blocks are written of operator tables", file)
    return {"": yaml.safe_dump({key: {"mean": ms} for key, ms in times.items()}, sort_keys=False, width=1000)}


def _times(model: OperatorTable, space: NetworkSpace) -> dict[str, float]:
    found = dict(_blocks(space))
    by_channels = any(block.squeezes or block.hard_swish for block in found)
    times: dict[str, float] = {}
    of_key: dict[str, Block] = {}
    for block, operators in found.items():
        key = block.key(by_channels)
        if key in of_key:
            raise ConfigError(
                f"{space.name} has blocks that the format cannot tell apart: {key} with and without an expansion"
            )
        of_key[key] = block
        times[key] = float(sum(model.operator_ms(operator) for operator in operators))
    # What every network pays is in its first block, which every network has.
    first = next(key for key, block in of_key.items() if block.kind == "Conv")
    times[first] += model.bias_ms
    return times


def _blocks(space: NetworkSpace) -> Iterator[tuple[Block, tuple[OperatorShape, ...]]]:
    """Blocks of the networks of a space, each once, until no new ones turn up."""
    rng, seen, without = np.random.default_rng(0), set[Block](), 0
    for _ in range(_MOST):
        spans = spans_of(operator_sequence(space.decode(space.canonical(space.sample(rng)))))
        if spans is None:
            raise ConfigError(f"{space.name} has networks that are not made of inverted bottlenecks")
        new = [(block, tuple(operators)) for block, operators in spans if block not in seen]
        seen.update(block for block, _ in new)
        yield from new
        without = 0 if new else without + 1
        if without >= _WITHOUT_NEWS:
            return


PROXYLESSNAS = TableFormat("tables of ProxylessNAS and Once-for-all, YAML", _read, _write)
