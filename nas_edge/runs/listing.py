"""What runs there are, and how far they got."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.api import Measurement
from nas_edge.errors import NasEdgeError
from nas_edge.runs.run import Run, RunFolderError


@dataclass(frozen=True)
class Summary:
    """One run of a list.

    Attributes:
        name: of its folder.
        state: `finished`, `running`, `stopped` (it can be resumed), or why it cannot be read.
        space: name.
        target_ms: None until it is known.
        best: the trial of highest reward, as in the journal.
        steps_done: steps with a trial or a checkpoint.
        steps: of the whole search.
        age_s: since the run was last written to.
    """

    name: str
    state: str
    space: str = "-"
    target_ms: float | None = None
    best: Mapping[str, Any] | None = None
    steps_done: int = 0
    steps: int | None = None
    age_s: float | None = None

    def row(self) -> tuple[str, ...]:
        """The run as a row of text."""
        target = "-" if self.target_ms is None else f"{self.target_ms:.3g}"
        best = ("-", "-", "-")
        if self.best is not None:
            latency_ms = Measurement.from_json(self.best["measurement"]).latency_ms
            timed = "-" if latency_ms is None else f"{latency_ms:.3g}"
            best = (f"{self.best['reward']:.3f}", f"{self.best['quality']:.3f}", timed)
        steps = "-" if self.steps is None else f"{self.steps_done}/{self.steps}"
        return (self.name, self.state, self.space, target, *best, steps, _age(self.age_s))


def list_runs(folder: Path) -> list[Summary]:
    """The runs in a folder, the one written to last at the end.

    Raises:
        RunError: when there is no such folder.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not a folder; name the one your runs are in: nas-edge runs FOLDER")
    summaries = [_summary(path.parent) for path in folder.glob("*/config.json")]
    return sorted(summaries, key=lambda summary: (-(summary.age_s or 0.0), summary.name))


def _summary(folder: Path) -> Summary:
    try:
        run = Run.open(folder)
        config, records = run.config, list(run.journal())
        target = run.read_json("stages/target.json")["target_ms"] if run.path("stages/target.json").exists() else None
    except (NasEdgeError, ValueError) as error:
        return Summary(folder.name, f"unreadable: {str(error).splitlines()[0]}", age_s=_age_s(folder))
    state = "finished" if run.finished else "running" if run.in_use else "stopped"
    rewarded = [record for record in records if record["reward"] is not None]
    last = records[-1]["rewarded_step"] + 1 if records else 0
    return Summary(
        name=folder.name,
        state=state,
        space=config.space.name,
        target_ms=target,
        best=max(rewarded, key=lambda record: float(record["reward"]), default=None),
        steps_done=max(last, run.checkpoints.newest_step() or 0),
        steps=config.search.steps,
        age_s=_age_s(folder),
    )


def _age_s(folder: Path) -> float:
    written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return max(0.0, time.time() - written)  # a clock that was set back makes no run younger than now


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
