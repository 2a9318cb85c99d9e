"""A whole run, on this host, stopped in the search and again while the result is measured, and continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge import pipeline
from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, RunError, SpaceError, StoppedError, TrainingError
from nas_edge.export.bundle import verify_bundle
from nas_edge.later_delivery import deliver_architecture
from nas_edge.report import read_run, run_report
from nas_edge.runs.journal import read_journal
from nas_edge.runs.reselect import candidates_of
from nas_edge.runs.result import RunResult
from nas_edge.runs.run import Run
from nas_edge.spaces import SPACES
from tests.support.reporters import Terminating
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
    assert reporter.stages == ["search", "scoring the Pareto front", "selection", "training winner"]
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


@pytest.mark.slow
def test_another_network_of_a_run_is_delivered_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    folder = tmp_path / "run"
    with pytest.raises(StoppedError):  # the search need not have ended
        pipeline.search(load_config("smoke", settings=SETTINGS), folder, Terminating("search", 5))
    run = Run.open(folder)
    known = candidates_of(run).front[0]
    text = str(known.architecture)
    searched = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}

    def deliver(reporter: Terminating, *settings: str, **options: Any) -> tuple[Path, RunResult]:
        def change(config: RunConfig) -> RunConfig:
            return load_config(settings=settings, base=config)

        return deliver_architecture(
            folder, options.get("text", text), options.get("out"), options.get("target_ms"), change, reporter
        )

    idle = Terminating("nothing", 0)
    with pytest.raises(ConfigError, match=r"^search\.steps cannot differ from the search; what may: device\.\*, "):
        deliver(idle, "search.steps=7")
    with pytest.raises(SpaceError, match="decisions"):
        deliver(idle, text="0:0:0:0:0:0:0:0:0")
    assert not run.path("delivered").exists()
    again = f"nas-edge deliver {folder} --architecture {text}"
    with pytest.raises(StoppedError, match=f"^stopped; continue with: {again}$"):
        deliver(Terminating("measuring", 1), "training.batch_size=32")
    (out,) = run.path("delivered").iterdir()
    with pytest.raises(RunError, match="continue it with nas-edge deliver"):
        pipeline.resume(out, unchanged, idle)
    with pytest.raises(RunError, match="holds the delivery of another architecture"):
        deliver(idle, text=other_than(text), out=out)
    measured = Run.open(out).path("stages/final.jsonl").read_bytes()
    reporter = Terminating("nothing", 0)
    place, result = deliver(reporter, target_ms=1000.0)
    assert (place, reporter.stages) == (out, ["measuring"]), "it is not trained again"
    assert Run.open(out).path("stages/final.jsonl").read_bytes() == measured
    assert (result.winner.architecture, result.winner.quality) == (text, known.quality)
    assert (result.target_ms, result.hard_limit, result.device is None) == (1000.0, True, False)
    assert verify_bundle(out / "bundle").manifest["architecture"] == text
    config = Run.open(out).config
    assert (config.training.model_dump()["batch_size"], config.search) == (32, run.config.search)
    with pytest.raises(RunError, match="is delivered already"):
        deliver(idle)
    assert all(path.read_bytes() == content for path, content in searched.items()), "the run is left as it was"
    section = next(each for each in run_report(read_run(folder)).sections if each.key == "front")
    row = next(row for row in section.tables[0].rows() if text in row)
    assert f"delivered/{out.name}" in row

    # From the shared weights, as they are.
    settings = ("export.weights=shared", "training.epochs=0")
    untrained = deliver(Terminating("nothing", 0), *settings, out=tmp_path / "shared")[0]
    weights = Run.open(untrained).read_weights("winner/weights.npz")
    shared = run.checkpoints.load(pytest.fail)
    assert shared is not None
    kept = [array for name, array in shared.arrays.items() if "kernel" in name or array.ndim == 4]
    first = next(arrays[0] for arrays in weights.values() if arrays and arrays[0].ndim == 4)
    assert any(first.shape[:2] == array.shape[:2] and np.isin(first, array).all() for array in kept)


def other_than(text: str) -> str:
    """Another architecture of the same space."""
    return "1:" + text[2:] if text[0] == "0" else "0:" + text[2:]
