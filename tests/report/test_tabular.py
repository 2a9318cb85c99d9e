"""What is said of a search of a table, through the command line: nothing was measured, trained or delivered."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_edge import cli
from nas_edge.report import compare_report, read_run, run_report
from nas_edge.runs.result import read_result
from nas_edge.runs.run import RANDOM, RANDOM_SCORES, SELECTION, Run
from tests.support.command_line import nas_edge

# What no run without networks may say.
FALSE = ("timed", "device", "shared weights", "trained", "None", "int8", "test accuracy", "validation", "measured ")

Command = Callable[..., str]


@pytest.fixture(scope="module", params=["optuna:tpe", "reinforce"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps; the first controller has no policy, the second has."""
    folder = tmp_path_factory.mktemp("tabular")
    rows = ["a,b,c,score,phone_ms"]
    for place in itertools.product(range(4), repeat=3):
        names = (f"op{index}" for index in place)
        rows.append(f"{','.join(names)},{30 + 10 * sum(place)},{1.0 + sum(place) + 0.1 * place[0]:.3f}")
    table = folder / "results.csv"
    table.write_text("\n".join(rows))
    options = ["--method", "multi-trial", "--controller", request.param, "--table", str(table), "--decisions", "a,b,c"]
    options += ["--quality-column", "score", "--quality-scale", "0.01", "--latency-column", "phone_ms"]
    options += ["--target-ms", "6", "--steps", "40", "--set", "search.random_baseline=true"]
    done = nas_edge("search", *options, "--out", str(folder / "run"))
    assert done.returncode == 0, done.stderr
    assert "(looked up in column 'phone_ms' of table results.csv" in done.stdout
    return folder / "run"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["nas-edge", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert (stopped.value.code, err) == (0, "")
        return out

    return run


def stopped(finished: Path, folder: Path) -> Path:
    """The same run as it was at the end of its search."""
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "report")
    for stage in (SELECTION, RANDOM, RANDOM_SCORES):
        (folder / stage).unlink()
    return folder


def test_the_report_says_looked_up(finished: Path, command: Command) -> None:
    text = " ".join(command("report", str(finished), "--text").split())
    assert " ms (looked up in column 'phone_ms' of table results.csv (sha256 " in text
    assert "no network is delivered" in text
    assert "Quality here is the quality from column 'score'." in text
    assert "All were evaluated alike" in text
    # Two sentences deny it; the kinds of latency have a column of their own.
    for denial in ("no network was converted, measured or delivered. To rank networks on a device, search", "--device"):
        text = text.replace(denial, "")
    for word in FALSE:
        assert word not in text.partition("Sessions")[0], word


def test_the_best_of_random_is_found_with_few_latencies(finished: Path) -> None:
    run = Run.open(finished)
    scored, timed = run.trials(RANDOM_SCORES), run.trials(RANDOM)
    within = [
        quality
        for architecture, quality in zip(scored.architecture, scored.quality, strict=True)
        if quality is not None and 1.0 + sum(places := [int(i) for i in architecture.split(":")]) + 0.1 * places[0] <= 6
    ]
    result = read_result(run)
    assert result is not None
    assert result.rows[1].quality == max(within)
    assert set(timed.architecture) < set(scored.architecture)
    assert len(set(scored.architecture)) == len(scored)
    assert all(latency_ms is None for latency_ms in scored.latency_ms)


def test_tables_and_axes_say_looked_up(finished: Path) -> None:
    with (finished / "report" / "trials.csv").open() as file:
        assert {row["latency_kind"] for row in csv.DictReader(file)} == {"looked up"}
    with (finished / "report" / "result.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["winner", "best of random"]
    assert all(row["latency_kind"] == "looked up" and float(row["latency_ms"]) <= 6 for row in rows)
    report = json.loads((finished / "report" / "report.json").read_text())
    plots = {plot["name"]: json.dumps(plot) for section in report["sections"] for plot in section["plots"]}
    assert "looked up latency (ms)" in plots["pareto"]
    for plot in plots.values():
        assert "measured" not in plot
        assert "shared weights" not in plot


def test_the_policy_is_told_if_there_is_one(finished: Path) -> None:
    facts = read_run(finished)
    (section,) = (section for section in run_report(facts).sections if section.key == "convergence")
    if facts.policy:
        assert "entropy went from" in section.says[0]
    else:
        assert section.says[0].startswith("The controller optuna has no policy")
        assert not section.tables


def test_an_unfinished_run_says_the_same(finished: Path, tmp_path: Path, command: Command) -> None:
    run = stopped(finished, tmp_path / "run")
    text = " ".join(command("report", str(run), "--text").split())
    assert "The search has completed all 40 steps; the later stages are not finished." in text
    assert " ms (looked up); its quality from column 'score' is 0." in text
    for word in FALSE:
        assert word not in text.partition("Sessions")[0], word
    assert "(looked up)" in command("runs", str(tmp_path))


def test_runs_are_compared_by_what_they_found(finished: Path, command: Command) -> None:
    headline = compare_report([read_run(finished)] * 2).headline
    assert headline.startswith("The latencies of all runs are known in the same way. The fastest network is that of ")
    assert " ms (looked up); the best is that of " in headline
    assert "with a quality from column 'score' of 0." in headline
    text = command("compare", str(finished), str(finished))
    for word in FALSE:
        assert word not in text.partition("Settings that differ")[0], word


def test_other_targets_are_answered_by_all_trials(finished: Path, command: Command) -> None:
    """No quality says more than another, so that early trials count and no finalist goes before a better trial."""
    text = command("select", str(finished), "--target-ms", "4.5,0.0001")
    trials = [trial for trial in read_run(finished).trials if trial.ms <= 4.5]
    best = max(trial.q for trial in trials)
    assert f" {best:.4g} " in text
    assert "Latencies: looked up. Qualities: quality from column 'score'." in text
    assert "config.json --target-ms 0.0001 --out FOLDER" in text


def test_the_list_says_looked_up(finished: Path, command: Command) -> None:
    (row,) = command("runs", str(finished.parent)).splitlines()[1:]
    assert "winner" in row
    assert "(looked up)" in row
