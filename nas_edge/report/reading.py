"""Reads what a report tells out of a run folder: finished or not, also while a search writes to it.

Trials are read field by field instead of through `Trial.from_json`, which checks every sample twice over: a report of
ten thousand trials is to take seconds. What is used is checked all the same, because a folder may come from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from device_agents.api import Measurement, Verdict, median_interval, quantile
from device_agents.errors import ProtocolError
from nas_edge.config import RunConfig
from nas_edge.errors import NasEdgeError, RunError
from nas_edge.report.analysis import pareto_front
from nas_edge.runs.journal import read_journal
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.runs.untrusted import LARGEST, count, milliseconds, number, optional_number

Json: TypeAlias = Mapping[str, Any]

_LONGEST_TEXT = 500


@dataclass(frozen=True)
class Timed:
    """A trial, as far as a report tells of it.

    Attributes:
        step: search step, from 0.
        architecture: index string.
        quality: accuracy with shared weights, 0 to 1.
        reward: what the controller was told.
        verdict: of the measurement; None when latency was not asked for.
        detail: why it is not `ok`.
        median_ms: median of the samples, whatever the verdict; None without samples.
        interval_ms: its 95% interval.
        conditions: of the measurement, see `device_agents.api.Conditions`.
    """

    step: int
    architecture: str
    quality: float | None
    reward: float | None
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


@dataclass(frozen=True)
class Delivered:
    """A network that was trained on its own, converted and measured; accuracies and measurements by precision."""

    name: str
    architecture: str
    quality: float | None
    accuracy: Mapping[str, float]
    latency: Mapping[str, Measurement]

    @property
    def series(self) -> str:
        """What it is beside the others: `winner`, `best of random` or `reference`."""
        return self.name if self.name in ("winner", "best of random") else "reference"

    def median_ms(self, precision: str) -> float | None:
        """Median latency, also when it is flagged; None when there is none."""
        measurement = self.latency.get(precision)
        return None if measurement is None or measurement.statistics is None else measurement.statistics.median_ms


@dataclass(frozen=True)
class Found:
    """`result.json`."""

    target_ms: float
    precision: str
    hard_limit: bool
    device: str
    networks: tuple[Delivered, ...]

    @property
    def winner(self) -> Delivered:
        """The network that was asked for."""
        return self.networks[0]

    @property
    def delivered(self) -> Measurement | None:
        """The winner's measurement in the precision that is delivered."""
        return self.winner.latency.get(self.precision)


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
    trials: tuple[Timed, ...]
    finalists: tuple[Timed, ...]
    randoms: tuple[Timed, ...]
    found: Found | None
    ends: tuple[int, int] | None
    policy: tuple[tuple[int, tuple[tuple[float, ...], ...]], ...] | None

    @cached_property
    def timed(self) -> tuple[Timed, ...]:
        """The trials with a latency to rely on and a quality."""
        return tuple(trial for trial in self.trials if trial.latency_ms is not None and trial.quality is not None)

    @cached_property
    def front(self) -> tuple[Timed, ...]:
        """The timed trials that no other beats, the fastest first."""
        on_front = pareto_front([trial.ms for trial in self.timed], [trial.q for trial in self.timed])
        front = (trial for trial, on in zip(self.timed, on_front, strict=True) if on)
        return tuple(sorted(front, key=lambda trial: trial.ms))

    @cached_property
    def best_within(self) -> Timed | None:
        """The best trial within the target; as in `nas-edge select`, of the latter half of the timed ones."""
        limit_ms = -math.inf if self.target_ms is None else self.target_ms
        meeting = [trial for trial in self.timed[len(self.timed) // 2 :] if trial.ms <= limit_ms]
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
        found=_found(run) if finished else None,
        ends=_ends(run) if finished else None,
        policy=policy,
    )


def _trials(run: Run, name: str) -> tuple[Timed, ...]:
    path = run.path(name)
    trials = []
    for line, record in enumerate(read_journal(path).records, start=1):
        try:
            trials.append(_timed(record))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise RunFolderError(f"record {line} of {path} is not a trial: {error!r:.200}") from None
    return tuple(trials)


def _timed(record: Json) -> Timed:
    measured = mapping(record["measurement"])
    # Not `Measurement.statistics`, which works out much that is not told here.
    ordered: list[float] = sorted(measured.get("samples_ms", ()))
    if ordered and not (0 < ordered[0] <= ordered[-1] <= LARGEST and math.isfinite(sum(ordered))):
        raise ValueError(f"expected samples between 0 and {LARGEST:g} ms")
    return Timed(
        step=count(record["step"]),
        architecture=str(record["architecture"]),
        quality=optional_number(record["quality"], 0, 1),
        reward=optional_number(record["reward"]),
        verdict=Verdict(measured["verdict"]).value if measured else None,
        detail=str(measured.get("detail", ""))[:_LONGEST_TEXT],
        median_ms=quantile(ordered, 0.5) if ordered else None,
        interval_ms=median_interval(ordered),
        conditions=mapping(measured.get("conditions")),
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


def _found(run: Run) -> Found:
    result = run.read_json("result.json")
    try:
        networks = tuple(
            Delivered(
                name=str(row["name"]),
                architecture=str(row["architecture"]),
                quality=optional_number(row["quality"], 0, 1),
                accuracy={name: number(value, 0, 1) for name, value in row["accuracy"].items() if value is not None},
                latency={str(name): Measurement.from_json(value) for name, value in row["latency"].items()},
            )
            for row in result["rows"]
        )
        if not networks:
            raise ValueError("no networks")
        return Found(
            target_ms=milliseconds(result["target_ms"]),
            precision=str(result["precision"]),
            hard_limit=bool(result["hard_limit"]),
            device=str(result["device"]),
            networks=networks,
        )
    except (AttributeError, LookupError, ProtocolError, TypeError, ValueError) as error:
        raise RunFolderError(f"{run.path('result.json')} is damaged: {error!r:.200}") from None


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
