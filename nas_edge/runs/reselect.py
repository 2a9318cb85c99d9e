"""What else a run has found than its winner, from its journals: no training, no device, no TensorFlow.

A journal holds many evaluated architectures on both sides of the target that was searched for, so a nearby target is
answered well; one far away was hardly explored, and the number of trials says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeAlias

from nas_edge.errors import RunError, SpaceError
from nas_edge.formatting import reason
from nas_edge.latency.answer import LatencyKind
from nas_edge.rewards import Objective
from nas_edge.runs.columns import TrialColumns
from nas_edge.runs.run import RANDOM, SELECTION, Run
from nas_edge.runs.untrusted import count, milliseconds, number
from nas_edge.search.front import pareto_front
from nas_edge.search.trials import late_trials
from nas_edge.spaces.decisions import Architecture

# The stage that scores architectures on the Pareto front again, see `stages.scoring_front`.
FRONT = "front"
# What a delivery keeps of the architecture that was chosen, see `stages.choosing`.
CHOSEN = "chosen"


@dataclass(frozen=True)
class Candidate:
    """An architecture and what a run's trials say of it.

    Attributes:
        architecture: canonical.
        quality: mean over its trials.
        latency_ms: median over its trials; where some of them are predictions, over the others.
        trials: how many there were.
        final: whether the quality is from after the search, where qualities of the search say less.
        kind: how the latency is known; None where a result of before that was kept does not tell.
        upper_ms: of a prediction, the upper end of its 95% interval, beyond which it is not trusted; None for all else.
    """

    architecture: Architecture
    quality: float
    latency_ms: float
    trials: int
    final: bool
    kind: LatencyKind | None = None
    upper_ms: float | None = None

    @property
    def surely_ms(self) -> float:
        """What a limit has to be for this one to meet it."""
        return self.latency_ms if self.upper_ms is None else self.upper_ms

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        kind = None if self.kind is None else self.kind.value
        return {**vars(self), "architecture": str(self.architecture), "kind": kind}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_json`; it may come from anywhere.

        Raises:
            ValueError, LookupError, TypeError, SpaceError: when it is something else.
        """
        return cls(
            Architecture.parse(str(record["architecture"])),
            number(record["quality"]),
            milliseconds(record["latency_ms"]),
            count(record["trials"]),
            bool(record["final"]),
            None if record.get("kind") is None else LatencyKind(record["kind"]),
            None if record.get("upper_ms") is None else milliseconds(record["upper_ms"]),
        )


@dataclass(frozen=True)
class JournalledCandidates:
    """What the journals know.

    Attributes:
        candidates: the architectures of the search with latency and quality; where qualities drift, of its latter half.
        finalists: those of the stages after it, where their qualities say more than the search's own.
        fastest_ms: the least latency of all trials with both, of predictions the upper end of their interval; None when
            there are none.
        front: those that no other one beats in both latency and quality, the fastest first. Of the finalists, if the
            search's Pareto front is among them.
    """

    candidates: tuple[Candidate, ...]
    finalists: tuple[Candidate, ...]
    fastest_ms: float | None
    front: tuple[Candidate, ...]

    def find(self, architecture: Architecture) -> Candidate | None:
        """What is known of an architecture; None where it was not evaluated."""
        known = (candidate for candidate in (*self.finalists, *self.candidates))
        return next((candidate for candidate in known if candidate.architecture == architecture), None)

    def best_within(self, limit_ms: float) -> Candidate | None:
        """The most accurate architecture that meets a limit, the faster of equals; None when none does.

        One whose latency is predicted meets it with the whole interval.

        A finalist goes before the search's own: a quality of one batch is mostly noise, and the best of many such is
        the luckiest.
        """
        for group in (self.finalists, self.candidates):
            meeting = [candidate for candidate in group if candidate.surely_ms <= limit_ms]
            if meeting:
                return max(meeting, key=lambda candidate: (candidate.quality, -candidate.latency_ms))
        return None


def candidates_of(run: Run) -> JournalledCandidates:
    """What the journals of a run know.

    Raises:
        RunError: when one is damaged.
    """
    drifts = getattr(run.config.search, "quality_drifts", False)
    stages = (run.trials(stage) for stage in (SELECTION, RANDOM))
    limits, rescored = run.config.target.resource_limits, rescored_qualities(run)
    return read_candidates(run.trials(), *stages, quality_drifts=drifts, rescored=rescored, limits=limits)


