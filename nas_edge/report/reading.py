"""Reads what a report tells out of a run folder: finished or not, also while a search writes to it.

What is used is checked, because a folder may come from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from nas_edge.config import RunConfig
from nas_edge.errors import NasEdgeError, RunError
from nas_edge.formatting import ms_form
from nas_edge.latency.answer import LatencyKind
from nas_edge.runs.columns import TrialColumns, read_trials
from nas_edge.runs.environment import measured_with
from nas_edge.runs.example_scores import ExampleScores, read_example_scores
from nas_edge.runs.halving import HalvingScore, read_halving
from nas_edge.runs.journal import read_journal
from nas_edge.runs.reselect import CHOSEN, Candidate, read_candidates, rescored_qualities
from nas_edge.runs.result import ResultRow, RunResult, read_result
from nas_edge.runs.run import RANDOM, RANDOM_SCORES, SELECTION, Run, RunFolderError
from nas_edge.runs.stopped_early import EarlyStop, read_early_stops
from nas_edge.runs.teacher import TeacherFacts, read_teacher
from nas_edge.runs.untrusted import count, number
from nas_edge.runs.warm_start import WarmStart, read_warm_start
from nas_edge.search.front import pareto_front
from nas_edge.search.settings import SearchSettings
from nas_edge.search.trials import late_trials
from nas_edge.tasks import metric_of
from nas_edge.tasks.base import Metric

Json: TypeAlias = Mapping[str, Any]

_LONGEST_TEXT = 500


@dataclass(frozen=True)
class TrialFacts:
    """A trial, as far as a report tells of it.

    Attributes:
        step: search step, from 0.
        architecture: index string.
        quality: as the search scored it.
        reward: what the controller was told.
        kind: how its latency is known; None when latency was not asked for.
        verdict: of the latency; likewise.
        detail: why it is not `ok`.
        latency_ms: what the reward is made with; None unless it can be relied on.
        interval_ms: its 95% interval, or that of `measured_ms`.
        measured_ms: the latency as it was answered, whatever the verdict, before it was adjusted.
        measured_verdict: of that.
        observed_ms: median and 90th percentile of all samples.
        parts_ms: on each of several models of devices, see `RunFacts.devices`; None where it may not be relied on.
        conditions: of the measurement, see `device_agents.api.Conditions`.
        usage: value of each resource that the search aims at or limits.
    """

    step: int
    architecture: str
    quality: float | None
    reward: float | None
    kind: LatencyKind | None
    verdict: str | None
    detail: str
    latency_ms: float | None
    interval_ms: tuple[float, float] | None
    measured_ms: float | None
    measured_verdict: str | None
    observed_ms: tuple[float, float] | None
    parts_ms: tuple[float | None, ...]
    conditions: Json
    usage: Mapping[str, float] = field(default_factory=dict)

    @property
    def ms(self) -> float:
        """The latency of a trial that is known to have one."""
        assert self.latency_ms is not None
        return self.latency_ms

    @property
    def q(self) -> float:
        """The quality of a trial that is known to have one."""
        assert self.quality is not None
        return self.quality


def series_of(row: ResultRow) -> str:
    """What a network is beside the others: `winner`, `best of random` or `reference`."""
    return row.name if row.name in ("winner", "best of random") else "reference"


@dataclass(frozen=True)
class RunFacts:
    """A run, read at one moment.

    Attributes:
        name: of its folder.
        state: `finished`, `running` or `stopped`.
        config: settings.
        sessions: one manifest per start, see `runs.environment`.
        steps_done: steps of which the folder knows; the search may be further.
        target_ms: None until it is known.
        trials: of the search, oldest first.
        finalists: measured again to select the winner.
        randoms: the random baseline; those with less quality than the best within the target were not timed.
        result: None before the end.
        ends: channels of the image and number of outputs, once the bundle says so.
        policy: `(steps done, per decision the probability of each choice)`, oldest first; None when damaged.
        policy_kept: whether the search has kept a record of its policy from its first step on, be it an empty one.
        choices: architectures that may be delivered: those that no other one beats in both latency and quality, the
            fastest first.
        rescored: whether their qualities are from after the search, where those of the search say less.
        delivered: results of those that have been delivered beside the winner, by folder in the run.
        devices: model and target in ms of each of several models of devices; empty for one. Latencies of trials are
            then those of the device furthest beyond its target, as on the first, see `latency.several`.
        searched: whether it is a run that searches; not one that delivers a network of another run.
        halving: finalists that were trained to find the best, by the network that was looked for, oldest first.
        warm_start: what started from the weights of others; None where nothing did.
        teacher: the network that what is delivered learned from; None where there was none.
        early_stops: how trainings with early stopping ended, by name of the network.
    """

    name: str
    folder: Path
    state: str
    config: RunConfig
    sessions: tuple[Json, ...]
    steps_done: int
    target_ms: float | None
    trials: tuple[TrialFacts, ...]
    finalists: tuple[TrialFacts, ...]
    randoms: tuple[TrialFacts, ...]
    result: RunResult | None
    ends: tuple[int, int] | None
    policy: tuple[tuple[int, tuple[tuple[float, ...], ...]], ...] | None
    policy_kept: bool
    choices: tuple[Candidate, ...] = ()
    rescored: bool = False
    delivered: Mapping[str, RunResult] = field(default_factory=dict)
    searched: bool = True
    devices: Sequence[tuple[str, float]] = ()
    halving: Mapping[str, Sequence[HalvingScore]] = field(default_factory=dict)
    warm_start: WarmStart | None = None
    teacher: TeacherFacts | None = None
    early_stops: Mapping[str, EarlyStop] = field(default_factory=dict)

    @property
    def has_device(self) -> bool:
        """Whether the run measures on a device; without one it ends with an architecture."""
        if self.result is not None:
            return self.result.device is not None
        return not self.sessions or bool(mapping(self.sessions[0].get("device")))

    @property
    def latency_source(self) -> str | None:
        """What the latencies of candidates come from; None for the run's device."""
        if self.result is not None and self.result.latency_estimate is not None:
            return self.result.latency_estimate.source
        source = measured_with(self.sessions[0]).get("latency_source") if self.sessions else None
        return None if source is None else str(source)[:_LONGEST_TEXT]

    @cached_property
    def kinds(self) -> tuple[LatencyKind, ...]:
        """How the latencies of trials are known; nearly always in one way."""
        known = {trial.kind for trial in self.trials if trial.kind is not None and trial.latency_ms is not None}
        return tuple(kind for kind in LatencyKind if kind in known)

    @property
    def kinds_text(self) -> str:
        """Likewise, as a word before `latency`; empty before there is a trial."""
        return " or ".join(map(str, self.kinds))

    @property
    def all_measured(self) -> bool:
        """Whether the latencies of all trials were measured."""
        return self.kinds == (LatencyKind.MEASURED,)

    @cached_property
    def example_scores(self) -> ExampleScores | None:
        """How the delivered files did on each test image; None for a run of before that was kept.

        Raises:
            RunError: when they cannot be read.
        """
        return read_example_scores(Run(self.folder))

    @cached_property
    def metric(self) -> Metric:
        """What quality is."""
        return metric_of(self.config.task)

    @property
    def quality_name(self) -> str:
        """What the qualities of trials are, for example `accuracy with shared weights`."""
        return f"{self.metric.name} {self.quality_origin}".rstrip()

    @property
    def quality_origin(self) -> str:
        """Where they come from; empty for a method that is not installed here."""
        search = self.config.search
        return search.quality_origin if isinstance(search, SearchSettings) else ""

    @property
    def quality_drifts(self) -> bool:
        """Whether qualities of early trials say less than those of late ones, see `SearchSettings`."""
        return getattr(self.config.search, "quality_drifts", False)

    @cached_property
    def quality_form(self) -> str:
        """The format of qualities."""
        return quality_form([self])

    def quality_text(self, quality: float) -> str:
        """A quality in a sentence."""
        return format(quality, self.quality_form)

    @cached_property
    def evaluated(self) -> tuple[TrialFacts, ...]:
        """The trials with a latency to rely on and a quality."""
        return tuple(trial for trial in self.trials if trial.latency_ms is not None and trial.quality is not None)

    @cached_property
    def front(self) -> tuple[TrialFacts, ...]:
        """The evaluated trials that no other beats, the fastest first."""
        on_front = pareto_front([trial.ms for trial in self.evaluated], [trial.q for trial in self.evaluated])
        front = (trial for trial, on in zip(self.evaluated, on_front, strict=True) if on)
        return tuple(sorted(front, key=lambda trial: trial.ms))

    @property
    def late(self) -> Sequence[TrialFacts]:
        """The evaluated trials whose qualities may be compared."""
        return late_trials(self.evaluated, self.quality_drifts)

    @cached_property
    def best_within(self) -> TrialFacts | None:
        """The best trial within the target; as in `nas-edge select`, of those whose qualities may be compared."""
        limit_ms = -math.inf if self.target_ms is None else self.target_ms
        limits = self.config.target.resource_limits
        meeting = [t for t in self.late if t.ms <= limit_ms and all(limit.allows(t.usage) for limit in limits)]
        return max(meeting, key=lambda trial: (trial.q, -trial.ms), default=None)

    @property
    def none_evaluated(self) -> str:
        """Why there is no evaluated trial."""
        if self.trials:
            return f"None of the {len(self.trials):,} trials has both a reliable latency and a quality."
        delay = getattr(self.config.search, "delay_steps", 0)
        rests = f": in the first {delay:,} steps, only the shared weights train; the controller is frozen"
        return f"No architecture has been evaluated yet{rests if delay else ''}."


