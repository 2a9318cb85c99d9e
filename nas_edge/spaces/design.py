"""`Design`: everything that an architecture decides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nas_edge.errors import SpaceError
from nas_edge.networks.graph import NetworkSpec

Extra: TypeAlias = int | float | str


@dataclass(frozen=True)
class Design:
    """What a point of a space stands for: a network, and what a joint space decides beside it.

    Attributes:
        network: what runs on the device; None in a space of which only a table of results is known.
        extras: the values decided beside the network, for example those of an accelerator, by name.
    """

    network: NetworkSpec | None
    extras: Mapping[str, Extra] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Equal for equal designs; that of the network where there is nothing beside it."""
        if self.network is not None and not self.extras:
            return self.network.fingerprint
        content = [self.network and self.network.fingerprint, sorted(self.extras.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def needed_network(self) -> NetworkSpec:
        """The network.

        Raises:
            SpaceError: when there is none.
        """
        if self.network is None:
            raise SpaceError("this space describes no networks, so there is nothing to measure, train or export")
        return self.network
