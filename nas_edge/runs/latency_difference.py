"""Whether two delivered files differ in latency. The only place that decides it for results."""

from __future__ import annotations

from device_agents.api import Measurement
from device_agents.ratios import paired_ratio, ratio_of_latencies


def latency_differs(first: Measurement | None, second: Measurement | None) -> bool | None:
    """Whether two networks, measured side by side, differ significantly in latency.

    They do where the 95% interval of their ratio does not contain 1. The ratio is that within shared rounds of visits,
    see `device_agents.ratios`; of what has too few of them, or was measured in one go, that of the latencies.

    Args:
        first: of one network; None where it was not measured.
        second: of the other.

    Returns:
        None where that is not known: a measurement is missing, flagged, or too short for an interval.
    """
    if first is None or second is None or not first.ok or not second.ok:
        return None
    ratio = paired_ratio(first, second) or ratio_of_latencies(first, second)
    return None if ratio is None else ratio.significant
