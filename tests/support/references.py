"""Published networks, without those that are others made deeper and wider: of these, counts are enough."""

from __future__ import annotations

from nas_edge.spaces.published import REFERENCE_NETWORKS

SCALED = ("efficientnet-edgetpu-l", *(f"efficientnet-lite{number}" for number in range(1, 5)))
ONE_OF_A_FAMILY = tuple(name for name in REFERENCE_NETWORKS if name not in SCALED)
