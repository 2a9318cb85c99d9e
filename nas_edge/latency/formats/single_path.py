"""The table of Single-Path NAS: JSON, milliseconds by layer and choice.

    {"0": {"0": 3.98, ...}, "1": {"0": 4.49, "1": 9.20, "2": 5.92, "3": 11.59}, ...}

22 layers of inverted bottlenecks at 224 pixels; choices are kernel 3 with ratio 3, kernel 3 with ratio 6, kernel 5 with
ratio 3, kernel 5 with ratio 6. Layer 0 has no expansion, so its choices are measurements of the same block but for the
kernel. The first convolution and the head are not part of it.

Source: enyac-group/single-path-nas, `pixel1_runtime_model.json`, `supernet_macro.py`, `superkernel.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean

from nas_edge.latency.formats.base import TableFormat, read_text, reading, unfit
from nas_edge.latency.model_file import ModelFile, Provenance
from nas_edge.latency.models.blocks import BOTTLENECK, Block, BlockTable
from nas_edge.spaces.decisions import SearchSpace

_CHOICES = ((3, 3), (3, 6), (5, 3), (5, 6))  # kernel and ratio
# Layers, stride of the first, output channels; at 112 pixels and 32 channels.
_STAGES = ((1, 1, 16), (4, 2, 24), (4, 2, 40), (4, 2, 80), (4, 1, 96), (4, 2, 192), (1, 1, 320))


def _layers() -> Iterator[tuple[int, int, int, int]]:
    """Side, input channels, output channels and stride of each layer."""
    side, channels = 112, 32
    for layers, first_stride, filters in _STAGES:
        for layer in range(layers):
            stride = first_stride if layer == 0 else 1
            yield side, channels, filters, stride
            side, channels = -(-side // stride), filters


def _keys() -> Iterator[tuple[str, str, str]]:
    """Layer and choice of the table, and the block that they are."""
    for layer, (side, channels, filters, stride) in enumerate(_layers()):
        for choice, (kernel, ratio) in enumerate(_CHOICES):
            ratio = 1 if layer == 0 else ratio
            after = -(-side // stride)
            block = Block(
                BOTTLENECK,
                (side, side, channels),
                (after, after, filters),
                width=ratio * channels,
                kernel=kernel,
                stride=stride,
                residual=stride == 1 and channels == filters,
            )
            yield str(layer), str(choice), block.key(by_channels=False)


def _read(path: Path) -> ModelFile:
    text = read_text(path)
    with reading(path, "the table of Single-Path NAS"):
        raw = json.loads(text)
        found: dict[str, list[float]] = {}
        for layer, choice, key in _keys():
            found.setdefault(key, []).append(float(raw[layer][choice]))
        # Layers that are the same block were measured one by one.
        model = BlockTable(covers=(BOTTLENECK,), entries={key: fmean(times) for key, times in found.items()})
    note = "inverted bottlenecks only: the first convolution and the head are not part of the table"
    return ModelFile(provenance=Provenance(source="single-path", device="Pixel 1", note=note), model=model)


def _write(file: ModelFile, space: SearchSpace | None) -> Mapping[str, str]:
    model = file.model
    if not isinstance(model, BlockTable) or model.by_channels:
        raise unfit("tables of Single-Path NAS are written of tables of blocks", file)
    with reading(Path("this model"), "of the blocks of Single-Path NAS"):
        table: dict[str, dict[str, float]] = {}
        for layer, choice, key in _keys():
            table.setdefault(layer, {})[choice] = model.entries[key]
    return {"": json.dumps(table, indent=1) + "\n"}


SINGLE_PATH = TableFormat("the table of Single-Path NAS, JSON", _read, _write)
