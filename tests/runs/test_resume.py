"""A whole run, on this host, stopped in the search and again while the result is measured, and continued."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from nas_edge import pipeline
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import StoppedError, TrainingError
from nas_edge.export.bundle import verify_bundle
from nas_edge.progress import Reporter, Stage
from nas_edge.runs.journal import read_journal
from nas_edge.runs.run import Run
from nas_edge.spaces import SPACES
from tests.support.spaces import TINY

SETTINGS = (
    "space.name=tiny",
    "space.reference=proxylessnas-mobile",
    "target.latency_ms=0.05",
    "search.steps=6",
    "search.samples_per_step=1",
    "search.reward_delay_steps=0",
    "search.delay_fraction=0.5",
    "search.op_warmup_fraction=0",
    "search.filter_warmup_fraction=0",
    "training.epochs=1",
    "target.limit=none",
    "export.precision=float32",
    # The machines that run tests are shared; what is worth what on them is tested elsewhere.
    "measure.max_risk=1",
    "final_measure.max_risk=1",
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
    def stage(
        self, name: str, total: int | None, done: int = 0, facts: Callable[[], Sequence[str]] = tuple
    ) -> Iterator[Stage]:
        self.stages.append(name)

        class Signalling(Stage):
            def __call__(stage, done: int, *facts: str) -> None:  # noqa: N805
                if (name, done) == (self._stage, self._done):
                    signal.raise_signal(signal.SIGTERM)

        yield Signalling(name, total, done, facts)


def unchanged(config: RunConfig) -> RunConfig:
    return config


def learning(rate: float) -> Callable[[RunConfig], RunConfig]:
    return lambda config: load_config(settings=[f"training.learning_rate={rate}"], base=config)


def test_a_run_is_continued_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its supernet is compiled in seconds.
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    folder = tmp_path / "run"
    with pytest.raises(StoppedError, match=f"after step 5 of 6; continue with: nas-edge search --resume {folder}"):
        pipeline.search(load_config("smoke", settings=SETTINGS), folder, Terminating("search", 4))
    run = Run.open(folder)
    assert run.checkpoints.newest_step() == 5
    before = run.path("journal.jsonl").read_bytes()

    # The database is damaged while nothing runs, and the winner's training diverges.
    database = run.path("measurements.sqlite")
    damaged = b"\0" * 4096 + database.read_bytes()[4096:]
    database.write_bytes(damaged)
    policy = run.path("policy.jsonl")
    damaged_policy = policy.read_bytes().replace(b'"step":3', b'"step":2')
    policy.write_bytes(damaged_policy)
    reporter = Terminating("nothing", 0)
    with pytest.raises(
        TrainingError, match=rf"^winner: .* nas-edge search --resume {folder} --set training.learning_r"
    ):
        pipeline.resume(folder, learning(1e30), reporter)
    assert "continuing after step 5 with 2 trials" in reporter.said
    assert [line for line in reporter.said if "measurements.sqlite is damaged" in line and "from the journal" in line]
    assert not [line for line in reporter.said if "the run is kept" in line]
    assert run.path("measurements.sqlite.damaged-1").read_bytes() == damaged
    (told,) = [line for line in reporter.said if "the policy" in line]
    assert "policy.jsonl is damaged: it is kept as policy.jsonl.damaged-1" in told
    assert run.path("policy.jsonl.damaged-1").read_bytes() == damaged_policy
    assert run.path("journal.jsonl").read_bytes().startswith(before)
    assert reporter.stages == ["search", "selection", "training winner"]
    assert not run.path("winner").exists()
    selection = run.path("stages/selection.jsonl").read_bytes()

    reporter = Terminating("measuring", 1)
    with pytest.raises(StoppedError, match=f"^stopped; continue with: nas-edge search --resume {folder}"):
        pipeline.resume(folder, learning(0.4), reporter)
    assert reporter.stages == ["search", "selection", "training winner", "measuring"]
    assert not run.finished
    parts = run.path("stages/final.jsonl").read_bytes()
    assert len(read_journal(run.path("stages/final.jsonl")).records) == 1
    for left in ("bundle", ".bundle.half"):
        run.path(left).mkdir()
        run.path(f"{left}/labels.txt").write_text("half")

    reporter = Terminating("nothing", 0)
    result = pipeline.resume(folder, unchanged, reporter)
    assert run.finished
    assert [record["step"] for record in read_journal(policy).records] == [6]
    assert run.path("report/index.html").exists()
    assert reporter.stages == ["search", "selection", "measuring"]
    assert len(list(run.journal())) == 3
    assert run.path("stages/selection.jsonl").read_bytes() == selection
    assert run.path("stages/final.jsonl").read_bytes().startswith(parts)
    final = [record["measurement"]["samples_ms"] for record in read_journal(run.path("stages/final.jsonl")).records]
    assert final == [list(result.rows[0].latency["float32"].samples_ms)]
    winner = json.loads(selection.splitlines()[-1])["record"]["architecture"]
    assert verify_bundle(folder / "bundle").manifest["architecture"] == winner == result.rows[0].architecture
    assert not run.path(".bundle.half").exists()
    assert len(run.read_json("environment.json")["sessions"]) == 4
