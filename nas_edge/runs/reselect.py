"""Answers other latency targets from a run's journals: no training, no device, no TensorFlow.

A journal holds many evaluated architectures on both sides of the target that was searched for, so a nearby target is
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
        final: whether the quality is from after the search, where qualities of the search say less.
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
        candidates: the architectures of the search with latency and quality; where qualities drift, of its latter half.
        finalists: those of the stages after it, where their qualities say more than the search's own.
        fastest_ms: the least latency of all trials with both; None when there are none.
    """

    candidates: tuple[Candidate, ...]
    finalists: tuple[Candidate, ...]
    fastest_ms: float | None

    def best_within(self, limit_ms: float) -> Candidate | None:
        """The most accurate architecture that meets a limit, the faster of equals; None when none does.

        A finalist goes before the search's own: a quality of one batch is mostly noise, and the best of many such is
        the luckiest.
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

    Where qualities drift, as those of shared weights do, only the latter half of the search is taken: a quality from
    early on says too little. Where they do not, those from after the search are the same as its own.

    Args:
        trials: of the search.
        *finalists: of stages after it.
        quality_drifts: see `SearchSettings`.
    """
    evaluated = _evaluated(trials)
    later = [trial for stage in finalists for trial in _evaluated(stage)]
    fastest_ms = min((ms for _, _, ms in [*evaluated, *later]), default=None)
    if not quality_drifts:
        return JournalledCandidates(_gather([*evaluated, *later], final=False), (), fastest_ms)
    return JournalledCandidates(_gather(late_trials(evaluated), final=False), _gather(later, final=True), fastest_ms)


def _evaluated(trials: TrialColumns) -> list[tuple[str, float, float]]:
    """Architecture, quality and latency in ms of the trials that have both."""
    return [
        (architecture, quality, latency_ms)
        for architecture, quality, latency_ms in zip(
            trials.architecture, trials.quality, trials.latency_ms, strict=True
        )
        if latency_ms is not None and quality is not None
    ]


def _gather(evaluated: Sequence[tuple[str, float, float]], final: bool) -> tuple[Candidate, ...]:
    groups: dict[str, list[tuple[float, float]]] = {}
    for architecture, quality, latency_ms in evaluated:
        groups.setdefault(architecture, []).append((quality, latency_ms))
    found = []
    for architecture, group in groups.items():
        quality, latency_ms = fmean(q for q, _ in group), median(ms for _, ms in group)
        found.append(Candidate(Architecture.parse(architecture), quality, latency_ms, len(group), final))
    return tuple(found)
