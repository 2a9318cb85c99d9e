"""Learning rates that go by the size of the network that is trained.

One schedule for all leaves large networks of a supernet behind: they need more steps than small ones, whose accuracies
shared weights then overrate. So the learning rate falls sooner where a small network is trained, and later where it is
a large one. Of the peak there is left, after the warm-up,

    c ** 2 ** (1 - 2 * q)       c: the cosine's share, from 1 down to 0
                                q: the share of the space's networks with fewer multiply-adds

which is c squared for the smallest network, c for the median one, and the root of c for the largest.

Source: the complexity-aware learning rate scheduler of arXiv:2503.10740; this form of its exponent is the project's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas_edge.networks.analysis import analyze
from nas_edge.spaces.decisions import Architecture, NetworkSpace

if TYPE_CHECKING:
    from nas_edge.training.schedules import PowerOfCosine

_DRAWN = 200


class DecayBySize:
    """Sets the power of a schedule for the network that is trained next.

    Args:
        space: of the networks.
        schedule: of the learning rate.
        rng: draws the networks that others are compared with.
    """

    def __init__(self, space: NetworkSpace, schedule: PowerOfCosine, rng: np.random.Generator) -> None:
        self._space, self._schedule = space, schedule
        self._sizes = np.sort([self._macs(space.sample(rng)) for _ in range(_DRAWN)])

    def power(self, architecture: Architecture) -> float:
        """What the cosine is raised to: 2 for the smallest network, 0.5 for the largest."""
        below = np.searchsorted(self._sizes, self._macs(architecture)) / len(self._sizes)
        return float(2.0 ** (1.0 - 2.0 * below))

    def set_for(self, architecture: Architecture) -> None:
        """To be called before an update."""
        self._schedule.power.assign(self.power(architecture))

    def _macs(self, architecture: Architecture) -> int:
        return analyze(self._space.decode(architecture)).macs
