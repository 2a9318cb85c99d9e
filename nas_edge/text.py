"""Latencies and their comparisons as people read them; numbers alone are in `formatting`."""

from __future__ import annotations

from collections.abc import Mapping

from device_agents.api import Measurement
from nas_edge.formatting import ms_text
from nas_edge.latency.answer import LatencyAnswer, LatencyKind


def answer_text(answer: LatencyAnswer | None, unit: str = " ms") -> str:
    """A latency in a line of text, flagged where it may not be relied on."""
    if answer is None:
        return "-"
    if answer.median_ms is None:
        return str(answer.verdict)
    return f"{ms_text(answer.median_ms)}{unit}{'' if answer.ok else f' ({answer.verdict})'}"


def measurement_text(measurement: Measurement | None, unit: str = "") -> str:
    """As `answer_text`, of what was measured."""
    return answer_text(None if measurement is None else LatencyAnswer.measured(measurement), unit)


def origin_text(kind: LatencyKind, source: str) -> str:
    """How a latency is known and from what: `looked up in table t.csv`, `predicted by ...`."""
    link = {LatencyKind.MEASURED: "on", LatencyKind.LOOKED_UP: "in"}.get(kind, "by")
    return f"{kind} {link} {source}"


def slower_int8(times_ms: Mapping[str, float | None]) -> str:
    """A line that says so where quantisation makes the model slower; otherwise empty.

    Args:
        times_ms: median latency by precision.
    """
    int8_ms, float_ms = times_ms.get("int8"), times_ms.get("float32")
    if int8_ms is None or float_ms is None or int8_ms <= float_ms:
        return ""
    return f"int8 is slower than float on this device: {ms_text(int8_ms)} ms vs. {ms_text(float_ms)} ms"
