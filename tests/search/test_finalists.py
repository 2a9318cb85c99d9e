"""Finalists: of what the controller proposes in the end, those near the target with the best scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nas_edge.controllers import RandomSearchController, surrogate_models
from nas_edge.controllers.latency_model import LatencyModel
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.column import open_column
from nas_edge.quality.column import ColumnQualitySettings
from nas_edge.search.finalists import FinalistsSettings, find_finalists
from nas_edge.search.loop import SearchLoop
from nas_edge.search.methods import make_search
from nas_edge.search.multi_trial import MultiTrialSearch, MultiTrialSettings
from nas_edge.search.selection import select
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.table import TableSpace
from nas_edge.testing.problems import results_table, table_context

TARGET_MS = 2.0


@pytest.fixture(scope="module")
def searched() -> tuple[SearchLoop, list[Trial]]:
    """After a search of a table, whose latency is 1 ms and a quarter for each step of a choice."""
    latency = open_column("latency_ms", TableSpace(results_table()))
    settings = MultiTrialSettings(
        steps=60,
        controller="random",
        quality=ColumnQualitySettings(column="quality"),  # type: ignore[arg-type]
    )
    loop = make_search(settings, table_context(latency))
    trials: list[Trial] = []
    loop.run(lambda report: trials.extend(report.trials))
    return loop, trials


def found(searched: tuple[SearchLoop, list[Trial]], limit_ms: float | None, **settings: float) -> list[Architecture]:
    chosen = FinalistsSettings.model_validate({"sampled": 200, **settings})
    return find_finalists(*searched, TARGET_MS, chosen, np.random.default_rng(0), limit_ms)


def values(loop: SearchLoop, architectures: Sequence[Architecture]) -> list[tuple[float, float]]:
    trials = loop.evaluate_all(architectures)
    return [(trial.quality or 0.0, trial.latency_ms or 0.0) for trial in trials]


def test_they_lie_near_the_target_and_have_the_best_scores(searched: tuple[SearchLoop, list[Trial]]) -> None:
    loop, _ = searched
    everything = found(searched, None, window=1.0, measured=1000)
    near = found(searched, None, measured=5)
    assert len(near) == len(set(near)) == 5 < len(everything)
    assert all(abs(latency_ms / TARGET_MS - 1) < 0.15 for _, latency_ms in values(loop, near))
    in_window = [q for q, ms in values(loop, everything) if abs(ms / TARGET_MS - 1) < 0.05]
    assert values(loop, near)[0][0] == max(in_window)


def test_so_many_are_scored_near_the_target_as_are_asked_for(searched: tuple[SearchLoop, list[Trial]]) -> None:
    loop, _ = searched
    few = found(searched, None, sampled=20, measured=1000)
    assert len(few) == 20, "31 of the 256 are; the others do not count"
    assert all(abs(latency_ms / TARGET_MS - 1) < 0.15 for _, latency_ms in values(loop, few))


def test_what_was_measured_long_ago_is_not_predicted(
    searched: tuple[SearchLoop, list[Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surrogate_models, "MOST_ROWS", 30)
    loop, trials = searched
    slow = Architecture((3, 3, 2, 3))
    quick = LatencyAnswer.estimated(LatencyKind.LOOKED_UP, TARGET_MS)
    told = [replace(trials[0], architecture=slow, latency=quick, adjusted=None, reward=9.0), *trials]
    timed = [(trial.architecture, trial.latency_ms) for trial in told if trial.latency_ms is not None]
    (predicted_ms,) = LatencyModel(loop.space, timed).predict_ms([slow])
    settings = FinalistsSettings(sampled=200, window=0.5 * (predicted_ms / TARGET_MS - 1.0), measured=1000)
    assert predicted_ms > 1.1 * TARGET_MS
    assert slow in find_finalists(loop, told, TARGET_MS, settings, np.random.default_rng(0))


def test_under_a_limit_none_is_predicted_above_it(searched: tuple[SearchLoop, list[Trial]]) -> None:
    loop, trials = searched
    timed = [(trial.architecture, trial.latency_ms) for trial in trials if trial.latency_ms is not None]
    chosen = found(searched, 1.9, window=0.3, measured=50)
    assert max(LatencyModel(loop.space, timed).predict_ms(chosen)) <= 1.9
    qualities = [quality for quality, _ in values(loop, chosen)]
    assert qualities == sorted(qualities, reverse=True)


def test_latencies_are_predicted_from_those_of_others(searched: tuple[SearchLoop, list[Trial]]) -> None:
    loop, trials = searched
    timed = [(trial.architecture, trial.latency_ms) for trial in trials[:40] if trial.latency_ms is not None]
    others = [trial for trial in trials[40:] if trial.latency_ms is not None]
    predicted = LatencyModel(loop.space, timed).predict_ms([trial.architecture for trial in others])
    errors = [abs(ms / (trial.latency_ms or 1.0) - 1.0) for ms, trial in zip(predicted, others, strict=True)]
    assert np.median(errors) < 0.03


def test_a_policy_that_has_converged_still_gives_many(searched: tuple[SearchLoop, list[Trial]]) -> None:
    loop, trials = searched

    class Converged(RandomSearchController):
        def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
            return [self.most_likely()] * n

    converged = Converged(loop.space)
    converged.restore(loop.controller.state())
    loop = MultiTrialSearch(converged, loop.evaluator, np.random.default_rng(0), MultiTrialSettings())
    settings = FinalistsSettings(sampled=60, window=1.0, measured=1000)
    chosen = find_finalists(loop, trials, TARGET_MS, settings, np.random.default_rng(0))
    best = max((trial for trial in trials if trial.reward is not None), key=lambda trial: trial.reward or 0.0)
    assert len(chosen) > 30
    assert best.architecture in chosen


def test_without_the_setting_or_a_latency_there_are_none(searched: tuple[SearchLoop, list[Trial]]) -> None:
    loop, trials = searched
    rng = np.random.default_rng(0)
    assert find_finalists(loop, trials, TARGET_MS, FinalistsSettings(), rng) == []
    assert find_finalists(loop, [], TARGET_MS, FinalistsSettings(sampled=10), rng) == []


def test_the_winner_is_the_best_of_them_and_the_most_likely(searched: tuple[SearchLoop, list[Trial]]) -> None:
    loop, _ = searched
    finalists = found(searched, None, measured=5)
    plain = select(loop.space, loop.controller, loop.evaluate_all, None).winner
    selection = select(loop.space, loop.controller, loop.evaluate_all, None, finalists=finalists)
    assert {trial.architecture for trial in selection.trials} == {plain.architecture, *finalists}
    assert selection.winner.reward == max(trial.reward or 0.0 for trial in selection.trials)