def quality_form(runs: Sequence[RunFacts]) -> str:
    """The format of qualities that share a table: percent where that is the metric's, else four significant digits."""
    if all(facts.metric.form.endswith("%") for facts in runs):
        return ".1%"
    trials = [trial for facts in runs for trial in (*facts.trials, *facts.finalists, *facts.randoms)]
    return ms_form(max((abs(trial.quality) for trial in trials if trial.quality is not None), default=None))


def read_run(folder: Path) -> RunFacts:
    """Reads a run.

    Raises:
        RunError: when the folder is not a run, is damaged, or of another version.
    """
    run = Run.open(folder)
    config = run.config
    # First of all, so that a run that ends meanwhile is not called finished without its result.
    running, finished = run.in_use, run.finished
    columns, policy = read_trials(run.path("journal.jsonl"), samples=True), _policy(run)
    stages = {name: read_trials(run.path(name), samples=True) for name in (SELECTION, RANDOM, RANDOM_SCORES)}
    drifts, rescored = getattr(config.search, "quality_drifts", False), rescored_qualities(run)
    timed = (stages[SELECTION], stages[RANDOM])
    limits = config.target.resource_limits
    candidates = read_candidates(columns, *timed, quality_drifts=drifts, rescored=rescored, limits=limits)
    trials = _trials(columns)
    known = (trials[-1].step + 1 if trials else 0, policy[-1][0] if policy else 0, run.checkpoints.newest_step() or 0)
    return RunFacts(
        name=folder.resolve().name,
        folder=folder,
        state="finished" if finished else "running" if running else "stopped",
        config=config,
        sessions=_sessions(run),
        steps_done=max(known),
        target_ms=run.target_ms,
        trials=trials,
        finalists=_trials(stages[SELECTION]),
        randoms=_randoms(_trials(stages[RANDOM]), _trials(stages[RANDOM_SCORES])),
        result=read_result(run),
        ends=_ends(run) if finished else None,
        policy=policy,
        policy_kept=run.path("policy.jsonl").exists() and not any(folder.glob("policy.jsonl.damaged-*")),
        choices=candidates.front,
        rescored=bool(rescored),
        delivered=_delivered(run),
        devices=run.device_targets_ms,
        searched=not run.path(f"stages/{CHOSEN}.json").exists(),
        halving=read_halving(run),
        warm_start=read_warm_start(run),
        teacher=read_teacher(run),
        early_stops=read_early_stops(run),
    )


