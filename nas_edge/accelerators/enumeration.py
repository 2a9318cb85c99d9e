"""The best of all accelerators for one network, by asking the simulator about each: 50,000 take well under a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_edge.accelerators.simulator import Simulated
from nas_edge.rewards import Objective


def fastest_within(simulated: Simulated, objectives: Sequence[Objective]) -> int:
    """The fastest of those that meet the targets of all other resources that the simulator tells of.

    A search lets the network use the time that this gains; a reward that peaks on the target would see no gain in a
    faster accelerator. Where none meets the targets, those that miss them least count.

    Args:
        simulated: a network on accelerators side by side.
        objectives: resources with targets; latency, and what the accelerator has no part in, is passed over.

    Returns:
        Its position.
    """
    usage = simulated.beside_latency
    excess = np.ones(len(simulated.latency_ms))
    for objective in objectives:
        if objective.resource in usage:
            excess = np.maximum(excess, objective.ratio(usage))
    return int(np.lexsort((simulated.latency_ms, excess))[0])
