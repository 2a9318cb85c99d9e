"""A network to scale."""

from __future__ import annotations

from nas_edge.config import RunConfig, load_config
from nas_edge.scaling.grid import Grid
from nas_edge.spaces import find_space

SPACE = {"name": "proxylessnas", "input_size": 64, "width_multiplier": 1.0}


def architecture() -> str:
    """Two layers in each block, of the smallest choices."""
    space = find_space("proxylessnas")(64, 1.0, 10, 1)
    skipped = {path: "skip" for path in space.index if path.endswith(("layer3.op", "layer4.op"))}
    return str(space.canonical(space.encode(skipped)))


def scaled_config(input_size: int) -> RunConfig:
    space = {"name": "scaled", "of": SPACE, "architecture": architecture(), "input_size": input_size}
    return load_config("smoke", flags={"space": space})


def grid_of(input_size: int) -> Grid:
    return Grid(scaled_config(input_size), 10, 1)
