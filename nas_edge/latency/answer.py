"""`LatencyAnswer`: what a latency source says of one candidate, and how it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from device_agents.api import Measurement, Verdict


class LatencyKind(str, Enum):
    """How a latency is known."""

    MEASURED = "measured"
    LOOKED_UP = "looked_up"
    PREDICTED = "predicted"
    SIMULATED = "simulated"

    def __str__(self) -> str:
        """As people read it."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class AdjustedLatency:
    """What a noisy latency becomes beside those of other candidates; see `latency.pooled`.

    Attributes:
        latency_ms: in milliseconds.
        interval_ms: its 95% interval.
        verdict: what it is worth now: `ok` or `corrected`.
    """

    latency_ms: float
    interval_ms: tuple[float, float]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """As a journal keeps it."""
        return {"latency_ms": self.latency_ms, "interval_ms": [*self.interval_ms], "verdict": self.verdict.value}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> AdjustedLatency:
        """The inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: when it is something else.
        """
        low_ms, high_ms = record["interval_ms"]
        return cls(float(record["latency_ms"]), (float(low_ms), float(high_ms)), Verdict(record["verdict"]))


@dataclass(frozen=True)
class LatencyAnswer:
    """The latency of a candidate, or why there is none. Use one of the class methods.

    Attributes:
        kind: how it is known.
        verdict: `ok`, `corrected`, or what went wrong; only latencies of the first two may be relied on, of the second
            within their interval.
        detail: why the verdict is not `ok`.
        estimate_ms: what was looked up, predicted or simulated; None for what was measured, or failed.
        estimate_interval_ms: its 95% interval, where the source gives one.
        measurement: samples, statistics and conditions of what was measured; None for all else.
        parts: of a latency on several devices, what was said on each, in their order, see `latency.several`; then
            `estimate_ms` is what they come to, also where they were measured.
        further: other resources of the candidate, by name, see `nas_edge.resources`; simulators report them.
    """

    kind: LatencyKind
    verdict: Verdict
    detail: str = ""
    estimate_ms: float | None = None
    estimate_interval_ms: tuple[float, float] | None = None
    measurement: Measurement | None = None
    parts: tuple[LatencyAnswer, ...] = ()
    further: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def measured(cls, measurement: Measurement) -> LatencyAnswer:
        """An answer that a device gave."""
        return cls(LatencyKind.MEASURED, measurement.verdict, measurement.detail, measurement=measurement)

    @classmethod
    def estimated(
        cls,
        kind: LatencyKind,
        latency_ms: float,
        interval_ms: tuple[float, float] | None = None,
        further: Mapping[str, float] | None = None,
    ) -> LatencyAnswer:
        """An answer that no device gave."""
        return cls(kind, Verdict.OK, estimate_ms=latency_ms, estimate_interval_ms=interval_ms, further=further or {})

    @classmethod
    def failed(cls, kind: LatencyKind, verdict: Verdict, detail: str) -> LatencyAnswer:
        """No latency, and why."""
        return cls(kind, verdict, detail)

    @property
    def ok(self) -> bool:
        """Whether there is a latency that may be relied on."""
        return self.verdict in (Verdict.OK, Verdict.CORRECTED)

    @property
    def best_ms(self) -> float | None:
        """The latency, also one that was flagged; of what was measured the quiet one. None when there is none."""
        return self.estimate_ms if self.measurement is None else self.measurement.best_ms

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """The 95% interval of `best_ms`, where it is known."""
        return self.estimate_interval_ms if self.measurement is None else self.measurement.interval_ms

    @property
    def latency_ms(self) -> float | None:
        """The latency, when it may be relied on."""
        if self.measurement is not None:
            return self.measurement.latency_ms
        return self.estimate_ms if self.ok else None

    def to_json(self) -> dict[str, Any]:
        """As a journal or cache keeps it; what was measured is kept as its measurement."""
        if self.measurement is not None:
            return self.measurement.to_json()
        return {
            "kind": self.kind.value,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "latency_ms": self.estimate_ms,
            "interval_ms": None if self.estimate_interval_ms is None else list(self.estimate_interval_ms),
            **({"parts": [part.to_json() for part in self.parts]} if self.parts else {}),
            **({"further": dict(self.further)} if self.further else {}),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> LatencyAnswer:
        """The inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: when it is something else.
            ProtocolError: when a measurement is damaged.
        """
        if "kind" not in record:
            return cls.measured(Measurement.from_json(record))
        interval_ms = record["interval_ms"]
        latency_ms = record["latency_ms"]
        return cls(
            LatencyKind(record["kind"]),
            Verdict(record["verdict"]),
            str(record["detail"]),
            None if latency_ms is None else float(latency_ms),
            None if interval_ms is None else (float(interval_ms[0]), float(interval_ms[1])),
            parts=tuple(map(cls.from_json, record.get("parts", ()))),
            further={str(name): float(value) for name, value in record.get("further", {}).items()},
        )
