"""What the benchmarks of the search make of their measurements."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    controllers,
    hybrid_search,
    latency_model,
    relatives,
    scaling,
    supernet_fidelity,
    target_hit,
    tasks,
    two_parts,
)
from benchmarks.kept_results import KeptResults, settings_folder
from benchmarks.search_vs_random import difference
from device_agents.api import Measurement, Verdict
from nas_edge.errors import InfeasibleError
from nas_edge.latency.models.accuracy import Accuracy
from nas_edge.runs.result import ResultRow, RunResult
from nas_edge.runs.targets import TargetResult
from nas_edge.spaces.decisions import Architecture


def test_kept_results_are_found_out_once(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert KeptResults(file).once("a", lambda: {"b": (1, 2)}) == {"b": [1, 2]}
    assert KeptResults(file).once("a", lambda: pytest.fail("known already")) == {"b": [1, 2]}
    assert KeptResults(file).once("another", lambda: None) is None
    assert KeptResults(file).once("another", lambda: pytest.fail("known already")) is None
    assert KeptResults(None).once("a", lambda: 3) == 3


def test_what_was_stopped_goes_on_with_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.jsonl"
    KeptResults(file).keep("root of 4", 2.0)
    with file.open("a") as lines:
        lines.write('["root of 9", 3')  # cut off
    results = KeptResults(file)
    results.all({"root of 4": (pytest.fail, "known already"), "root of 9": (math.sqrt, 9.0)})
    assert "1 of 2 results are kept" in capsys.readouterr().out
    assert [KeptResults(file)["root of 4"], KeptResults(file)["root of 9"]] == [2.0, 3.0]


def test_results_with_other_settings_are_kept_elsewhere(tmp_path: Path) -> None:
    folder = settings_folder(tmp_path, "a", {"steps": 4, "latency": "sim:edgetpu"})
    assert folder == settings_folder(tmp_path, "a", {"latency": "sim:edgetpu", "steps": 4})
    assert (
        len({folder, settings_folder(tmp_path, "a", {"steps": 5}), settings_folder(tmp_path, "b", {"steps": 5})}) == 3
    )


def test_a_mean_difference_has_the_interval_of_student() -> None:
    found = difference([1.0, 2.0, 3.0])
    assert found["points"] == pytest.approx(2.0)
    assert found["interval"] == pytest.approx([2.0 - 4.3027 / 3**0.5, 2.0 + 4.3027 / 3**0.5], rel=1e-4)
    assert difference([1.5])["interval"] is None


def test_tau_by_chance_has_the_deviation_that_is_printed() -> None:
    rng = np.random.default_rng(0)
    taus = [supernet_fidelity.tau(range(12), rng.permutation(12)) for _ in range(2000)]
    assert float(np.std(taus)) == pytest.approx(supernet_fidelity.null_deviation(12), rel=0.05)


def test_shared_weights_are_compared_with_each_seed_of_the_trainings() -> None:
    accuracies = [[0.1, 0.2], [0.2, 0.1], [0.3, 0.3]]
    found = supernet_fidelity.figures(accuracies, [3, 2, 1], {"default": [0.1, 0.2, 0.3]})
    assert found["ceiling"] == pytest.approx(1 / 3)
    assert found["tau"]["default"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["macs"] == pytest.approx(-(1 + 1 / 3) / 2)


@pytest.mark.parametrize(
    ("of_all", "of_window", "ceiling", "count", "expected"),
    [
        (0.7, 0.6, 0.8, 24, True),
        (0.5, 0.6, 0.8, 24, False),
        (0.7, 0.5, 0.8, 24, False),
        (0.7, 0.6, 0.8, 23, None),
        (0.7, 0.6, 0.2, 24, None),
        (0.7, 0.6, math.nan, 24, None),
        (0.5, 0.6, 0.2, 24, False),
    ],
)
def test_fidelity_is_judged_by_both_groups(
    of_all: float, of_window: float, ceiling: float, count: int, expected: bool | None
) -> None:
    def group(tau: float) -> dict[str, object]:
        return {"architectures": count, "null_deviation": 0.1, "ceiling": ceiling, "tau": {"default": tau}}

    found = supernet_fidelity.verdict({"all": group(of_all), "window": group(of_window)})
    assert (found["pass"], "reason" in found) == (expected, expected is None)


def test_multiply_adds_of_the_table_are_those_of_the_networks() -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        architecture = target_hit.networks().canonical(target_hit.networks().sample(rng))
        assert target_hit.macs_of(architecture) == target_hit.network_macs(architecture)


def test_a_hit_is_just_below_the_target() -> None:
    outcome = target_hit.Outcome("absolute", 50.0, 0, 49.5, 0.7, 52.5)
    assert outcome.below == pytest.approx(0.01)
    assert outcome.sampled_off == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("of_table", "of_host", "expected"), [(True, True, True), (True, None, None), (False, None, False)]
)
def test_a_part_that_could_not_be_measured_allows_no_more_than_a_failure(
    of_table: bool, of_host: bool | None, expected: bool | None
) -> None:
    parts = {"table": {"pass": of_table}, "host": {"pass": of_host, "reason": target_hit.BUSY}}
    found = two_parts.verdict(parts, None)
    assert found["pass"] is expected
    assert found.get("reason") == (target_hit.BUSY if expected is None else None)
    assert two_parts.verdict(parts, "too few seeds") == {"pass": None, "reason": "too few seeds"}


def test_tasks_are_judged_by_their_own_metrics() -> None:
    rows = [
        {"task": name, "delivered": 0.5 + gain, "scaled": 0.5}
        for name, gain in (("one", 0.01), ("another", -0.02), ("one", 0.03))
    ]
    better = tasks.figures(rows)
    assert [(name, round(by["points"], 6)) for name, by in better.items()] == [("one", 2.0), ("another", -2.0)]


@pytest.mark.parametrize(
    ("mape", "floor", "usable", "effort", "expected"),
    [
        (0.02, 0.01, 150, latency_model.Effort(), True),
        (0.04, 0.01, 150, latency_model.Effort(), False),
        (0.02, 0.04, 150, latency_model.Effort(), None),
        (0.02, 0.01, 149, latency_model.Effort(), None),
        (0.02, 0.01, 10, latency_model.Effort(held_out=10), None),
        (0.02, 0.01, 10, latency_model.QUICK, None),
    ],
)
def test_a_latency_model_is_judged_where_enough_was_measured_quietly(
    mape: float, floor: float, usable: int, effort: latency_model.Effort, expected: bool | None
) -> None:
    found, again = (
        Accuracy(networks=usable, mape=error, p90_error=error, within_5=1.0, within_10=1.0, spearman=0.995)
        for error in (mape, floor)
    )
    verdict = latency_model.verdict(found, again, usable, effort)
    assert (verdict["pass"], "reason" in verdict) == (expected, expected is None)


def test_a_latency_model_of_one_space_says_nothing_of_all() -> None:
    rows: dict[str, dict[str, object]] = {f"{i}": {"pass": True} for i in range(4)}
    assert latency_model.overall(rows) == {"pass": True}
    assert latency_model.overall(rows | {"3": {"pass": False}}) == {"pass": False}
    assert latency_model.overall(rows | {"3": {"pass": None, "reason": "noise"}})["reason"] == "3: noise"
    assert latency_model.overall({"0": {"pass": True}})["pass"] is None


def test_one_seed_of_a_hybrid_search_has_no_verdict() -> None:
    pair = hybrid_search.Pair(0.001, 0.1, 0.5)
    assert hybrid_search.figures_of([pair, pair])["pass"] is True
    alone = hybrid_search.figures_of([pair])
    assert (alone["interval"], alone["pass"]) == (None, None)


@pytest.mark.parametrize(
    ("of_parts", "partial", "expected"),
    [
        ({"table": True, "host": True}, None, True),
        ({"table": True, "host": False}, None, False),
        ({"table": True, "host": None}, None, None),
        ({"table": True}, None, None),
        ({"table": False}, None, None),
        ({"table": True, "host": True}, "short searches", None),
    ],
)
def test_a_hybrid_search_is_judged_in_whole(
    of_parts: dict[str, bool | None], partial: str | None, expected: bool | None
) -> None:
    parts = {name: {"pass": passed, "reason": "busy"} for name, passed in of_parts.items()}
    found = two_parts.verdict(parts, partial)
    assert (found["pass"], "reason" in found) == (expected, expected is None)


def test_a_busy_machine_is_not_kept_as_a_latency(tmp_path: Path) -> None:
    results = KeptResults(tmp_path / "results.jsonl")
    busy, quiet = Measurement(Verdict.CONTENDED, "busy", (1.0, 2.0)), Measurement(Verdict.OK, samples_ms=(1.0, 1.1))
    run = tmp_path / "5ms"
    assert not target_hit.timed_again(run, results, lambda folder: busy).ok
    assert target_hit.timed_again(run, results, lambda folder: quiet).ok
    kept = target_hit.timed_again(run, KeptResults(tmp_path / "results.jsonl"), lambda folder: pytest.fail("is kept"))
    assert kept.samples_ms == quiet.samples_ms


def test_published_numbers_of_the_relatives_come_out() -> None:
    for name, system in relatives.SYSTEMS.items():
        found = relatives.golden_figures(system.golden)
        assert [row for row in found.values() if not row["pass"]] == [], name
    off = relatives.golden_figures([relatives.Golden("off", 100.0, lambda: 103.0)])
    assert off == {"off": {"found": 103.0, "published": 100.0, "pass": False}}


def test_relatives_are_judged_all_together() -> None:
    every = {name: {"pass": True} for name in relatives.SYSTEMS}
    assert relatives.figures(every)["pass"] is True
    assert relatives.figures({})["pass"] is None
    assert relatives.figures({**every, next(iter(every)): {"pass": False}})["pass"] is False


def test_the_best_operators_are_those_of_an_exhaustive_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controllers, "DECISIONS", 4)
    problem = controllers.OperatorsProblem(3)
    values = [problem.value(choices) for choices in np.ndindex((controllers.OPERATORS,) * 4)]
    assert max(values) == pytest.approx(problem.most)
    best = np.unravel_index(int(np.argmax(values)), (controllers.OPERATORS,) * 4)
    assert problem.outcome(Architecture(tuple(map(int, best)))).reward == pytest.approx(problem.best)


def test_a_curve_of_a_controller_is_the_same_again_and_ends_below_the_best() -> None:
    first, again = (controllers.curve("lstm", None, 0, 100) for _ in range(2))
    assert {**first, "seconds_per_1000": 0} == {**again, "seconds_per_1000": 0}
    row = controllers.rows_of({"lstm": [first]})["lstm"]
    assert row["evaluations"] == (20, 60, 100)
    assert len(row["delivered"]) == len(row["seen"]) == 3
    assert 0.4 < row["seen"][0] <= row["seen"][-1] <= 1.0
    assert row["delivered"] == first["delivered"]


@pytest.mark.parametrize(("surrogate", "lstm", "holds"), [(0.99, 0.98, True), (0.98, 0.98, False), (1.0, 0.97, False)])
def test_what_is_claimed_of_controllers_is_judged_by_the_end_of_their_curves(
    surrogate: float, lstm: float, holds: bool
) -> None:
    reached = {"surrogate": surrogate, "lstm": lstm, "reinforce": 0.98}
    found = controllers.verdict({name: {"delivered": [0.5, share]} for name, share in reached.items()})
    assert found["pass"] is holds


@pytest.mark.parametrize(
    ("latency_ms", "predicted_ms", "expected"),
    [(3.9, 3.8, True), (3.7, 3.7, False), (4.1, 4.0, False), (3.9, 3.4, False)],
)
def test_a_scaled_network_is_to_be_just_below_its_target_and_as_predicted(
    tmp_path: Path, latency_ms: float, predicted_ms: float, expected: bool
) -> None:
    measured = Measurement(Verdict.OK, samples_ms=(latency_ms,) * 20)
    row = ResultRow("winner", "0:0", None, {}, {"int8": measured})
    one = TargetResult(4.0, tmp_path, RunResult(4.0, "int8", True, (row,), "a device"))
    told = {"depth": 1.2, "width": 1.5, "input_size": 64, "latency_ms": latency_ms, "predicted_ms": predicted_ms}
    figures = scaling.member_row(one, told, KeptResults(None), again=False)
    assert figures["pass"] is expected
    assert figures["below"] == pytest.approx(1 - latency_ms / 4.0)
    nothing = scaling.member_row(
        TargetResult(4.0, tmp_path, None, InfeasibleError("too slow")), told, KeptResults(None), False
    )
    assert (nothing["pass"], nothing["problem"]) == (False, "too slow")


def test_a_device_may_refute_that_scaling_differs() -> None:
    assert scaling.per_mac_figures({"width": 0.5, "input_size": 1.0})["ratio"] == 2.0
    alike = scaling.per_mac_figures({"width": 0.9, "input_size": 1.0})
    assert alike["says"].startswith("fixed factors would do here")
    assert scaling.per_mac_figures({"width": 0.9})["ratio"] is None
