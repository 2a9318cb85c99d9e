"""What runs there are, and how far they got."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from device_agents.api import Verdict
from nas_edge.errors import NasEdgeError
from nas_edge.formatting import command, ms_text, with_interval
from nas_edge.latency.answer import LatencyKind
from nas_edge.runs.result import read_result
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.tasks import metric_of


@dataclass(frozen=True)
class RunSummary:
    """One run of a list.

    Attributes:
        name: of its folder.
        state: `finished`, `running`, `stopped` (it can be resumed), or why it cannot be read.
        space: name.
        target_ms: None until it is known.
        network: whose figures follow: `delivered`, or the `winner` of a run that delivers none, else `best trial`, that
            of highest reward; "-" before there is one.
        latency: of it in ms; with the verdict where it cannot be relied on, and its kind where it was not measured.
        quality: of the delivered network on test images, with its 95% interval; of another as the search scored it; in
            the task's metric.
        steps_done: steps with a trial or a checkpoint.
        steps: of the whole search.
        age_s: since the run was last written to.
    """

    name: str
    state: str
    space: str = "-"
    target_ms: float | None = None
    network: str = "-"
    latency: str = "-"
    quality: str = "-"
    steps_done: int = 0
    steps: int | None = None
    age_s: float | None = None

    def row(self) -> tuple[str, ...]:
        """The run as a row of text."""
        steps = "-" if self.steps is None else f"{self.steps_done}/{self.steps}"
        return (
            self.name,
            self.state,
            self.space,
            ms_text(self.target_ms),
            self.network,
            self.latency,
            self.quality,
            steps,
            _age(self.age_s),
        )


def list_runs(folder: Path) -> list[RunSummary]:
    """The runs in a folder, the one written to last at the end.

    Raises:
        RunError: when it is not a directory, or is itself a run.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not a directory", fix="name the one your runs are in: nas-edge runs FOLDER")
    summaries = [_summary(path.parent) for path in folder.glob("*/config.json")]
    for group in folder.glob("*/targets.json"):
        runs = (_summary(path.parent) for path in group.parent.glob("*/config.json"))
        summaries += [replace(summary, name=f"{group.parent.name}/{summary.name}") for summary in runs]
    if not summaries and (folder / "config.json").exists():
        raise RunFolderError(f"{folder} is itself a run", fix=f"try {command('runs', folder.resolve().parent)}")
    return sorted(summaries, key=lambda summary: (-(summary.age_s or 0.0), summary.name))


def _summary(folder: Path) -> RunSummary:
    try:
        run = Run.open(folder)
        config, trials, result, target_ms = run.config, run.trials(), read_result(run), run.target_ms
        state = "finished" if run.finished else "running" if run.in_use else "stopped"
    except (NasEdgeError, RecursionError) as error:  # the latter where a value is nested too deeply to be shown
        return RunSummary(folder.name, f"unreadable: {str(error).splitlines()[0]}", age_s=_age_s(folder))
    rewarded = [(reward, i) for i, reward in enumerate(trials.reward) if reward is not None]
    network, latency, quality, interval = "-", "-", None, None
    if result is not None:
        network = "winner" if result.device is None else "delivered"
        verdict = Verdict.OK if result.measurement is None else result.measurement.verdict
        latency = _latency(result.latency_ms, verdict, result.latency_kind)
        quality = result.winner.accuracy.get(result.precision, result.winner.quality)
        interval = result.winner.accuracy_interval.get(result.precision)
    elif rewarded:
        network, best = "best trial", max(rewarded, key=lambda trial: trial[0])[1]
        latency = _latency(trials.latency_ms[best], trials.verdict[best], trials.kind[best])
        quality = trials.quality[best]
    metric = metric_of(config.task)
    quality_text = "-" if quality is None else with_interval(quality, interval, metric.form)
    last = trials.rewarded_step[-1] + 1 if len(trials) else 0
    return RunSummary(
        name=folder.name,
        state=state,
        space=config.space.name,
        target_ms=target_ms,
        network=network,
        latency=latency,
        quality=quality_text,
        steps_done=max(last, run.checkpoints.newest_step() or 0),
        steps=config.search.steps,
        age_s=_age_s(folder),
    )


def _latency(latency_ms: float | None, verdict: str | None, kind: LatencyKind | None) -> str:
    notes = [] if verdict == Verdict.OK else [str(verdict)]
    if kind is not None and kind != LatencyKind.MEASURED:
        notes.append(str(kind))
    return ms_text(latency_ms) + (f" ({', '.join(notes)})" if notes and latency_ms is not None else "")


def _age_s(folder: Path) -> float:
    written_s = []
    # A report that is written again does not make the run younger.
    for path in [path for path in folder.iterdir() if path.name != "report"] or [folder]:
        with suppress(FileNotFoundError):  # a search that goes on replaces files
            written_s.append(path.stat().st_mtime)
    now_s = time.time()
    # A clock that was set back makes no run younger than now.
    return max(0.0, now_s - max(written_s, default=now_s))


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
