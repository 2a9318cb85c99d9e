"""Latencies and their comparisons as people read them; numbers alone are in `formatting`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_agents.api import Measurement, Verdict
from nas_edge.formatting import ms_text
from nas_edge.latency.answer import LatencyAnswer, LatencyKind


def answer_text(answer: LatencyAnswer | None, unit: str = " ms") -> str:
    """A latency in a line of text: its kind unless measured, and a flag where it may not be relied on as it is."""
    if answer is None:
        return "-"
    if answer.best_ms is None:
        return str(answer.verdict)
    flag = "" if answer.verdict == Verdict.OK else f" ({answer.verdict})"
    return f"{ms_text(answer.best_ms)}{unit}{kind_suffix(answer.kind)}{flag}"


def kind_suffix(kind: LatencyKind) -> str:
    """What follows a latency that no device gave, for example ` simulated`; nothing after a measured one."""
    return "" if kind == LatencyKind.MEASURED else f" {kind}"


def observed_text(measurement: Measurement | None) -> str:
    """What the runs took in the middle, with whatever else ran: `observed 2.1 ms, p90 3.0 ms`; empty if that is all.

    Said where a latency was made of visits, and so is the one that nothing disturbs.
    """
    if measurement is None or measurement.quiet is None or measurement.statistics is None:
        return ""
    statistics = measurement.statistics
    return f"observed {ms_text(statistics.median_ms)} ms, p90 {ms_text(statistics.p90_ms)} ms"


def measurement_text(measurement: Measurement | None, unit: str = "") -> str:
    """As `answer_text`, of what was measured."""
    return answer_text(None if measurement is None else LatencyAnswer.measured(measurement), unit)


def origin_text(kind: LatencyKind, source: str) -> str:
    """How a latency is known and from what: `looked up in table t.csv`, `predicted by ...`, `measured on the device`.

    Args:
        kind: how it is known.
        source: what answers for candidates, if not the device.
    """
    if kind == LatencyKind.MEASURED:
        return f"{kind} on the device"
    return f"{kind} {'in' if kind == LatencyKind.LOOKED_UP else 'by'} {source}"


def slower_than_float(times_ms: Mapping[str, float | None]) -> str:
    """A line that says so where quantisation makes the model slower; otherwise empty.

    Args:
        times_ms: latency by precision.
    """
    float_ms = times_ms.get("float32")
    for precision, other_ms in times_ms.items():
        if precision != "float32" and other_ms is not None and float_ms is not None and other_ms > float_ms:
            return f"{precision} is slower than float on this device: {ms_text(other_ms)} ms vs. {ms_text(float_ms)} ms"
    return ""


def recorded_latency_ms(latency: Mapping[str, Any] | None) -> float | None:
    """The latency in a manifest's record of a measurement, if any; earlier ones have a median of all runs alone."""
    known = latency or {}
    latency_ms: float | None = known.get("latency_ms", known.get("median_ms"))
    return latency_ms
