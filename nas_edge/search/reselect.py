"""Answers other latency targets from a run's journal: no training, no device, no TensorFlow.

A journal holds many measured architectures on both sides of the target that was searched for, so a nearby target is
answered well; one far away was hardly explored, and the number of trials says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture


@dataclass(frozen=True)
class Measured:
    """An architecture and what a run's trials say of it.

    Attributes:
        architecture: canonical.
        quality: mean over its trials.
        latency_ms: median over its trials.
        trials: how many there were.
    """

    architecture: Architecture
    quality: float
    latency_ms: float
    trials: int


@dataclass(frozen=True)
class Journalled:
    """What a journal knows.

    Attributes:
        candidates: the timed architectures of its latter half.
        fastest_ms: the least latency of all its trials; None when none was timed.
    """

    candidates: tuple[Measured, ...]
    fastest_ms: float | None

    def best_within(self, limit_ms: float) -> Measured | None:
        """The most accurate candidate that meets a limit, the faster of equals; None when none does."""
        meeting = [candidate for candidate in self.candidates if candidate.latency_ms <= limit_ms]
        return max(meeting, key=lambda candidate: (candidate.quality, -candidate.latency_ms), default=None)


def read_candidates(records: Iterable[Mapping[str, Any]]) -> Journalled:
    """Gathers a journal's trials by architecture.

    Only the latter half of the timed trials is taken: shared weights get better all along, so a quality from early on
    says too little.
    """
    timed: list[tuple[Architecture, float, float]] = []
    for trial in map(Trial.from_json, records):
        if trial.latency_ms is not None and trial.quality is not None:
            timed.append((trial.architecture, trial.quality, trial.latency_ms))
    groups: dict[Architecture, list[tuple[float, float]]] = {}
    for architecture, quality, latency_ms in timed[len(timed) // 2 :]:
        groups.setdefault(architecture, []).append((quality, latency_ms))
    found = (
        Measured(architecture, fmean(q for q, _ in group), median(ms for _, ms in group), len(group))
        for architecture, group in groups.items()
    )
    return Journalled(tuple(found), min((ms for _, _, ms in timed), default=None))
