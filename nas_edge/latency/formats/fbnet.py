"""Times of the FBNet space by layer and operator: CSV, as recovered from HW-NAS-Bench's Pixel 3.

    layer,stage,H,Cin,Cout,stride,op,pixel3_ms_minus_skip
    1,1,32,16,24,1,k3_e3,0.6414929

`op` is kernel and ratio. Times are relative to the layer being skipped, so the fixed part of a network is not in them.
Operators with groups, `k3_e1_g2`, are of layers that no space here has, and are left out.

Source: FBNet, arXiv:1812.03443, table 1; HW-NAS-Bench, arXiv:2103.10584.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from nas_edge.latency.formats.base import TableFormat, read_text, reading
from nas_edge.latency.model_file import ModelFile, Provenance
from nas_edge.latency.models.blocks import BOTTLENECK, Block, BlockTable

_COLUMNS = ["layer", "stage", "H", "Cin", "Cout", "stride", "op"]
_OPERATOR = re.compile(r"k([0-9]+)_e([0-9]+)(_g[0-9]+)?")


def _read(path: Path) -> ModelFile:
    text = read_text(path)
    with reading(path, "a table of the FBNet space"):
        rows = csv.reader(io.StringIO(text))
        columns = next(rows, [])
        if columns[: len(_COLUMNS)] != _COLUMNS or len(columns) != len(_COLUMNS) + 1:
            raise ValueError(f"expected the columns {','.join(_COLUMNS)},MS; received {','.join(columns)[:80]}")
        entries: dict[str, float] = {}
        for row in rows:
            try:
                _, _, *numbers, operator, ms = row
                side, channels, filters, stride = map(int, numbers)
                match = _OPERATOR.fullmatch(operator)
                if match is None:
                    raise ValueError(f"unknown operator {operator!r}")
            except ValueError as error:
                raise ValueError(f"line {rows.line_num}: {error}") from None
            kernel, ratio, groups = match.groups()
            if groups is not None:
                continue
            block = Block(
                BOTTLENECK,
                (side, side, channels),
                (-(-side // stride), -(-side // stride), filters),
                width=int(ratio) * channels,
                kernel=int(kernel),
                stride=stride,
                residual=stride == 1 and channels == filters,
            )
            entries.setdefault(block.key(by_channels=False), float(ms))
        model = BlockTable(covers=(BOTTLENECK,), entries=entries)
    device = columns[-1].partition("_ms")[0]
    note = "inverted bottlenecks relative to skipping them: the fixed part of a network is not in the table"
    return ModelFile(provenance=Provenance(source="fbnet", device=device, note=note), model=model)


FBNET = TableFormat("times of the FBNet space by layer and operator, CSV", _read)
