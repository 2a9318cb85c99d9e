"""One network of another space, made deeper and wider: what `nas-edge scale` delivers is the one point of such a space.

Its decisions have a single choice each, depth and width, so that every part of a run treats it as any other space.
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
    """Settings of `scaled`; the input size is the third way to scale."""

    name: str = "scaled"
    of: dict[str, Any] = Field(description="settings of the space that the network is of")
    architecture: str = Field(description="which network of that space")
    depth: float = Field(1.0, gt=0, le=16, description="times the layers of each block")
    width: float = Field(1.0, gt=0, le=16, description="times the width of each block")


def scaled_space(settings: ScaledSettings, of: SearchSpace) -> NetworkSpace:
    """The space of the one network.

    Args:
        settings: which network of the other space, and how it is scaled.
        of: the other space, at the input size of the scaled network.

    Raises:
        SpaceError: when that is no space of networks, or has no such architecture.
    """
    if not isinstance(of, NetworkSpace):
        raise SpaceError(f"{of.name} has no template of its networks, so they cannot be scaled")
    network = resolve(of.template, of.choices(of.parse(settings.architecture)))
    decisions = [Decision("depth", (settings.depth,), "scale"), Decision("width", (settings.width,), "scale")]
    template = scaled(network, settings.depth, settings.width)
    return NetworkSpace(f"{of.name}, scaled", template, decisions, of.input_shape, of.outputs)
