"""Search spaces by name. A new space is one file with a function of this signature and one line here."""

from __future__ import annotations

from collections.abc import Callable

from nas_edge.spaces.decisions import SearchSpace
from nas_edge.spaces.mobilenet_v3_like import mobilenet_v3_like
from nas_edge.spaces.proxylessnas import proxylessnas, proxylessnas_enlarged

# Each takes input_size, width_multiplier, classes, channels.
SPACES: dict[str, Callable[[int, float, int, int], SearchSpace]] = {
    "proxylessnas": proxylessnas,
    "proxylessnas-enlarged": proxylessnas_enlarged,
    "mobilenet-v3-like": mobilenet_v3_like,
}
