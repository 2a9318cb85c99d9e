"""Answers other latency targets from a run's journals: no training, no device, no TensorFlow.

A journal holds many measured architectures on both sides of the target that was searched for, so a nearby target is
answered well; one far away was hardly explored, and the number of trials says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from nas_edge.runs.columns import TrialColumns
from nas_edge.search.trials import late_trials
from nas_edge.spaces.decisions import Architecture


@dataclass(frozen=True)
class Candidate:
    """An architecture and what a run's trials say of it.

    Attributes:
        architecture: canonical.
        quality: mean over its trials.
        latency_ms: median over its trials.
        trials: how many there were.
        final: whether the quality is of all validation images with the final weights, not of one batch in the search.
    """

    architecture: Architecture
    quality: float
    latency_ms: float
    trials: int
    final: bool


@dataclass(frozen=True)
class JournalledCandidates:
    """What the journals know.

    Attributes:
        candidates: the timed architectures of the latter half of the search.
        finalists: the timed architectures of the stages after it.
        fastest_ms: the least latency of all trials; None when none was timed.
    """

    candidates: tuple[Candidate, ...]
    finalists: tuple[Candidate, ...]
    fastest_ms: float | None

    def best_within(self, limit_ms: float) -> Candidate | None:
        """The most accurate architecture that meets a limit, the faster of equals; None when none does.

        One that was evaluated after the search goes before the search's own: a quality of one batch is mostly noise,
        and the best of many such is the luckiest.
        """
        for group in (self.finalists, self.candidates):
            meeting = [candidate for candidate in group if candidate.latency_ms <= limit_ms]
            if meeting:
                return max(meeting, key=lambda candidate: (candidate.quality, -candidate.latency_ms))
        return None


def read_candidates(
    trials: TrialColumns, *finalists: TrialColumns, quality_drifts: bool = True
) -> JournalledCandidates:
    """Gathers trials by architecture.

    Only the latter half of the search's timed trials is taken: shared weights get better all along, so a quality from
    early on says too little.

    Args:
        trials: of the search.
        *finalists: of stages after it, with the final weights on all validation images.
        quality_drifts: see `SearchLoop`.
    """
    timed = _timed(trials)
    later = [trial for stage in finalists for trial in _timed(stage)]
    return JournalledCandidates(
        candidates=_gather(late_trials(timed, quality_drifts), final=False),
        finalists=_gather(later, final=True),
        fastest_ms=min((ms for _, _, ms in [*timed, *later]), default=None),
    )


def _timed(trials: TrialColumns) -> list[tuple[str, float, float]]:
    """Architecture, quality and latency in ms of the trials that have both."""
    return [
        (architecture, quality, latency_ms)
        for architecture, quality, latency_ms in zip(
            trials.architecture, trials.quality, trials.latency_ms, strict=True
        )
        if latency_ms is not None and quality is not None
    ]


def _gather(timed: Sequence[tuple[str, float, float]], final: bool) -> tuple[Candidate, ...]:
    groups: dict[str, list[tuple[float, float]]] = {}
    for architecture, quality, latency_ms in timed:
        groups.setdefault(architecture, []).append((quality, latency_ms))
    found = []
    for architecture, group in groups.items():
        quality, latency_ms = fmean(q for q, _ in group), median(ms for _, ms in group)
        found.append(Candidate(Architecture.parse(architecture), quality, latency_ms, len(group), final))
    return tuple(found)
