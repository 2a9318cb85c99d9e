"""A space of a single point: one network of another space, made deeper and wider, as `nas-edge scale` delivers it.

Its decisions, depth and width, have a single choice each, so that every part of a run treats it like any other space.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nas_edge.errors import SpaceError
from nas_edge.networks.scaling import scaled
from nas_edge.networks.template import resolve
from nas_edge.spaces.decisions import Decision, NetworkSpace, SearchSpace
from nas_edge.spaces.settings import NetworkSpaceSettings


class ScaledSettings(NetworkSpaceSettings):
    """Settings of `scaled`; the input size is scaled, too."""

    name: str = "scaled"
    of: dict[str, Any] = Field(description="settings of the network's original space")
    architecture: str = Field(description="the network, an architecture of that space")
    depth: float = Field(1.0, gt=0, le=16, description="factor of the number of layers of each block")
    width: float = Field(1.0, gt=0, le=16, description="factor of the width of each block")


def scaled_space(settings: ScaledSettings, of: SearchSpace) -> NetworkSpace:
    """The space of one scaled network.

    Args:
        settings: which network of the original space, and how it is scaled.
        of: the original space, at the input size of the scaled network.

    Raises:
        SpaceError: when that is not a space of networks, or has no such architecture.
    """
    if not isinstance(of, NetworkSpace):
        raise SpaceError(f"networks of {of.name} cannot be scaled: the space has no template")
    network = resolve(of.template, of.choices(of.parse(settings.architecture)))
    decisions = [Decision("depth", (settings.depth,), "scale"), Decision("width", (settings.width,), "scale")]
    template = scaled(network, settings.depth, settings.width)
    return NetworkSpace(f"{of.name}, scaled", template, decisions, of.input_shape, of.outputs)
