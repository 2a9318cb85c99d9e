"""A whole run, on this host, stopped in the search and again while the result is measured, and continued."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.crash_resume import tiny_space
from device_agents import verdicts
from nas_edge import pipeline
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import StoppedError
from nas_edge.export.bundle import verify_bundle
from nas_edge.progress import Reporter, Stage
from nas_edge.runs.run import Run
from nas_edge.spaces import SPACES

SETTINGS = (
    "space.name=tiny",
    "space.reference=proxylessnas-mobile",
    "target.latency_ms=0.05",
    "search.steps=6",
    "search.samples_per_step=1",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0",
    "search.filter_warmup_fraction=0",
    "training.epochs=1",
    "target.limit=none",
    "export.precision=float32",
    "measure.max_relative_half_width=5",
    "final_measure.max_relative_half_width=5",
)


class Terminating(Reporter):
    """Sends this process a signal once a stage has got so far."""

    def __init__(self, stage: str, done: int) -> None:
        super().__init__(Console(quiet=True))
        self.said: list[str] = []
        self.stages: list[str] = []
        self._stage, self._done = stage, done

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        self.stages.append(name)

        def show(count: int, facts: str) -> None:
            if (name, count) == (self._stage, self._done):
                signal.raise_signal(signal.SIGTERM)

        yield Stage(show)


def unchanged(config: RunConfig) -> RunConfig:
    return config


def test_a_run_is_continued_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its supernet is compiled in seconds.
    monkeypatch.setitem(SPACES, "tiny", lambda size, width, classes, channels: tiny_space(size, channels, classes))
    # The machines that run tests are shared; what is worth what on them is tested elsewhere.
    monkeypatch.setattr(verdicts, "MAX_WAIT_SHARE", float("inf"))
    monkeypatch.setattr(verdicts, "MAX_SHIFT", float("inf"))
    folder = tmp_path / "run"
    with pytest.raises(StoppedError, match=f"after step 5 of 6; continue with: nas-edge search --resume {folder}"):
        pipeline.search(load_config("smoke", settings=SETTINGS), folder, Terminating("search", 4))
    run = Run.open(folder)
    assert run.checkpoints.newest_step() == 5
    before = run.path("journal.jsonl").read_bytes()

    reporter = Terminating("measuring", 1)
    with pytest.raises(StoppedError, match=f"^stopped; continue with: nas-edge search --resume {folder}"):
        pipeline.resume(folder, unchanged, reporter)
    assert "continuing after step 5 with 2 trials" in reporter.said
    assert run.path("journal.jsonl").read_bytes().startswith(before)
    assert reporter.stages == ["search", "training winner", "measuring"]
    assert not run.finished
    selection = run.path("stages/selection.jsonl").read_bytes()

    reporter = Terminating("nothing", 0)
    result = pipeline.resume(folder, unchanged, reporter)
    assert run.finished
    assert reporter.stages == ["search", "measuring"]
    assert len(list(run.journal())) == 3
    assert run.path("stages/selection.jsonl").read_bytes() == selection
    winner = json.loads(selection.splitlines()[-1])["record"]["architecture"]
    assert verify_bundle(folder / "bundle").manifest["architecture"] == winner == result.rows[0].architecture
    assert len(run.read_json("environment.json")["sessions"]) == 3