def _randoms(timed: tuple[TrialFacts, ...], scored: tuple[TrialFacts, ...]) -> tuple[TrialFacts, ...]:
    """Scored ones, each with its latency if it was timed; earlier versions timed all, and kept no scores beside."""
    known = {trial.architecture for trial in timed}
    return *timed, *(trial for trial in scored if trial.architecture not in known)


def _delivered(run: Run) -> dict[str, RunResult]:
    """Results of networks that were delivered later; one that cannot be read, its own report tells."""
    found = {}
    for file in sorted(run.path("delivered").glob("*/result.json")):
        with suppress(NasEdgeError):
            result = read_result(Run.open(file.parent))
            if result is not None:
                found[f"delivered/{file.parent.name}"] = result
    return found


def _trials(columns: TrialColumns) -> tuple[TrialFacts, ...]:
    return tuple(
        TrialFacts(
            step=columns.step[i],
            architecture=columns.architecture[i],
            quality=columns.quality[i],
            reward=columns.reward[i],
            kind=_kind(columns, i),
            verdict=columns.verdict[i],
            detail=str(mapping(columns.measurement[i]).get("detail", ""))[:_LONGEST_TEXT],
            latency_ms=columns.latency_ms[i],
            interval_ms=columns.interval_ms[i],
            measured_ms=columns.measured_ms[i],
            measured_verdict=columns.measured_verdict[i],
            observed_ms=columns.observed_ms[i],
            parts_ms=columns.parts_ms[i],
            conditions=mapping(mapping(columns.measurement[i]).get("conditions")),
            usage=columns.usage[i],
        )
        for i in range(len(columns))
    )


