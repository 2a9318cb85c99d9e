"""Latency, which every search aims at; see `nas_edge.latency`."""

from __future__ import annotations

from nas_edge.latency.answer import LatencyKind
from nas_edge.resources.base import Resource, ResourceUse, Used


def _use(used: Used) -> ResourceUse:
    if used.answer is None:
        return ResourceUse(None, LatencyKind.MEASURED.value, "it was not requested")
    value = used.answer.latency_ms if used.latency_ms is None else used.latency_ms
    return ResourceUse(value, used.answer.kind.value, "" if value is not None else str(used.answer.verdict))


LATENCY = Resource("time of one inference", "ms", _use, with_latency=True)
