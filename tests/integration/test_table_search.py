"""A search of a table of results through the command line, killed and continued."""

from __future__ import annotations

import gzip
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nas_edge.latency.answer import LatencyKind
from nas_edge.runs.journal import read_journal
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.table import TableSpaceSettings, table_space
from tests.support.command_line import nas_edge

WAIT_S = 120
OPERATORS = ("none", "skip", "pool", "conv1", "conv3")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four decisions of five operators, in the form of NAS-Bench-201: percent, and milliseconds."""
    rng = np.random.default_rng(0)
    gains, costs = rng.uniform(0, 20, (4, 5)), rng.uniform(0.1, 4, (4, 5))
    lines = ["a,b,c,d,accuracy,phone_ms"]
    for indices in itertools.product(range(5), repeat=4):
        names = [OPERATORS[i] for i in indices]
        quality = 10 + sum(gains[row, i] for row, i in enumerate(indices))
        latency_ms = sum(costs[row, i] for row, i in enumerate(indices))
        lines.append(f"{','.join(names)},{quality:.3f},{latency_ms:.3f}")
    file = tmp_path_factory.mktemp("table") / "results.csv.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file


def search(table: Path, out: Path, controller: str, steps: int) -> list[str]:
    options = ["--method", "multi-trial", "--controller", controller, "--table", str(table), "--decisions", "a,b,c,d"]
    options += ["--quality-column", "accuracy", "--quality-scale", "0.01", "--latency-column", "phone_ms"]
    options += ["--target-ms", "8", "--steps", str(steps), "--set", "runs.checkpoint_steps=20"]
    return ["search", *options, "--out", str(out)]


def contents(run: Path) -> dict[str, bytes]:
    names = ("journal.jsonl", "policy.jsonl", "stages/selection.jsonl", "result.json")
    return {name: (run / name).read_bytes() for name in names}


@pytest.mark.parametrize(
    ("controller", "steps"),
    [
        ("reinforce", 400),
        ("surrogate", 60),
        ("optuna:tpe", 80),
        pytest.param("lstm", 200, marks=pytest.mark.slow),
        pytest.param("random", 400, marks=pytest.mark.slow),
        pytest.param("evolution", 400, marks=pytest.mark.slow),
        pytest.param("optuna:nsga2", 120, marks=pytest.mark.slow),
    ],
)
def test_killed_and_continued_it_ends_bit_identical(table: Path, tmp_path: Path, controller: str, steps: int) -> None:
    whole = nas_edge(*search(table, tmp_path / "whole", controller, steps))
    assert whole.returncode == 0, whole.stderr
    assert "looked up" in whole.stdout
    assert "no network was delivered" in whole.stdout

    run = tmp_path / "killed"
    command = [sys.executable, "-m", "nas_edge.cli", *search(table, run, controller, steps)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    journal, deadline_s = run / "journal.jsonl", time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if journal.exists() and journal.stat().st_size > 6000:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(WAIT_S)
    if not (run / "result.json").exists():  # a fast machine may have been done
        resumed = nas_edge("search", "--resume", str(run))
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.stdout.splitlines()[:3] == whole.stdout.splitlines()[:3]
    assert contents(run) == contents(tmp_path / "whole")
    result = json.loads((run / "result.json").read_text())
    assert result["latency_estimate"]["kind"] == "looked_up"
    assert result["device"] is None
    assert not (run / "bundle").exists()


def test_finalists_are_compared_where_that_is_asked_for(table: Path, tmp_path: Path) -> None:
    done = nas_edge(*search(table, tmp_path / "run", "reinforce", 200), "--set", "finalists.sampled=100")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["latency_ms"] <= 8.0
    feasible = [t for t in map(Trial.from_json, Run.open(tmp_path / "run").journal()) if (t.latency_ms or 9.0) <= 8.0]
    assert result["rows"][0]["quality"] >= max(trial.quality or 0.0 for trial in feasible[-100:])


@pytest.mark.parametrize("controller", ["surrogate", "reinforce", "evolution", "optuna:tpe"])
def test_rows_that_are_missing_are_outcomes_and_end_no_search(table: Path, tmp_path: Path, controller: str) -> None:
    head, *rows = gzip.decompress(table.read_bytes()).decode().splitlines()
    kept = np.random.default_rng(1).random(len(rows)) < 0.4
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("\n".join([head, *(row for row, there in zip(rows, kept, strict=True) if there)]) + "\n")
    out = tmp_path / "run"
    done = nas_edge(*search(gaps, out, controller, 60))
    assert done.returncode in (0, 3), done.stderr
    trials = Run.open(out).trials()
    assert len(trials) >= 60
    assert set(trials.verdict) == {"ok", "not_known"}
    missing = [i for i, verdict in enumerate(trials.verdict) if verdict == "not_known"]
    assert {trials.reward[i] for i in missing} == {None}, "the controller is told nothing of them"
    listed = {tuple(row.split(",")[:4]) for row, there in zip(rows, kept, strict=True) if there}
    space = table_space(TableSpaceSettings(file=str(gaps), decisions=tuple("abcd")))
    for i, text in enumerate(trials.architecture):
        named = tuple(space.describe(Architecture.parse(text)).values())
        assert (named in listed) == (trials.verdict[i] == "ok")
    winner = json.loads((out / "result.json").read_text())["rows"][0]
    assert tuple(space.describe(Architecture.parse(winner["architecture"])).values()) in listed
    report = nas_edge("report", str(out), "--text")
    assert "not_known" in report.stdout
    assert report.returncode == 0, report.stderr


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"--decisions": "a,b,e"}, "has no column 'e'"),
        ({"--quality-column": "top1"}, "has no column 'top1'; its columns: a, b, c, d, accuracy, phone_ms"),
        ({"--latency-column": "a"}, "must hold numbers"),
        ({"--decisions": "a,b"}, "have the same decisions"),
        ({"--method": "one-shot"}, "search.quality requires search.method=multi-trial"),
        ({"--controller": "optuna:magic"}, "magic"),
        ({"--table": "missing.csv"}, "does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], expected: str
) -> None:
    words = search(table, tmp_path / "run", "random", 10)
    for option, value in changes.items():
        words[words.index(option) + 1] = value
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    done = nas_edge(*words)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(("nas-edge: ", "Error: "))]
    assert expected in line


def test_with_hybrid_some_latencies_are_predicted_and_what_it_ends_with_is_not(table: Path, tmp_path: Path) -> None:
    command = search(table, tmp_path / "run", "reinforce", 200)
    at = command.index("--latency-column")
    command[at : at + 2] = ["--latency", "hybrid:column:phone_ms"]
    done = nas_edge(*command)
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    kinds = [trial.latency.kind for trial in map(Trial.from_json, run.journal()) if trial.latency is not None]
    predicted = kinds.count(LatencyKind.PREDICTED)
    assert predicted > 100
    assert kinds[:10] == [LatencyKind.LOOKED_UP] * 10
    selected = [Trial.from_json(record) for record in read_journal(run.path("stages/selection.jsonl")).records]
    assert {trial.latency and trial.latency.kind for trial in selected} == {LatencyKind.LOOKED_UP}
