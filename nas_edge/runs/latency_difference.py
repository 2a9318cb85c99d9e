"""Whether two delivered files differ in latency. The only place that decides it for results."""

from __future__ import annotations

from device_agents.api import Measurement


def latency_differs(first: Measurement | None, second: Measurement | None) -> bool | None:
    """Whether two networks, measured interleaved, differ significantly in latency.

    They do where the 95% intervals of their medians do not overlap. That errs on the side of caution: a small
    difference that a paired test would find may be missed.

    Args:
        first: of one network; None where it was not measured.
        second: of the other.

    Returns:
        None where that is not known: a measurement is missing, flagged, or too short for an interval.
    """
    if first is None or second is None or not first.ok or not second.ok:
        return None
    if first.statistics is None or second.statistics is None:
        return None
    one, other = first.statistics.interval_ms, second.statistics.interval_ms
    if one is None or other is None:
        return None
    return one[1] < other[0] or other[1] < one[0]
