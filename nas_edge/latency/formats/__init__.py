"""Public formats of latency tables. A new one is one file and one line in `FORMATS`.

tunas         TuNAS' published Pixel-1 table of `proxylessnas`: CSV, with `golden.json` beside it
proxylessnas  YAML of ProxylessNAS and Once-for-all: milliseconds by block
single-path   JSON of Single-Path NAS: milliseconds by layer and choice
fbnet         CSV by layer, shape and operator of the FBNet space
linear        JSON of `table:FILE`
"""

from __future__ import annotations

from collections.abc import Mapping

from nas_edge.latency.formats.base import TableFormat
from nas_edge.latency.formats.fbnet import FBNET
from nas_edge.latency.formats.linear import LINEAR
from nas_edge.latency.formats.proxylessnas import PROXYLESSNAS
from nas_edge.latency.formats.single_path import SINGLE_PATH
from nas_edge.latency.formats.tunas import TUNAS

FORMATS: Mapping[str, TableFormat] = {
    "tunas": TUNAS,
    "proxylessnas": PROXYLESSNAS,
    "single-path": SINGLE_PATH,
    "fbnet": FBNET,
    "linear": LINEAR,
}
