"""What a report says, whatever state the run is in."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.api import Measurement, Verdict
from nas_edge import cli
from nas_edge.config import load_config
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.errors import NasEdgeError, RunError
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer, LatencyKind
from nas_edge.networks.donor import Start
from nas_edge.report import compare_report, read_run, run_report, to_page, to_text, write_report
from nas_edge.report.analysis import FEWEST_FOR_PREDICTION, predict, rolling_share
from nas_edge.report.content import Column, Report, Table, text_of
from nas_edge.report.drawing import draw, slots_of
from nas_edge.report.write import to_csv
from nas_edge.resources import ResourceUse
from nas_edge.rewards import Objective
from nas_edge.runs.example_scores import TEST_SCORES, ExampleScores, write_example_scores
from nas_edge.runs.halving import HALVING, HalvingScore
from nas_edge.runs.result import LatencyEstimate, ResourceResult
from nas_edge.runs.run import SELECTION, Run
from nas_edge.runs.stopped_early import EarlyStop, note_early_stop
from nas_edge.runs.teacher import TeacherFacts, write_teacher
from nas_edge.runs.warm_start import SUPERNET, note_start
from nas_edge.search.trials import Trial
from nas_edge.spaces import find_space
from nas_edge.spaces.reference import point, reference_network
from nas_edge.stages.policy_log import PolicyLog
from tests.support.finished_runs import HOSTILE, finished_run, forget_tests, space_of, timed, write_policy
from tests.support.sources import visited
from tests.support.synthetic_run import make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("runs") / "photos")


@pytest.fixture(scope="module")
def report(finished: Run) -> Report:
    return run_report(read_run(finished.folder))


def section_text(report: Report, key: str) -> str:
    found = next(section for section in report.sections if section.key == key)
    return " ".join(found.says)


def column(report: Report, table: str, key: str) -> Sequence[object]:
    found = next(each for each in report.tables if each.name == table)
    return next(each.values for each in found.columns if each.key == key)


# ---------------------------------------------------------------- a finished run


def test_every_latency_says_its_kind(finished: Run, report: Report) -> None:
    for table in report.tables:
        keys = {each.key for each in table.columns}
        assert "latency_ms" not in keys or "latency_kind" in keys, table.name
    assert set(column(report, "trials", "latency_kind")) == {"measured"}
    titles = [plot.title for section in report.sections for plot in section.plots]
    assert "Quality vs. measured latency" in titles
    facts = read_run(finished.folder)
    assert facts.result is not None
    estimate = LatencyEstimate("table t.json", 0.75, LatencyKind.PREDICTED)
    trials = tuple(replace(trial, kind=LatencyKind.PREDICTED, conditions={}) for trial in facts.trials)
    estimated = run_report(replace(facts, trials=trials, result=replace(facts.result, latency_estimate=estimate)))
    assert "measured latency of 0.900 ms" in estimated.headline
    assert "predicted by table t.json: 0.750 ms for the winner" in section_text(estimated, "result")
    assert "measured latency is 0.900 ms, 20.0% more." in section_text(estimated, "result")
    assert "Latencies of trials are predicted by table t.json. The delivered networks" in section_text(
        estimated, "search"
    )
    assert not {"device", "prediction"} & {section.key for section in estimated.sections}
    pareto = next(plot for section in estimated.sections for plot in section.plots if plot.name == "pareto")
    assert "predicted latency (ms)" in json.dumps(pareto.spec)
    assert "measured" not in json.dumps(pareto.spec)


def test_the_answer_comes_first(report: Report) -> None:
    assert report.state == "finished"
    assert report.headline.startswith("The delivered int8 network has a measured latency of 0.900 ms on ")
    assert "10% under the target of 1.000 ms." in report.headline
    assert (
        "is 1.06x as fast as the best of 80 random architectures (0.900 vs. 0.950 ms); the difference"
        in report.headline
    )
    winner, reference = r"91\.0% \[86\.2, 94\.2\]", r"90\.5% \[85\.6, 93\.8\]"
    ending = (
        r"The winner is 1\.33x as fast as proxylessnas-mobile \(0\.900 vs\. 1\.200 ms\); the difference in test "
        rf"accuracy \({winner} vs\. {reference}\) is not significant \(McNemar p = [01][.\d]*, 200 test examples\)\.$"
    )
    assert re.search(ending, report.headline)
    notes = {tile.label: tile.note for tile in report.tiles}
    assert notes["int8 accuracy"] == "on 200 held-out test examples; 95% interval 86.2% to 94.2%"
    tiles = {tile.label: tile.value for tile in report.tiles}
    assert tiles["Target"] == "1.000 ms"
    assert tiles["int8 accuracy"] == "91.0%"
    assert tiles["Trials"] == "151"


def test_every_accuracy_has_its_interval_and_its_test(finished: Run, report: Report) -> None:
    names, precisions = column(report, "delivered", "name"), column(report, "delivered", "precision")
    rows = {row["name"]: row for row in finished.read_json("result.json")["rows"]}
    lows, highs = column(report, "delivered", "accuracy_low"), column(report, "delivered", "accuracy_high")
    texts, p_values = column(report, "delivered", "accuracy_text"), column(report, "delivered", "p_value")
    for name, precision, low, high, p_value in zip(names, precisions, lows, highs, p_values, strict=True):
        row = rows[str(name)]
        assert row["accuracy_interval"][precision] == [low, high]
        tested = row["accuracy_vs_winner"] if precision == "int8" else None
        assert p_value == (tested and tested["p_value"])
    assert texts[0] == "91.0% [86.2, 94.2]"
    assert column(report, "delivered", "latency_differs") == [None, None, True, None, True, None]
    assert set(column(report, "delivered", "test_images")) == {200}
    assert column(report, "precisions", "quantized_accuracy_text")[0] == "91.0% [86.2, 94.2]"
    assert column(report, "precisions", "p_value") == [row["quantized_vs_float"]["p_value"] for row in rows.values()]
    shown = to_text(report)
    assert "In brackets: 95% intervals." in shown
    assert len(re.findall(r"9\d\.\d% \[\d\d\.\d, \d\d\.\d\]", shown)) >= 14


def test_a_run_of_before_accuracies_were_tested_says_nothing_of_significance(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 20)
    forget_tests(run)
    report = run_report(read_run(run.folder))
    ending = "; test accuracy: 91.0% [86.2, 94.2] vs. 90.5% [85.6, 93.8]."
    assert report.headline.endswith(ending)
    assert section_text(report, "precision").endswith("Quantisation costs 1.0 percentage points of test accuracy.")
    assert "McNemar" not in report.to_json()
    assert set(column(report, "delivered", "p_value")) == {None}


def test_a_missed_target_is_said(finished: Run) -> None:
    facts = read_run(finished.folder)
    assert facts.result is not None
    missed = replace(facts, result=replace(facts.result, target_ms=0.6))
    assert "50% over the target of 0.600 ms: the target is missed." in run_report(missed).headline
    soft = replace(facts, result=replace(facts.result, target_ms=0.6, hard_limit=False))
    assert "which was not a hard limit" in run_report(soft).headline


def test_everything_asked_for_is_there(report: Report) -> None:
    assert [section.key for section in report.sections] == [
        "result",
        "search",
        "front",
        "architecture",
        "convergence",
        "target",
        "device",
        "failures",
        "prediction",
        "precision",
        "baseline",
        "conditions",
        "settings",
        "trials",
    ]
    names = {table.name for table in report.tables}
    for section in report.sections:
        for plot in section.plots:
            assert used(plot.spec) <= names, plot.name  # plots show nothing that is not in a table
            assert plot.title
            assert plot.alt


def used(spec: object) -> set[str]:
    """Names of the tables a specification takes its data from."""
    if isinstance(spec, dict):
        own = {spec["data"]["name"]} if "name" in spec.get("data", {}) else set()
        return own.union(*map(used, spec.values()))
    return set().union(*map(used, spec)) if isinstance(spec, (list, tuple)) else set()


def test_trials_are_as_in_the_journal(finished: Run, report: Report) -> None:
    trials = [Trial.from_json(record) for record in finished.journal()]
    assert column(report, "trials", "latency_ms") == [trial.latency_ms for trial in trials]
    assert column(report, "trials", "quality") == [trial.quality for trial in trials]
    assert column(report, "trials", "architecture") == [str(trial.architecture) for trial in trials]
    statistics = [trial.measurement and trial.measurement.statistics for trial in trials]
    lows = [each.interval_ms[0] if each and each.interval_ms else None for each in statistics]
    assert column(report, "trials", "low_ms") == lows
    temperatures = column(report, "trials", "temperature_c")
    assert temperatures[0] == 31.0
    assert temperatures[-1] is None


def test_what_was_observed_and_what_was_adjusted_stand_beside_the_latency(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 5)
    architecture = Trial.from_json(list(run.journal())[-1]).architecture
    last = run.config.search.steps
    with closing(run.open_journal(print)) as journal:
        quiet = LatencyAnswer.measured(visited(0.4))
        journal.append(Trial(last, last, architecture, 0.7, quiet, {"latency_ms": 0.4}, 0.7).to_json())
        noisy = LatencyAnswer.measured(visited(0.5, Verdict.CONTENDED))
        adjusted = AdjustedLatency(0.41, (0.38, 0.44), Verdict.CORRECTED)
        journal.append(Trial(last, last, architecture, 0.7, noisy, {"latency_ms": 0.41}, 0.7, adjusted).to_json())
    report = run_report(read_run(run.folder))
    expected = {
        "latency_ms": [0.4, 0.41],
        "low_ms": [pytest.approx(0.396), 0.38],
        "high_ms": [pytest.approx(0.404), 0.44],
        "measured_ms": [None, 0.5],
        "verdict": ["ok", "corrected"],
        "measured_verdict": ["ok", "contended"],
        "observed_median_ms": [0.8, 1.0],
        "observed_p90_ms": [0.8, 1.0],
    }
    assert {key: list(column(report, "trials", key)[-2:]) for key in expected} == expected
    assert "1 of the noisy latencies was adjusted" in section_text(report, "failures")


def test_candidates_are_counted_by_verdict_with_examples(finished: Run, report: Report) -> None:
    verdicts = dict(zip(column(report, "verdicts", "verdict"), column(report, "verdicts", "trials"), strict=True))
    expected: dict[str, int] = {}
    for record in finished.journal():
        verdict = record["measurement"]["verdict"]
        expected[verdict] = expected.get(verdict, 0) + 1
    assert verdicts == expected
    assert HOSTILE in column(report, "verdicts", "example")


@pytest.mark.parametrize(("factor", "expected"), [(0.5, "2.00 times as fast"), (1.25, "int8 is slower than float")])
def test_int8_against_float_is_said_plainly(tmp_path: Path, factor: float, expected: str) -> None:
    report = run_report(read_run(finished_run(tmp_path / "run", 10, factor).folder))
    assert expected in section_text(report, "precision")
    assert re.search(
        r"costs 1\.0 percentage points of test accuracy \(not significant: McNemar p = [\d.]+, 200 test examples\)\.",
        section_text(report, "precision"),
    )


def test_random_architectures_are_the_measure(finished: Run, report: Report) -> None:
    said = section_text(report, "baseline")
    randoms = [json.loads(line)["record"] for line in finished.path("stages/random.jsonl").read_bytes().splitlines()]
    within = sum(record["usage"]["latency_ms"] <= 1.0 for record in randoms[1:])
    assert "80 random architectures were scored" in said
    assert f"; the best 60 were checked against the target, in order, until one met it, and {within} are within" in said
    assert "The winner, at 85.0%, beats all of them, whatever their latency." in said


def test_conditions_are_complete(report: Report) -> None:
    rows = dict(zip(column(report, "conditions", "what"), column(report, "conditions", "value"), strict=True))
    assert rows["device"] == "made-up phone"
    assert rows["runtime"] == "litert 1.0"
    assert (rows["threads"], rows["cores measured on"], rows["governor"]) == ("1", "7", "schedutil")
    settings = dict(zip(column(report, "settings", "setting"), column(report, "settings", "value"), strict=True))
    assert settings["target.latency_ms"] == "1.0"
    assert "temperature" not in section_text(report, "device").partition("Not reported")[2]
    assert "Not reported by this device: clock" in section_text(report, "device")


# ---------------------------------------------------------------- how the policy converged


def test_the_policy_is_shown_as_it_was_noted(report: Report, finished: Run) -> None:
    facts = read_run(finished.folder)
    steps, last = facts.policy[-1]
    assert steps == 40
    decisions = [i for i, decision in enumerate(space_of(finished).decisions) if len(decision.choices) > 1]
    assert column(report, "decisions", "probability") == [max(last[i]) for i in decisions]
    assert set(column(report, "policy", "step")) == set(range(1, 41))
    assert "a probability of at least 90%" in section_text(report, "convergence")


def test_a_continued_search_notes_each_step_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 5)
    write_policy(run)
    whole = run.path("policy.jsonl").read_bytes()
    controller = CategoricalController(space_of(run), 40)
    with closing(run.open_journal(pytest.fail, "policy.jsonl")) as journal:
        log = PolicyLog(journal, 25, 40)  # the checkpoint that it continues from was written after 25 steps
        assert len(journal) == 25
        for step in range(25, 40):
            log.write(step, controller)
    again = run.path("policy.jsonl").read_bytes()
    assert again.splitlines()[:26] == whole.splitlines()[:26]
    assert [step for step, _ in read_run(run.folder).policy] == list(range(1, 41))


def test_a_long_search_notes_its_policy_now_and_then(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 5)
    controller = CategoricalController(space_of(run), 10_000)
    with closing(run.open_journal(pytest.fail, "policy.jsonl")) as journal:
        log = PolicyLog(journal, 0, 10_000)
        for step in range(10_000):
            log.write(step, controller)
    steps = [step for step, _ in read_run(run.folder).policy]
    assert (steps[0], steps[-1], len(steps)) == (1, 10_000, 201)
    report = run_report(read_run(run.folder))
    shown = sorted(set(column(report, "policy", "step")))  # type: ignore[type-var]
    assert len(shown) <= 60
    assert shown[-1] == 10_000


def test_a_damaged_record_of_the_policy_costs_its_section_only(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 20)
    path = run.path("policy.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"step":3', b'"step":4', 1))
    report = run_report(read_run(run.folder))
    assert "The record of the controller's probabilities is damaged." in section_text(report, "convergence")
    assert len(to_page(report)) > 800_000


# ---------------------------------------------------------------- runs that did not get that far


def new_run(folder: Path, trials: Sequence[Trial] = ()) -> Run:
    with Run.create(folder, load_config("smoke")) as run, closing(run.open_journal(pytest.fail)) as journal:
        for trial in trials:
            journal.append(trial.to_json())
    return run


def test_a_run_without_trials(tmp_path: Path) -> None:
    report = run_report(read_run(new_run(tmp_path / "run").folder))
    assert report.state == "stopped"
    assert "0 of 24 steps" in report.headline
    assert "nas-edge search --resume" in report.headline
    assert "in the first 6 steps, only the shared weights train" in report.headline
    assert "Conditions" in to_text(report)
    assert len(to_page(report)) > 800_000


def test_a_run_of_which_nothing_could_be_timed(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    architecture = space_of(run).canonical(space_of(run).sample(np.random.default_rng(0)))
    lost = Measurement(Verdict.TIMEOUT, "took too long")
    with closing(run.open_journal(pytest.fail)) as journal:
        for step in range(6, 9):
            journal.append(Trial(step, step, architecture, 0.1, LatencyAnswer.measured(lost), None, None).to_json())
    report = run_report(read_run(run.folder))
    assert "None of the 3 trials has both a reliable latency and a quality." in report.headline
    assert "took too long" in to_text(report)


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 30)
    path = run.path("journal.jsonl")
    path.write_bytes(path.read_bytes()[:-25])  # the last record is being written
    with run.lock():
        report = run_report(read_run(run.folder))
    assert report.state == "running"
    assert len(column(report, "trials", "step")) == 29


def test_an_unfinished_run_shows_its_best_so_far(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 40, target_ms=1.0)
    architecture = space_of(run).canonical(space_of(run).sample(np.random.default_rng(0)))
    with closing(run.open_journal(pytest.fail)) as journal:
        trial = Trial(300, 300, architecture, 0.95, LatencyAnswer.measured(timed(0.8)), {"latency_ms": 0.8}, 0.9)
        journal.append(trial.to_json())
    report = run_report(read_run(run.folder))
    assert (
        "So far, the best trial within the target has a latency of 0.800 ms (measured); its accuracy with "
        "shared weights is 95.0%." in report.headline
    )
    drawn = next(section for section in report.sections if section.key == "architecture").drawings
    assert drawn[0].architecture == str(architecture)
    assert drawn[1].name == "proxylessnas-mobile"


def test_a_space_of_a_package_that_is_not_here(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 30)
    settings = run.read_json("config.json")
    settings["space"]["name"] = "somebody:elses"
    run.write_json("config.json", settings)
    report = run_report(read_run(run.folder))
    assert {"search", "target", "trials"} <= {section.key for section in report.sections}
    assert "architecture" not in {section.key for section in report.sections}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("result.json", '{"rows": []}', "result.json is damaged"),
        ("result.json", '{"target_ms": 1, "precision": "int8", "hard_limit": 1, "device": "", "rows": []}', "damaged"),
        ("stages/target.json", '{"target_ms": "fast"}', "target.json is damaged"),
        ("environment.json", '{"sessions": 3}', "environment.json is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, expected: str) -> None:
    run = make_run(tmp_path / "run", 3)
    run.path(name).write_text(content)
    with pytest.raises(RunError, match=expected):
        read_run(run.folder)


@pytest.mark.parametrize(
    "samples", [[math.nan], [1.0, math.nan, 2.0], [math.inf], [-1.0], [0.0], ["1"], [None], 3, "fast"]
)
def test_samples_that_are_none(tmp_path: Path, samples: object) -> None:
    run = new_run(tmp_path / "run")
    architecture = space_of(run).sample(np.random.default_rng(0))
    record = Trial(1, 1, architecture, 0.5, LatencyAnswer.measured(timed(1.0)), None, None).to_json()
    record["measurement"]["samples_ms"] = samples
    body = json.dumps(record, separators=(",", ":")).encode()  # unlike the journal's own writer, lets NaN through
    with run.path("journal.jsonl").open("ab") as file:
        file.write(b'{"seq":1,"crc":"%08x","record":%s}\n' % (zlib.crc32(b"1:%s" % body), body))
    with pytest.raises(RunError, match=r"line 2 of .*journal\.jsonl is not in this version's format"):
        read_run(run.folder)


# ---------------------------------------------------------------- forms


def test_the_terminal_is_not_steered(report: Report) -> None:
    text = to_text(report)
    assert "\x1b" not in text
    assert "</script><script>window.hacked = 1" in " ".join(text.split())
    assert all(line.isprintable() for line in text.splitlines())


def test_the_text_tells_the_same(report: Report) -> None:
    text = to_text(report)
    assert re.search(r"proxylessnas-mobile +int8 +1\.200 +1\.188 +1\.212 +measured +90\.5% ", text)
    assert "  stem    8 channels" in text
    assert "skipped" in text
    assert "nan" not in text


def test_other_resources_stand_beside_the_latency_with_how_they_are_known(finished: Run) -> None:
    facts = read_run(finished.folder)
    assert facts.result is not None
    size, energy = ResourceUse(84_000.0, "measured", "the TFLite file"), ResourceUse(None, "measured", "no counters")
    uses = {"int8": {"file_size_bytes": size, "energy_mj": energy}}
    winner = replace(facts.result.winner, resources=uses)
    asked = (ResourceResult(Objective("file_size_bytes", 90_000.0, limit=True), size),)
    result = replace(facts.result, rows=(winner, *facts.result.rows[1:]), resources=asked)
    first, *others = facts.trials
    trials = (replace(first, usage={"latency_ms": 1.0, "file_size_bytes": 84_100.0}), *others)
    told = run_report(replace(facts, result=result, trials=trials))
    assert column(told, "resources", "value") == [84_000.0, None]
    assert column(told, "resources", "kind") == ["measured", "measured"]
    assert column(told, "resources", "note") == ["the TFLite file", "no counters"]
    assert column(told, "limits", "outcome") == ["met"]
    assert column(told, "trials", "file_size_bytes")[:2] == [84_100.0, None]
    keys = {each.key for table in told.tables if table.name == "trials" for each in table.columns}
    assert "energy_mj" not in keys, "nothing was asked of it"
    assert "met" in to_text(told)


def test_tables_stand_beside_the_page(report: Report, tmp_path: Path) -> None:
    page = write_report(report, tmp_path / "report")
    assert page == tmp_path / "report" / "index.html"
    with (tmp_path / "report" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["latency_ms"]) if row["latency_ms"] else None for row in rows] == list(
        column(report, "trials", "latency_ms")
    )
    whole = json.loads((tmp_path / "report" / "report.json").read_text())
    assert whole["headline"] == report.headline
    assert not list((tmp_path / "report").glob("*.tmp"))


def test_no_cell_is_a_formula_to_a_spreadsheet() -> None:
    table = Table(
        "t", "", (Column("detail", "", "", ["=1+1", "@x", "-2", "fine"]), Column("n", "", "d", [-1, 2, 3, None]))
    )
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert rows == [["detail", "n"], ["'=1+1", "-1"], ["'@x", "2"], ["'-2", "3"], ["fine", ""]]


def test_the_page_is_the_same_each_time(report: Report) -> None:
    assert to_page(report) == to_page(report)


def test_numbers_are_written_for_people() -> None:
    assert (text_of(None, "d"), text_of(True, ""), text_of(0.1234, ".1%"), text_of("x", "d")) == (
        "-",
        "yes",
        "12.3%",
        "x",
    )


# ---------------------------------------------------------------- arithmetic and drawing


def test_the_rolling_share() -> None:
    assert rolling_share([True, True, False, False, True], 2) == [1.0, 1.0, 0.5, 0.0, 0.5]
    assert rolling_share([False, True, True], 4) == [0.0, 0.5, pytest.approx(2 / 3)]
    assert rolling_share([], 4) == []


def test_latencies_that_add_up_are_predicted(finished: Run) -> None:
    space, rng = space_of(finished), np.random.default_rng(0)
    times = [rng.uniform(0, 1, len(decision.choices)) for decision in space.decisions]

    def latency_ms(choices: Sequence[int], active: Sequence[bool]) -> float:
        return 5 + sum(float(row[c]) for row, c, on in zip(times, choices, active, strict=True) if on)

    architectures = [space.canonical(space.sample(rng)) for _ in range(800)]
    points = [(a, latency_ms(a.choices, space.active(a))) for a in architectures]
    predicted = predict(space, points)
    assert predicted is not None
    assert predicted.fitted == 400
    assert predicted.accuracy.mape < 2e-3
    assert (predicted.accuracy.spearman or 0) > 0.998
    assert predict(space, points[: FEWEST_FOR_PREDICTION - 1]) is None
    assert predict(space, points[:1] * 500) is None  # one architecture, however often, is one


def test_a_network_is_drawn_as_it_is() -> None:
    space = find_space("proxylessnas")(224, 1.0, 1001, 3)
    slots = slots_of(space)
    own = draw("a", "", space.decode(point(space, "proxylessnas-mobile")), slots, costs_known=True)
    published = draw("b", "", reference_network("proxylessnas-mobile"), slots, costs_known=True)
    assert own.stages == published.stages  # the same network, told by a space and by a list
    assert own.words == published.words
    block2 = next(stage for stage in own.stages if stage.label == "block2")
    assert (block2.channels, block2.size, block2.stride) == (32, 56, 2)
    assert [(layer.kernel, layer.expansion, layer.skipped) for layer in block2.layers] == [
        (5, 3.0, False),
        (3, 3.0, False),
        (1, None, True),
        (1, None, True),
    ]
    gated = draw("c", "", reference_network("mobilenet-v3-large"), [], costs_known=False)
    assert [layer.gated for layer in gated.stages[2].layers] == [True, True, True]
    assert gated.words == ""


# ---------------------------------------------------------------- several runs


def test_runs_measured_alike_share_a_table(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / name / "run", 20) for name in "ab"]
    report = compare_report([read_run(run.folder) for run in runs])
    assert [section.key for section in report.sections] == ["runs-1", "settings"]
    assert list(column(report, "runs_1", "run")) == ["run", "run (2)"]
    assert "The latencies of all runs are known in the same way" in report.headline
    assert "All settings are the same." in section_text(report, "settings")


def test_what_cannot_be_relied_on_is_not_the_fastest(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / name, 20) for name in "abc"]
    for run, (factor, verdict) in zip(runs[:2], ((0.1, "unsteady"), (0.9, "ok")), strict=True):
        result = run.read_json("result.json")
        measured = result["rows"][0]["latency"]["int8"]
        measured["verdict"], measured["detail"] = verdict, "" if verdict == "ok" else "other programs"
        measured["samples_ms"] = [factor * ms for ms in measured["samples_ms"]]
        run.write_json("result.json", result)
    report = compare_report([read_run(run.folder) for run in runs])
    assert report.title == "a, b and c"
    assert "Unreliable latency: a (unsteady)." in report.headline
    assert "The fastest network of the others is that of b, at " in report.headline
    assert list(column(report, "runs_1", "verdict")) == ["unsteady", None, None]
    alone = compare_report([read_run(runs[1].folder)])
    assert "fastest" not in alone.headline
    assert "accurate" not in alone.headline
    two = compare_report([read_run(run.folder) for run in runs[:2]])
    assert "The fastest network cannot be determined" in two.headline


def test_the_most_accurate_run_is_compared_on_the_same_images(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / name, 20) for name in "abc"]
    right = np.arange(200) < 182
    for run, wrong, accuracy in zip(runs, (0, 4, 40), (0.91, 0.89, 0.71), strict=True):
        scores = {("winner", "int8"): right & (np.arange(200) >= wrong)}
        write_example_scores(run, ExampleScores("ab12", scores))
        result = run.read_json("result.json")
        result["rows"][0]["accuracy"]["int8"] = accuracy
        result["rows"][0]["accuracy_interval"] = {}
        run.write_json("result.json", result)
    report = compare_report([read_run(run.folder) for run in runs])
    best = "the most accurate is that of a, with a test accuracy of 91.0% [86.2, 94.2]."
    # 2 / 2**4: of the four images on which they differ, a classifies all
    doubt = " The difference in accuracy from b (McNemar p = 0.12, 200 test examples) is not significant."
    assert report.headline.endswith(f"{best}{doubt}")
    assert column(report, "runs_1", "accuracy_text")[0] == "91.0% [86.2, 94.2]"
    assert column(report, "runs_1", "accuracy_low")[0] == pytest.approx(0.8622, abs=1e-4)
    write_example_scores(runs[1], ExampleScores("other images", {("winner", "int8"): right}))
    assert compare_report([read_run(run.folder) for run in runs]).headline.endswith(best)
    runs[1].path(TEST_SCORES).unlink()
    assert compare_report([read_run(run.folder) for run in runs]).headline.endswith(best)


def test_runs_that_went_by_one_table_are_compared_on_one_device_only(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 20)
    manifest = run.read_json("environment.json")
    (session,) = manifest["sessions"]
    device, key = session["device"], session["measured_with"]
    other = {**device, "fingerprint": "other"}
    earlier = {"precision": "int8", "device": "table a", "runtime": "", "settings": ""}

    def groups(*sessions: tuple[dict[str, Any], dict[str, str]]) -> int:
        facts = []
        for of_device, measured_with in sessions:
            manifest["sessions"] = [{**session, "device": of_device, "measured_with": measured_with}]
            run.write_json("environment.json", manifest)
            facts.append(read_run(run.folder))
        return len(compare_report(facts).sections) - 1

    judged = {**key, "judge": "table a"}
    assert groups((device, judged), (device, judged)) == 1
    assert groups((device, judged), (other, {**judged, "device": "other"})) == 2
    assert groups((device, judged), (device, key)) == 2
    assert groups((device, earlier), (device, earlier)) == 1
    assert groups((device, earlier), (other, earlier)) == 2
    assert groups((device, earlier), (device, key)) == 2


def test_latencies_that_cannot_be_compared_are_kept_apart(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", 20), make_run(tmp_path / "b", 20, seed=1)
    manifest = second.read_json("environment.json")
    manifest["sessions"][0]["measured_with"]["runtime"] = "litert 2.0"
    second.write_json("environment.json", manifest)
    report = compare_report([read_run(first.folder), read_run(second.folder)])
    assert [section.key for section in report.sections] == ["runs-1", "runs-2", "settings"]
    assert list(column(report, "runs_1", "run")) == ["a"]
    assert list(column(report, "runs_2", "run")) == ["b"]
    assert "cannot be compared" in report.headline
    assert column(report, "differing_settings", "setting") == ["seed"]


# ---------------------------------------------------------------- commands


def command(*arguments: str) -> tuple[int, str, str]:
    code = "import sys; from nas_edge import cli\ntry:\n    cli.main()\n"
    code += "finally:\n    heavy = {'tensorflow', 'keras', 'pandas', 'sklearn'} & set(sys.modules)\n"
    code += "    assert not heavy, heavy\n"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_commands(finished: Run, tmp_path: Path) -> None:
    code, out, err = command("report", str(finished.folder))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(finished.path("report/index.html"))
    assert "\x1b" not in out
    assert finished.path("report/report.json").exists()
    code, out, err = command("compare", str(finished.folder), str(finished.folder), "--out", str(tmp_path / "c.html"))
    assert (code, out, err) == (0, f"{tmp_path / 'c.html'}\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["report", "NOWHERE"], "NOWHERE is not a directory"),
        (["report", "RUN", "--text", "--serve"], "name one"),
        (["report", "RUN", "--port", "8000"], "--port goes with --serve"),
        (["compare"], "Missing argument"),
        (["compare", "RUN", "NOWHERE"], "NOWHERE is not a directory"),
    ],
)
def test_misuse_is_explained(
    finished: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    given = [str(finished.folder) if each == "RUN" else each for each in arguments]
    monkeypatch.setattr(sys, "argv", ["nas-edge", *given])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_place_that_cannot_be_written(finished: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    run.path("report").write_text("")
    code, _, err = command("report", str(run.folder))
    assert code == 1
    assert "choose another path with --out" in err
    assert len(err.splitlines()) == 1
    for arguments in (["report", str(run.folder)], ["compare", str(run.folder), str(finished.folder)]):
        code, _, err = command(*arguments, "--out", str(run.path("journal.jsonl")))
        assert code == 2
        assert "exists already" in err
    assert len(read_run(run.folder).trials) == 3


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "index.html").write_text("mine")
    run.path("report").symlink_to("../victim")
    code, _, err = command("report", str(run.folder))
    assert code == 1
    assert "is a symbolic link" in err
    assert [path.read_text() for path in (tmp_path / "victim").iterdir()] == ["mine"]


# ---------------------------------------------------------------- folders from anywhere


ODD = (None, True, -1, 0, 2.5, 1e300, 1e-300, "", "x", HOSTILE, [], [1], {}, {"a": 1})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def changed(value: Any, path: tuple[Any, ...], odd: object) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return copy


@pytest.mark.parametrize(
    "name", ["environment.json", "result.json", "stages/target.json", "journal.jsonl", "policy.jsonl"]
)
def test_a_folder_that_lies_is_reported_or_refused(tmp_path: Path, name: str) -> None:
    """Whatever stands in place of a value: a report that can be written in every form, or one clear error."""
    run = finished_run(tmp_path / "run", 2)
    kept = run.path(name).read_bytes()
    journal = name.endswith(".jsonl")
    original = json.loads(kept.splitlines()[1])["record"] if journal else json.loads(kept)
    reported = refused = 0
    where = list(places(original))
    cases = [(path, ODD[i % len(ODD)]) for i, path in enumerate(where)] if len(where) > 9 else product(where, ODD)
    for path, odd in cases:
        value = changed(original, path, odd)
        if journal:
            run.path(name).unlink()
            with closing(run.open_journal(pytest.fail, name)) as file:
                file.append(value)
        else:
            run.path(name).write_text(json.dumps(value))
        try:
            facts = read_run(run.folder)
            report, comparison = run_report(facts), compare_report([facts])
        except NasEdgeError:
            refused += 1
            continue
        for each in (report, comparison):
            to_text(each)
            each.to_json()
        reported += 1
    assert reported
    assert refused or name == "policy.jsonl", "that one is only for looking at"


# ---------------------------------------------------------------- options of training


def test_trained_finalists_are_told_of_with_what_each_training_came_to(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "photos")
    tried = run.trials(SELECTION).architecture
    for name, texts in (("winner", tried[:2]), ("best of random", [HOSTILE])):
        with closing(run.open_journal(pytest.fail, HALVING[name])) as journal:
            journal.append(HalvingScore("earlier recipe", "0:0", 1.0, 0.99).to_json())
            for epochs, quality in ((2.0, 0.5), (4.0, 0.75)):
                journal.append(HalvingScore("recipe", texts[-1], epochs, quality).to_json())
            for text in texts[:-1]:
                journal.append(HalvingScore("recipe", text, 2.0, None).to_json())
    found = run_report(read_run(run.folder))
    assert list(column(found, "halving", "architecture")) == [tried[1], tried[0], HOSTILE]
    assert list(column(found, "halving", "after_2_epochs")) == [0.5, None, 0.5]
    assert list(column(found, "halving", "after_4_epochs")) == [0.75, None, 0.75]
    assert column(found, "halving", "latency_ms")[2] is None
    assert "Those of the search and of the random baseline were treated alike." in section_text(found, "halving")


def test_what_a_run_started_from_is_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "photos")
    note_start(run, "the shared weights of runs/earlier after step 9", SUPERNET, Start(("stem", "head"), ("logits",)))
    note_start(run, "the shared weights of runs/earlier after step 9", "winner", Start(("stem",), ()))
    found = run_report(read_run(run.folder))
    started = "started from the shared weights of runs/earlier after step 9: "
    assert f"{started}winner (all 1 layers with weights)." in section_text(found, "result")
    assert f"{started}2 of 3 layers with weights; fresh: logits." in section_text(found, "search")
    assert "trained from scratch" not in section_text(found, "result")


def test_how_networks_were_trained_is_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "photos")
    write_teacher(run, TeacherFacts("recipe", "0:1", 0.875))
    note_early_stop(run, "winner", EarlyStop(40, 100, 30, 0.5))
    run.write_config(load_config(settings=["training.ema_decay=0.99"], base=run.config))
    says = section_text(run_report(read_run(run.folder)), "result")
    assert (
        "All learned from the largest network of the space as well, whose accuracy on validation examples is 87.5%."
        in says
    )
    assert "Trainings stop early by validation examples: winner ended after 40 of 100 steps with the weights of" in says
    assert "Weights are a moving average over the steps, with a decay of 0.99." in says
