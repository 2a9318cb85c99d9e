"""Reads what a report tells out of a run folder: finished or not, also while a search writes to it.

What is used is checked, because a folder may come from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from device_agents.api import Verdict
from nas_edge.config import RunConfig
from nas_edge.errors import NasEdgeError, RunError
from nas_edge.latency.answer import LatencyKind
from nas_edge.report.analysis import pareto_front
from nas_edge.runs.columns import read_trials
from nas_edge.runs.journal import read_journal
from nas_edge.runs.result import ResultRow, RunResult, read_result
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.runs.untrusted import count, number
from nas_edge.search.trials import late_trials

Json: TypeAlias = Mapping[str, Any]

_LONGEST_TEXT = 500


@dataclass(frozen=True)
class TimedTrial:
    """A trial, as far as a report tells of it.

    Attributes:
        step: search step, from 0.
        architecture: index string.
        quality: as the search scored it.
        reward: what the controller was told.
        kind: how its latency is known; None when latency was not asked for.
        verdict: of the latency; likewise.
        detail: why it is not `ok`.
        median_ms: median of the samples, whatever the verdict; None without samples.
        interval_ms: its 95% interval.
        conditions: of the measurement, see `device_agents.api.Conditions`.
    """

    step: int
    architecture: str
    quality: float | None
    reward: float | None
    kind: LatencyKind | None
    verdict: str | None
    detail: str
    median_ms: float | None
    interval_ms: tuple[float, float] | None
    conditions: Json

    @property
    def latency_ms(self) -> float | None:
        """The median, when it can be relied on."""
        return self.median_ms if self.verdict == Verdict.OK else None

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
        randoms: the random baseline.
        found: the result; None before the end.
        ends: channels of the image and number of classes, once the bundle says so.
        policy: `(steps done, per decision the probability of each choice)`, oldest first; None when damaged.
    """

    name: str
    folder: Path
    state: str
    config: RunConfig
    sessions: tuple[Json, ...]
    steps_done: int
    target_ms: float | None
    trials: tuple[TimedTrial, ...]
    finalists: tuple[TimedTrial, ...]
    randoms: tuple[TimedTrial, ...]
    found: RunResult | None
    ends: tuple[int, int] | None
    policy: tuple[tuple[int, tuple[tuple[float, ...], ...]], ...] | None

    @cached_property
    def timed(self) -> tuple[TimedTrial, ...]:
        """The trials with a latency to rely on and a quality."""
        return tuple(trial for trial in self.trials if trial.latency_ms is not None and trial.quality is not None)

    @cached_property
    def front(self) -> tuple[TimedTrial, ...]:
        """The timed trials that no other beats, the fastest first."""
        on_front = pareto_front([trial.ms for trial in self.timed], [trial.q for trial in self.timed])
        front = (trial for trial, on in zip(self.timed, on_front, strict=True) if on)
        return tuple(sorted(front, key=lambda trial: trial.ms))

    @cached_property
    def best_within(self) -> TimedTrial | None:
        """The best trial within the target; as in `nas-edge select`, of those whose qualities may be compared."""
        limit_ms = -math.inf if self.target_ms is None else self.target_ms
        meeting = [trial for trial in late_trials(self.timed) if trial.ms <= limit_ms]
        return max(meeting, key=lambda trial: (trial.q, -trial.ms), default=None)

    @property
    def nothing_timed(self) -> str:
        """Why there is no timed trial."""
        if self.trials:
            return f"None of the {len(self.trials)} trials could be timed reliably."
        delay = self.config.search.delay_steps
        return f"No architecture was judged yet: in the first {delay} steps only the shared weights learn."


def read_run(folder: Path) -> RunFacts:
    """Reads a run.

    Raises:
        RunError: when the folder is no run, is damaged, or of another version.
    """
    run = Run.open(folder)
    config = run.config
    # First of all, so that a run that ends meanwhile is not called finished without its result.
    running, finished = run.in_use, run.finished
    trials, policy = _trials(run, "journal.jsonl"), _policy(run)
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
        finalists=_trials(run, "stages/selection.jsonl"),
        randoms=_trials(run, "stages/random.jsonl"),
        found=read_result(run),
        ends=_ends(run) if finished else None,
        policy=policy,
    )


def _trials(run: Run, name: str) -> tuple[TimedTrial, ...]:
    columns = read_trials(run.path(name), samples=True)
    asks_device = run.config.latency.asks_device

    def kind(i: int) -> LatencyKind | None:
        """How the latency of a trial is known.

        Before there were kinds, what was looked up was kept as a measurement; one without conditions.
        """
        noted = columns.kind[i]
        measured = noted != LatencyKind.MEASURED or asks_device or mapping(columns.measurement[i]).get("conditions")
        return noted if measured else LatencyKind.LOOKED_UP

    return tuple(
        TimedTrial(
            step=columns.step[i],
            architecture=columns.architecture[i],
            quality=columns.quality[i],
            reward=columns.reward[i],
            kind=kind(i),
            verdict=columns.verdict[i],
            detail=str(mapping(columns.measurement[i]).get("detail", ""))[:_LONGEST_TEXT],
            median_ms=columns.median_ms[i],
            interval_ms=columns.interval_ms[i],
            conditions=mapping(mapping(columns.measurement[i]).get("conditions")),
        )
        for i in range(len(columns))
    )


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
    """Channels and classes of the delivered model; None when the bundle was moved away."""
    try:
        manifest = run.read_json("bundle/manifest.json")
        return count(manifest["models"]["float32"]["input"]["shape"][3]), count(manifest["classes"])
    except (NasEdgeError, LookupError, TypeError, ValueError):
        return None


def _policy(run: Run) -> tuple[tuple[int, tuple[tuple[float, ...], ...]], ...] | None:
    """What `search.policy_log` noted of the controller; None when it is damaged, for which all else can be told."""
    try:
        moments = tuple(
            (count(record["step"]), tuple(tuple(number(p, 0, 1) for p in row) for row in record["probabilities"]))
            for record in read_journal(run.path("policy.jsonl")).records
        )
    except (RunError, LookupError, TypeError, ValueError):
        return None
    return moments