def rescored_qualities(run: Run) -> dict[str, float]:
    """Qualities of the architectures that were scored again after the search; empty where that was not done.

    Raises:
        RunError: when they are damaged.
    """

    def qualities_of(content: Mapping[str, Any]) -> dict[str, float]:
        if content["schema_version"] != 1:
            raise ValueError(f"expected schema 1, received {content['schema_version']!r:.50}")
        return {str(text): number(value) for text, value in content["qualities"].items()}

    return run.read_record(f"stages/{FRONT}.json", qualities_of) or {}


def read_candidates(
    trials: TrialColumns,
    *finalists: TrialColumns,
    quality_drifts: bool = True,
    rescored: Mapping[str, float] | None = None,
    limits: Sequence[Objective] = (),
) -> JournalledCandidates:
    """Gathers trials by architecture.

    Where qualities drift, as those of shared weights do, only the latter half of the search is taken: a quality from
    early on says too little. Where they do not, those from after the search are the same as its own.

    Args:
        trials: of the search.
        *finalists: of stages after it.
        quality_drifts: see `SearchSettings`.
        rescored: qualities from after the search, by architecture; the latencies are those of its trials.
        limits: of other resources than latency; trials beyond them are left out.
    """
    evaluated = _evaluated(trials, limits)
    later = [trial for stage in finalists for trial in _evaluated(stage, limits)]
    fastest_ms = min(
        (ms if upper_ms is None else upper_ms for *_, ms, _, upper_ms in [*evaluated, *later]), default=None
    )
    if not quality_drifts:
        found = _gather([*evaluated, *later], final=False)
        return JournalledCandidates(found, (), fastest_ms, _front(found))
    if rescored:
        later += [
            (text, rescored[text], ms, kind, upper_ms) for text, _, ms, kind, upper_ms in evaluated if text in rescored
        ]
    found, final = _gather(late_trials(evaluated), final=False), _gather(later, final=True)
    return JournalledCandidates(found, final, fastest_ms, _front(final if rescored else found))


def _front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    on_front = pareto_front([one.latency_ms for one in candidates], [one.quality for one in candidates])
    front = (one for one, on in zip(candidates, on_front, strict=True) if on)
    return tuple(sorted(front, key=lambda one: one.latency_ms))


_Evaluated: TypeAlias = "tuple[str, float, float, LatencyKind | None, float | None]"


def _evaluated(trials: TrialColumns, limits: Sequence[Objective]) -> list[_Evaluated]:
    """Architecture, quality, latency, how that is known and `Candidate.upper_ms`, of the trials that have both."""
    allowed = [all(limit.allows(usage) for limit in limits) for usage in trials.usage]
    columns = (trials.architecture, trials.quality, trials.latency_ms, trials.kind, trials.interval_ms, allowed)
    return [
        (architecture, quality, latency_ms, kind, low_high[1] if low_high and kind is LatencyKind.PREDICTED else None)
        for architecture, quality, latency_ms, kind, low_high, kept_to in zip(*columns, strict=True)
        if latency_ms is not None and quality is not None and kept_to
    ]


def _gather(evaluated: Sequence[_Evaluated], final: bool) -> tuple[Candidate, ...]:
    groups: dict[str, list[_Evaluated]] = {}
    for one in evaluated:
        groups.setdefault(one[0], []).append(one)
    found = []
    for architecture, group in groups.items():
        quality = fmean(q for _, q, *_ in group)
        told = [one for one in group if one[3] is not LatencyKind.PREDICTED] or group
        latency_ms, kind = median(ms for _, _, ms, *_ in told), told[-1][3]
        uppers_ms = [upper_ms for *_, upper_ms in told if upper_ms is not None]
        upper_ms = median(uppers_ms) if uppers_ms else None
        try:
            parsed = Architecture.parse(architecture)
        except SpaceError as error:
            raise RunError(f"a journal of the run is damaged: {reason(error)}") from None
        found.append(Candidate(parsed, quality, latency_ms, len(group), final, kind, upper_ms))
    return tuple(found)
