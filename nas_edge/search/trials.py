"""`Trial`: one evaluated architecture, the unit of a run's journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from device_agents.api import Measurement, Verdict
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer, LatencyKind
from nas_edge.spaces.decisions import Architecture

_T = TypeVar("_T")


@dataclass(frozen=True)
class Trial:
    """An architecture that was tried.

    Attributes:
        step: search step in which it was proposed, from 0.
        rewarded_step: step in which the controller learned from it.
        architecture: its canonical form.
        quality: on validation data, in the task's metric; None when it was not scored.
        latency: its latency as it was answered, and how that is known; None when it was not asked for.
        usage: value of each resource the objectives name, when all are known.
        reward: what the controller was told; None for a failed candidate or one the bench could not time.
        adjusted: what a noisy latency became beside those of other candidates, and what the reward is made with; None
            where the latency was taken as it is.
    """

    step: int
    rewarded_step: int
    architecture: Architecture
    quality: float | None
    latency: LatencyAnswer | None
    usage: Mapping[str, float] | None
    reward: float | None
    adjusted: AdjustedLatency | None = None

    @property
    def verdict(self) -> Verdict | None:
        """What its latency is worth; None when that was not asked for."""
        if self.adjusted is not None:
            return self.adjusted.verdict
        return None if self.latency is None else self.latency.verdict

    @property
    def latency_ms(self) -> float | None:
        """Latency, when it can be relied on."""
        if self.adjusted is not None:
            return self.adjusted.latency_ms
        return None if self.latency is None else self.latency.latency_ms

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """The 95% interval of `latency_ms`, where it is known."""
        if self.adjusted is not None:
            return self.adjusted.interval_ms
        return None if self.latency is None else self.latency.interval_ms

    @property
    def measurement(self) -> Measurement | None:
        """What was measured on a device; None for a latency that is known otherwise."""
        return None if self.latency is None else self.latency.measurement

    def to_json(self) -> dict[str, Any]:
        """The journal record."""
        adjusted = {} if self.adjusted is None else {"adjusted": self.adjusted.to_json()}
        return {
            "step": self.step,
            "rewarded_step": self.rewarded_step,
            "architecture": str(self.architecture),
            "quality": self.quality,
            "measurement": None if self.latency is None else self.latency.to_json(),
            "usage": None if self.usage is None else dict(self.usage),
            "reward": self.reward,
            **adjusted,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        """Reads a journal record."""
        latency, adjusted = record["measurement"], record.get("adjusted")
        return cls(
            step=record["step"],
            rewarded_step=record["rewarded_step"],
            architecture=Architecture.parse(record["architecture"]),
            quality=record["quality"],
            latency=None if latency is None else LatencyAnswer.from_json(latency),
            usage=record["usage"],
            reward=record["reward"],
            adjusted=None if adjusted is None else AdjustedLatency.from_json(adjusted),
        )


def late_trials(timed: Sequence[_T], quality_drifts: bool = True) -> Sequence[_T]:
    """The trials whose qualities may be compared with each other.

    Args:
        timed: trials with latency and quality, oldest first.
        quality_drifts: whether qualities get better all along, as those of shared weights do; an early one then says
            too little, and only the latter half counts.
    """
    return timed[len(timed) // 2 :] if quality_drifts else timed


def measured_if_any(trials: Sequence[Trial]) -> Sequence[Trial]:
    """Those whose latencies say more than a prediction; where there are only predictions, these."""
    asked = [trial for trial in trials if trial.latency is not None]
    return [trial for trial in asked if trial.latency and trial.latency.kind is not LatencyKind.PREDICTED] or asked
