"""`nas-edge runs` and `nas-edge select`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge import cli
from nas_edge.config import load_config
from nas_edge.errors import RunError
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer, LatencyKind
from nas_edge.rewards import Objective
from nas_edge.runs.columns import read_trials
from nas_edge.runs.listing import list_runs
from nas_edge.runs.reselect import Candidate, candidates_of, read_candidates
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from tests.support.sources import failed, timed, visited
from tests.support.synthetic_run import make_run as synthetic_run


def trial(step: int, choice: int, quality: float, latency_ms: float | None, reward: float | None) -> Trial:
    measurement = failed(Verdict.TIMEOUT) if latency_ms is None else timed(latency_ms)
    answer = LatencyAnswer.measured(measurement)
    return Trial(step, step, Architecture((choice, 0)), quality, answer, None, reward)


TRIALS = [
    trial(0, 9, 0.9, 0.5, 0.1),  # early: its quality says little
    trial(1, 8, 0.2, 9.0, 0.2),
    trial(2, 7, 0.2, None, None),
    trial(3, 6, 0.2, 9.0, 0.2),
    trial(4, 1, 0.5, 2.0, 0.4),
    trial(5, 2, 0.8, 6.0, 0.5),
    trial(6, 1, 0.7, 4.0, 0.3),
]


RESULT = {
    "target_ms": 4.0,
    "precision": "int8",
    "hard_limit": True,
    "device": "made-up phone",
    "rows": [
        {
            "name": "winner",
            "architecture": "2:0",
            "quality": 0.6,
            "accuracy": {"int8": 0.7},
            "latency": {"int8": Measurement(Verdict.UNSTEADY, samples_ms=(3.9,)).to_json()},
        }
    ],
}


def make_run(folder: Path, trials: list[Trial] = TRIALS, target_ms: float | None = 4.0) -> Run:
    with Run.create(folder, load_config("smoke")) as run:
        journal = run.open_journal(pytest.fail)
    for each in trials:
        journal.append(each.to_json())
    journal.close()
    if target_ms is not None:
        run.once("target", lambda: {"target_ms": target_ms})
    return run


def test_other_targets_are_answered_from_the_latter_half(tmp_path: Path) -> None:
    known = read_candidates(make_run(tmp_path / "run").trials())
    assert known.fastest_ms == 0.5
    best = known.best_within(3.0)
    assert best is not None
    assert (best.architecture, best.trials, best.latency_ms) == (Architecture((1, 0)), 2, 3.0)
    assert best.quality == pytest.approx(0.6)
    best = known.best_within(16.0)
    assert best is not None
    assert best.architecture == Architecture((2, 0))
    assert known.best_within(2.9) is None


def test_what_was_judged_after_the_search_goes_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with closing(run.open_journal(pytest.fail, "stages/selection.jsonl")) as journal:
        for each in (trial(9, 5, 0.55, 3.5, 0.5), trial(9, 4, 0.5, 3.2, 0.5)):
            journal.append(each.to_json())
    known = read_candidates(run.trials(), run.trials("stages/selection.jsonl"), run.trials("stages/random.jsonl"))
    for limit_ms, choice, final in ((16.0, 5, True), (3.3, 4, True), (3.1, 1, False)):
        best = known.best_within(limit_ms)
        assert best is not None
        assert (best.architecture, best.final) == (Architecture((choice, 0)), final)


def test_what_is_beyond_a_limit_of_another_resource_is_no_candidate(tmp_path: Path) -> None:
    sized = [replace(one, usage={"file_size_bytes": 100.0 * one.architecture.choices[0]}) for one in TRIALS]
    run = make_run(tmp_path / "run", sized)
    assert {one.architecture.choices[0] for one in read_candidates(run.trials()).candidates} == {1, 2}
    limits = [Objective("file_size_bytes", 100.0, limit=True)]
    assert {one.architecture.choices[0] for one in read_candidates(run.trials(), limits=limits).candidates} == {1}


def test_the_front_is_of_qualities_that_can_be_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert [(one.architecture.choices[0], one.quality, one.final) for one in candidates_of(run).front] == [
        (1, pytest.approx(0.6), False),
        (2, pytest.approx(0.8), False),
    ]
    qualities = {"9:0": 0.5, "1:0": 0.7, "2:0": 0.7}  # the early one was as good as any, and is the fastest
    run.once("front", lambda: {"schema_version": 1, "qualities": qualities})
    known = candidates_of(run)
    assert [(one.architecture.choices[0], one.quality, one.latency_ms, one.final) for one in known.front] == [
        (9, 0.5, 0.5, True),
        (1, 0.7, 3.0, True),
    ]
    assert known.best_within(16.0) == known.front[1]
    assert [Candidate.from_json(json.loads(json.dumps(one.to_json()))) for one in known.front] == [*known.front]
    code, out, _ = command("select", str(run.folder))
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[-1] for line in lines[1:3]] == ["9:0", "1:0"]
    assert lines[3:] == ["", "Latencies: measured. Qualities: accuracy with shared weights."]
    shown = command("report", str(run.folder), "--text")[1]
    assert "2 architectures are on the Pareto front" in shown
    assert "scored alike" in " ".join(shown.split())
    for content in ({"qualities": qualities}, {"schema_version": 2}, {"schema_version": 1, "qualities": {"1:0": "x"}}):
        run.write_json("stages/front.json", content)
        with pytest.raises(RunError, match=r"front\.json is damaged"):
            candidates_of(run)


def test_a_prediction_meets_a_target_with_its_whole_interval(tmp_path: Path) -> None:
    predicted = LatencyAnswer.estimated(LatencyKind.PREDICTED, 2.0, (1.0, 3.5))
    trials = [Trial(step, step, Architecture((5, 0)), 0.9, predicted, None, 0.1) for step in (5, 6, 8)]
    run = make_run(tmp_path / "run", [*trials[:2], trial(7, 1, 0.5, 3.0, 0.4), trials[2]])
    known = candidates_of(run)
    for limit_ms, choice in ((3.4, 1), (3.5, 5)):
        best = known.best_within(limit_ms)
        assert best is not None
        assert best.architecture == Architecture((choice, 0))
        assert Candidate.from_json(json.loads(json.dumps(best.to_json()))) == best
    assert (known.best_within(2.9), known.fastest_ms) == (None, 3.0)
    code, out, _ = command("select", str(run.folder), "--target-ms", "3.4,4")
    assert code == 0
    assert "3.000  measured " in out.splitlines()[1]
    assert "2.000  predicted, up to 3.500 " in out.splitlines()[2]


def test_runs_are_listed_with_their_state(tmp_path: Path) -> None:
    make_run(tmp_path / "stopped")
    make_run(tmp_path / "new", [], None)
    make_run(tmp_path / "done").write_json("result.json", RESULT)
    make_run(tmp_path / "later").write_json("result.json", {**RESULT, "test_images": 1000})
    make_run(tmp_path / "torn").write_json("result.json", {})
    damaged = make_run(tmp_path / "damaged").path("journal.jsonl")
    damaged.write_bytes(damaged.read_bytes()[:-40] + b"\n")
    make_run(tmp_path / "odd").path("stages/target.json").write_text('{"target_ms": "four"}')
    (tmp_path / "no run").mkdir()
    (tmp_path / "done" / "vanishing").symlink_to("nowhere")
    with make_run(tmp_path / "busy").lock():
        runs = {summary.name: summary for summary in list_runs(tmp_path)}
    assert {name: summary.state.partition(":")[0] for name, summary in runs.items()} == {
        "stopped": "stopped",
        "new": "stopped",
        "done": "finished",
        "later": "finished",
        "torn": "unreadable",
        "busy": "running",
        "damaged": "unreadable",
        "odd": "unreadable",
    }
    assert "received 'four'" in runs["odd"].state
    assert "line 8" in runs["damaged"].state
    assert runs["stopped"].row()[2:-1] == ("proxylessnas", "4.000", "best trial", "6.000", "80.00%", "7/24")
    assert runs["done"].row()[2:-1] == ("proxylessnas", "4.000", "delivered", "3.900 (unsteady)", "70.00%", "7/24")
    assert runs["later"].row()[6] == "70.00% [67.09, 72.76]"
    assert runs["new"].row()[3:-1] == ("-", "-", "-", "-", "0/24")


def test_a_clock_that_was_set_back_does_not_matter(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    os.utime(run.path("journal.jsonl"), (time.time() + 9e6,) * 2)
    assert list_runs(tmp_path)[0].age_s == 0.0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere"):
        list_runs(tmp_path / "nowhere")


def command(*arguments: str) -> tuple[int, str, str]:
    code = "import sys; from nas_edge import cli\ntry:\n    cli.main()\n"
    code += "finally:\n    heavy = {'tensorflow', 'keras', 'pandas', 'sklearn'} & set(sys.modules)\n"
    code += "    assert not heavy, heavy\n"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_commands_answer_without_tensorflow(tmp_path: Path) -> None:
    make_run(tmp_path / "run").write_json("result.json", RESULT)
    code, out, err = command("select", str(tmp_path / "run"), "--target-ms", "0.1,3,16")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "no trial was that fast; the fastest of all took 0.5000 ms" in lines[1]
    assert lines[2].split() == ["3", "3.000", "measured", "60.00%", "in", "the", "search", "2", "1:0"]
    assert "For 3 ms, this is not the winner of" in out
    assert "config.json --target-ms 0.1 --out FOLDER" in out
    code, out, err = command("select", str(tmp_path / "run"), "--target-ms", "2")
    assert code == 1
    assert "only early trials" in out
    assert "config.json --target-ms 2 --out FOLDER" in err
    code, out, _ = command("runs", str(tmp_path))
    assert code == 0
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("verdict", "advice"),
    [(Verdict.UNSTEADY, True), (Verdict.RUN_FAILED, False)],
)
def test_without_a_usable_trial_it_says_what_there_is_and_what_to_do(
    tmp_path: Path, verdict: Verdict, advice: bool
) -> None:
    answer = LatencyAnswer.measured(Measurement(verdict, "noise", samples_ms=(1.0, 2.0)))
    trials = [Trial(step, step, Architecture((1, 0)), 0.5, answer, None, None) for step in range(6, 24)]
    run = make_run(tmp_path / "a run", trials)
    code, out, err = command("select", str(run.folder), "--target-ms", "4")
    assert (code, out) == (1, "")
    assert f"none of the 18 trials of {run.folder} has both a reliable latency and a quality (18 {verdict})" in err
    assert f"nas-edge report '{run.folder}' --text" in err
    assert f"nas-edge search --resume '{run.folder}'" in err
    again = f"nas-edge search --config '{run.folder}/config.json' --set measure.max_duration_s=2 --out FOLDER"
    assert (again in err) is advice
    words = shlex.split(again)
    assert command(*words[1 : words.index("--out")], "--list-settings")[0] == 0, "the advice can be followed"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["select", "RUN", "--target-ms", "four"], "for example 4,8,16"),
        (["select", "RUN", "--target-ms", "4,nan"], "for example 4,8,16"),
        (["select", "RUN", "--target-ms", "inf"], "for example 4,8,16"),
        (["select", "RUN", "--target-ms", "-1"], "for example 4,8,16"),
        (["select", "FOLDER", "--target-ms", "4"], "has no config.json"),
        (["search", "--resume", "FOLDER"], "has no config.json"),
        (["search", "--resume", "RUN", "--out", "x"], "leave out --out"),
        (["search", "--resume", "RUN", "--seed", "5"], "seed is 0"),
        (["search", "--resume", "RUN", "--preset", "demo"], "cannot become"),
        (["search", "--resume", "DONE"], "finished"),
        (["runs", "FOLDER/nowhere"], "nowhere"),
        (["runs", "RUN"], "is itself a run; try nas-edge runs "),
    ],
)
def test_misuse_gets_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    make_run(tmp_path / "run")
    make_run(tmp_path / "done").write_json("result.json", {})
    places = {"RUN": str(tmp_path / "run"), "DONE": str(tmp_path / "done"), "FOLDER": str(tmp_path)}
    monkeypatch.setattr(sys, "argv", ["nas-edge", *(places.get(a, a) for a in arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("nas-edge:", "Error:"))]
    assert len(lines) == 1
    assert expected in lines[0]


def test_columns_say_the_same_as_the_records(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "run", 80, samples=11)
    columns, records = run.trials(), list(run.journal())
    trials = [Trial.from_json(record) for record in records]
    assert len(columns) == len(trials) == 80
    assert columns.step == [trial.step for trial in trials]
    assert columns.rewarded_step == [trial.rewarded_step for trial in trials]
    assert columns.architecture == [str(trial.architecture) for trial in trials]
    assert columns.quality == [trial.quality for trial in trials]
    assert columns.reward == [trial.reward for trial in trials]
    assert columns.latency_ms == [trial.latency_ms for trial in trials]
    assert {"ok", "timeout"} <= set(columns.verdict)
    for measured, record in zip(columns.measurement, records, strict=True):
        for name in ("samples_ms", "visits", "quiet"):  # what they come to is in columns of its own
            del record["measurement"][name]
        assert measured == record["measurement"]


def test_columns_have_quiet_adjusted_and_observed_latencies(tmp_path: Path) -> None:
    """With and without a look at the samples; what was adjusted is what counts, and what was measured is beside it."""
    adjusted = AdjustedLatency(1.9, (1.8, 2.0), Verdict.CORRECTED)
    trials = [
        Trial(0, 0, Architecture((0,)), 0.5, LatencyAnswer.measured(visited(2.0)), {"latency_ms": 2.0}, 0.1),
        Trial(1, 1, Architecture((1,)), 0.5, LatencyAnswer.measured(visited(2.5, Verdict.CONTENDED)), None, None),
        Trial(2, 2, Architecture((2,)), 0.5, LatencyAnswer.measured(visited(2.0, Verdict.CORRECTED)), None, 0.1),
        Trial(
            3, 3, Architecture((3,)), 0.5, LatencyAnswer.measured(visited(2.5, Verdict.CONTENDED)), None, 0.1, adjusted
        ),
        Trial(4, 4, Architecture((4,)), 0.5, LatencyAnswer.measured(timed(3.0)), {"latency_ms": 3.0}, 0.1),
    ]
    run = make_run(tmp_path / "run", trials)
    for columns in (run.trials(), read_trials(run.path("journal.jsonl"), samples=True)):
        assert columns.latency_ms == [trial.latency_ms for trial in trials] == [2.0, None, 2.0, 1.9, 3.0]
        assert columns.verdict == ["ok", "contended", "corrected", "corrected", "ok"]
        assert columns.measured_ms == [2.0, 2.5, 2.0, 2.5, 3.0]
        assert columns.measured_verdict == ["ok", "contended", "corrected", "contended", "ok"]
        assert columns.interval_ms[2:4] == [(1.98, 2.02), (1.8, 2.0)]
    assert columns.observed_ms == [(4.0, 4.0), (5.0, 5.0), (4.0, 4.0), (5.0, 5.0), (3.0, 3.0)]


def test_texts_that_look_like_samples_are_left_alone(tmp_path: Path) -> None:
    detail = '"samples_ms":[9.0] "usage":{"latency_ms":9.0}'
    measurement = LatencyAnswer.measured(Measurement(Verdict.OK, detail, samples_ms=(1.0, 2.0, 4.0)))
    run = make_run(tmp_path / "run", [Trial(0, 0, Architecture((1,)), 0.5, measurement, None, 0.1)])
    columns = run.trials()
    assert columns.latency_ms == [2.0]
    assert columns.measurement[0] is not None
    assert columns.measurement[0]["detail"] == detail