def _kind(columns: TrialColumns, i: int) -> LatencyKind | None:
    """How a trial's latency is known.

    Before there were kinds, what was looked up was written as a measurement of one sample, which no device made.
    """
    measured = mapping(columns.measurement[i])
    if columns.parts_ms[i]:
        return columns.kind[i]
    bare = columns.latency_ms[i] is not None and columns.interval_ms[i] is None and not measured.get("conditions")
    return LatencyKind.LOOKED_UP if columns.kind[i] == LatencyKind.MEASURED and bare else columns.kind[i]


def mapping(value: object) -> Json:
    """A JSON object; an empty one where there is something else, or nothing."""
    return value if isinstance(value, dict) else {}


def _sessions(run: Run) -> tuple[Json, ...]:
    if not run.path("environment.json").exists():
        return ()
    sessions = run.read_json("environment.json").get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise RunFolderError(f"{run.path('environment.json')} is damaged: expected a list of sessions")
    return tuple(sessions)


def _ends(run: Run) -> tuple[int, int] | None:
    """Channels and outputs of the delivered model; None when the bundle was moved away."""
    try:
        manifest = run.read_json("bundle/manifest.json")
        return count(manifest["models"]["float32"]["input"]["shape"][3]), count(
            manifest["models"]["float32"]["output"]["shape"][-1]
        )
    except (NasEdgeError, LookupError, TypeError, ValueError):
        return None


def _policy(run: Run) -> tuple[tuple[int, tuple[tuple[float, ...], ...]], ...] | None:
    """What `stages.policy_log` noted of the controller; None when it is damaged, for which all else can be told."""
    try:
        moments = tuple(
            (count(record["step"]), tuple(tuple(number(p, 0, 1) for p in row) for row in record["probabilities"]))
            for record in read_journal(run.path("policy.jsonl")).records
        )
    except (RunError, LookupError, TypeError, ValueError):
        return None
    return moments
