"""The best of all accelerators for one network, by simulating each: 50,000 take well under a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_edge.accelerators.simulator import Simulated
from nas_edge.rewards import Objective


def fastest_within(simulated: Simulated, objectives: Sequence[Objective]) -> int:
    """The fastest accelerator that meets the targets of all other simulated resources.

    A reward that peaks at the target would see no gain in a faster accelerator; the search spends the time gained on a
    better network. If no accelerator meets the targets, the fastest of those that miss them least.

    Args:
        simulated: a network on several accelerators.
        objectives: resources with targets; latency, and resources that the simulator does not give, are ignored.

    Returns:
        Its index.
    """
    usage = simulated.other_usage
    excess = np.ones(len(simulated.latency_ms))
    for objective in objectives:
        if objective.resource in usage:
            excess = np.maximum(excess, objective.ratio(usage))
    return int(np.lexsort((simulated.latency_ms, excess))[0])
