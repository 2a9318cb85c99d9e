"""`hybrid`: predicts what it may, measures what it must, says which, and goes on as it would have after a stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from nas_edge.config import load_config
from nas_edge.errors import ConfigError, StoppedError
from nas_edge.latency import LATENCY_SOURCES, LatencyContext, open_latency_source
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.hybrid import Fit, HybridSettings, HybridSource, open_hybrid, spread_of
from nas_edge.latency.model_file import ModelFile, Provenance
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.subject import Observation, Subject
from nas_edge.latency.source import Candidate
from nas_edge.latency.table import Term
from nas_edge.runs.checkpoints import Checkpoints
from nas_edge.runs.journal import Journal, read_journal
from nas_edge.search.loop import SearchLoop
from nas_edge.search.methods import make_search
from nas_edge.search.multi_trial import MultiTrialSettings
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.table import TableSpace
from nas_edge.stages.recorded import RecordedSearch
from nas_edge.testing.problems import results_table, table_context
from tests.support.faults import Stop
from tests.support.sources import FunctionSource, visited

SPACE = TableSpace(results_table())
STEPS = 100


def slow_ms(candidate: Candidate) -> float:
    """Nearly additive, and of another scale than any guess without measuring."""
    assert candidate.architecture is not None
    first, *others = candidate.architecture.choices
    return 20.0 + sum(others) + 1.5 * first + 0.2 * first * others[0]


def hybrid(measure: Callable[[Candidate], float] = slow_ms, start: Fit | None = None) -> tuple[HybridSource, list[str]]:
    asked: list[str] = []

    def answer(candidate: Candidate) -> LatencyAnswer:
        asked.append(str(candidate.architecture))
        return LatencyAnswer.measured(visited(measure(candidate)))

    return HybridSource(FunctionSource(answer), SPACE, HybridSettings(), start), asked


def made_loop(source: HybridSource, controller: str = "reinforce") -> SearchLoop:
    settings = MultiTrialSettings.model_validate(
        {"steps": STEPS, "controller": controller, "quality": {"source": "column", "column": "quality"}}
    )
    return make_search(settings, table_context(source))


@pytest.mark.parametrize("controller", ["reinforce", "evolution"])
def test_a_share_is_measured_each_trial_says_which_and_predictions_are_near(controller: str) -> None:
    source, asked = hybrid()
    trials: list[Trial] = []
    loop = made_loop(source, controller)
    loop.run(lambda report: trials.extend(report.trials))
    kinds = [trial.latency.kind for trial in trials if trial.latency is not None]
    assert kinds[:16] == [LatencyKind.MEASURED] * 16
    assert len(asked) == len(set(asked)) <= max(16, 0.15 * len({trial.architecture for trial in trials}))
    predicted = [trial for trial, kind in zip(trials, kinds, strict=True) if kind is LatencyKind.PREDICTED]
    assert len(predicted) > STEPS / 4
    inside = 0
    for trial in predicted:
        assert trial.measurement is None
        assert trial.interval_ms is not None
        true_ms = slow_ms(loop.evaluator.candidate(trial.architecture))
        inside += trial.interval_ms[0] <= true_ms <= trial.interval_ms[1]
    assert inside >= 0.8 * len(predicted)


def test_an_architecture_that_was_measured_keeps_its_latency() -> None:
    source, asked = hybrid()
    trials: list[Trial] = []
    made_loop(source).run(lambda report: trials.extend(report.trials))
    measured: set[Architecture] = set()
    for trial in trials:
        assert trial.latency is not None
        if trial.architecture in measured:
            assert trial.latency.kind is LatencyKind.MEASURED
        if trial.latency.kind is LatencyKind.MEASURED:
            measured.add(trial.architecture)
    assert len(measured) == len(asked)


@pytest.mark.parametrize("after", [3, 58])
def test_stopped_and_continued_it_predicts_and_measures_the_same(tmp_path: Path, after: int) -> None:
    def recorded(folder: Path, stop: Stop | None = None) -> list[str]:
        source, asked = hybrid()
        folder.mkdir(exist_ok=True)
        with closing(Journal(folder / "journal.jsonl", pytest.fail)) as journal:
            search = RecordedSearch(made_loop(source), journal, Checkpoints(folder / "checkpoints"), 20, pytest.fail)
            search.run(None if stop is None else stop.count, stop)
        return asked

    whole = recorded(tmp_path / "whole")
    with pytest.raises(StoppedError):
        recorded(tmp_path / "stopped", Stop(after))
    known = read_journal(tmp_path / "stopped" / "journal.jsonl").records
    # As if it had been killed: the journal is ahead of the checkpoint that is left.
    for newest in sorted((tmp_path / "stopped" / "checkpoints").iterdir())[-1:]:
        if after > 20:
            for file in sorted(newest.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
            newest.rmdir() if newest.is_dir() else newest.unlink(missing_ok=True)
    asked = recorded(tmp_path / "stopped")
    assert (tmp_path / "stopped/journal.jsonl").read_bytes() == (tmp_path / "whole/journal.jsonl").read_bytes()
    before = sum("kind" not in (record["measurement"] or {}) for record in known)
    assert len(asked) <= len(whole) - min(before, len(whole)) + 1


def test_what_promises_more_is_measured_and_what_was_not_seen_is_not_trusted() -> None:
    source, asked = hybrid()
    rows = list(SPACE.table.rows)
    of_first_choice = [row for row in rows if row.choices[0] == 0]

    def try_all(architectures: list[Architecture]) -> None:
        for architecture in architectures:
            answer = source.submit(at(architecture)).result()
            source.take(architecture, source.confirm(at(architecture), answer, lambda ms: -ms), lambda ms: -ms)

    try_all(of_first_choice[:60:3])
    low_ms, high_ms = source.submit(at(rows[-1])).result().interval_ms or (0.0, 0.0)
    assert (high_ms - low_ms) / high_ms > 0.05  # none of those measured had its first choice
    try_all([rows[number * 37 % 256] for number in range(60)])
    for number in range(100, 220):  # so many predictions later, there is something to spend
        architecture = rows[number * 37 % 256]
        source.take(architecture, source.submit(at(architecture)).result(), lambda ms: -ms)
    new = next(row for row in rows if source.submit(at(row)).result().kind is LatencyKind.PREDICTED)
    answer, count = source.submit(at(new)).result(), len(asked)
    assert source.confirm(at(new), answer, lambda ms: 1e6).kind is LatencyKind.MEASURED
    assert len(asked) == count + 1


def at(architecture: Architecture) -> Candidate:
    return Candidate(SPACE.build(architecture), architecture)


def test_a_model_to_start_from_that_is_wrong_gets_wide_intervals_and_is_left() -> None:
    wrong = DecisionModel(bias_ms=1.0, terms=(Term({"op_0": 1}, 0.1),), error=0.01)
    source, _ = hybrid(start=Fit(wrong, [1.0] * 40))
    rows = list(SPACE.table.rows)
    last = at(rows[-1])
    first = source.submit(last).result()
    assert first.latency_ms == pytest.approx(1.0)
    for architecture in rows[:150:9][:15]:
        confirmed = source.confirm(at(architecture), source.submit(at(architecture)).result(), lambda ms: 0.0)
        source.take(architecture, confirmed, lambda ms: 0.0)
    low_ms, high_ms = source.submit(last).result().interval_ms or (0.0, 0.0)
    assert high_ms - low_ms > 10
    for architecture in rows[5:200:9]:
        source.take(architecture, LatencyAnswer.measured(visited(slow_ms(at(architecture)))), lambda ms: 0.0)
    assert source.submit(last).result().latency_ms == pytest.approx(slow_ms(last), rel=0.15)


def test_a_model_to_start_from_needs_intervals(tmp_path: Path) -> None:
    model = DecisionModel(bias_ms=1.0, terms=())
    path = tmp_path / "none.latency.json"
    path.write_text(ModelFile(provenance=Provenance(source="fit"), model=model).to_text())
    with pytest.raises(ConfigError, match="does not say how far off it may be"):
        open_hybrid(hybrid()[0], SPACE, HybridSettings(model=str(path)), "int8")


def test_devices_of_several_models_are_measured_always() -> None:
    several = {"device.addresses": ("host:", "ssh://pi"), "device.targets": ("host:=4", "ssh://pi=5")}
    with pytest.raises(ConfigError, match="met by measuring, but the search takes its latencies from hybrid"):
        load_config("smoke", None, {**several, "latency": "hybrid"})
    assert load_config("smoke", None, several).latency.asks_all_devices


def test_it_measures_by_a_source_that_it_names(tmp_path: Path) -> None:
    context = LatencyContext(SPACE, "int8", None)
    settings = LATENCY_SOURCES.settings("hybrid:column:latency_ms")
    assert settings.text == "hybrid:column:latency_ms"  # type: ignore[attr-defined]
    with open_latency_source(settings, context) as source:  # type: ignore[arg-type]
        assert math.isclose(source.submit(at(next(iter(SPACE.table.rows)))).result().latency_ms or 0, 1.0)
    for predicts in ("hybrid", "model:any.latency.json"):
        with pytest.raises(ConfigError, match="so nothing would be measured"):
            open_latency_source(LATENCY_SOURCES.settings(f"hybrid:{predicts}"), context)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="describes no networks"):
        open_latency_source(LATENCY_SOURCES.settings("hybrid"), context)  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["table:x.json", "sim:edgetpu", "column:latency_ms"])
def test_the_target_is_the_devices_only_where_it_measures(of: str) -> None:
    assert load_config("smoke", None, {"latency": "hybrid"}).latency.asks_device
    with pytest.raises(ConfigError, match=f"target.latency_ms is missing.*from hybrid:{of}"):
        load_config("smoke", None, {"latency": f"hybrid:{of}", "target.latency_ms": None})
    given = load_config("smoke", None, {"latency": f"hybrid:{of}", "target.latency_ms": 4.0})
    assert not given.latency.asks_device


def test_networks_of_the_delay_are_not_measured() -> None:
    always = {"search.controller.second_moments": "always"}
    with pytest.raises(ConfigError, match="second_moments=always has every network of the delay measured"):
        load_config("smoke", None, {**always, "latency": "hybrid"})
    without = {**always, "latency": "hybrid", "search.delay_fraction": 0.0}
    without |= {"search.op_warmup_fraction": 0.0, "search.filter_warmup_fraction": 0.0}
    assert load_config("smoke", None, without).search.delay_steps == 0


def test_of_many_observations_some_are_fitted_to_the_latest_and_an_even_spread() -> None:
    seen = [Observation(Subject(), float(number + 1)) for number in range(2600)]
    assert spread_of(seen[:1000]) == seen[:1000]
    numbers = [int(one.latency_ms) - 1 for one in spread_of(seen)]
    assert len(numbers) == 1000
    assert numbers[500:] == list(range(2100, 2600))
    gaps = {late - early for early, late in pairwise(numbers[:500])}
    assert numbers[0] == 0
    assert gaps == {4, 5}
