"""`Trial`: one judged architecture, the unit of a run's journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_agents.api import Measurement
from nas_edge.spaces.decisions import Architecture


@dataclass(frozen=True)
class Trial:
    """An architecture that was tried.

    Attributes:
        step: search step in which it was proposed, from 0.
        rewarded_step: step in which the controller learned from it.
        architecture: its canonical form.
        quality: validation accuracy with shared weights, 0 to 1; None when it was not scored.
        measurement: its latency with conditions; None when latency was not asked for.
        usage: value of each resource the objectives name, when all are known.
        reward: what the controller was told; None for a failed candidate or one the bench could not time.
    """

    step: int
    rewarded_step: int
    architecture: Architecture
    quality: float | None
    measurement: Measurement | None
    usage: Mapping[str, float] | None
    reward: float | None

    @property
    def latency_ms(self) -> float | None:
        """Median latency, when it can be relied on."""
        return None if self.measurement is None else self.measurement.latency_ms

    def to_json(self) -> dict[str, Any]:
        """The journal record."""
        return {
            "step": self.step,
            "rewarded_step": self.rewarded_step,
            "architecture": str(self.architecture),
            "quality": self.quality,
            "measurement": None if self.measurement is None else self.measurement.to_json(),
            "usage": None if self.usage is None else dict(self.usage),
            "reward": self.reward,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        """Reads a journal record."""
        measurement = record["measurement"]
        return cls(
            step=record["step"],
            rewarded_step=record["rewarded_step"],
            architecture=Architecture.parse(record["architecture"]),
            quality=record["quality"],
            measurement=None if measurement is None else Measurement.from_json(measurement),
            usage=record["usage"],
            reward=record["reward"],
        )
