"""Alternating search: networks by trials, the accelerator beside them by asking about all."""

from __future__ import annotations

import pytest

from nas_edge.errors import ConfigError
from nas_edge.joint.accelerator import AcceleratorSpace
from nas_edge.latency.accelerator import AcceleratorSource
from nas_edge.latency.source import LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.quality import QUALITY_SOURCES
from nas_edge.quality.source import FunctionQuality, Quality, QualitySettings
from nas_edge.registry import Entry
from nas_edge.rewards import Objective
from nas_edge.search.alternating import AlternatingSearch, AlternatingSettings
from nas_edge.search.loop import StepReport
from nas_edge.search.methods import METHODS, SearchContext, make_search
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.tasks.tabular import Tabular, TabularSettings
from nas_edge.testing import check_search_loop
from nas_edge.testing.problems import nested_space, table_context

SPACE = AcceleratorSpace(nested_space())


class SizeSettings(QualitySettings):
    source: str = "size"


@pytest.fixture(autouse=True)
def quality_by_size(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """More multiply-accumulates are better; returns the fingerprints of the networks that are scored."""
    scored: list[str] = []

    def make(settings: SizeSettings, context: object) -> FunctionQuality:
        def evaluate(candidate: object) -> Quality:
            network = candidate.network  # type: ignore[attr-defined]
            scored.append(network.fingerprint)
            return Quality(1 - 1e3 / (1e3 + analyze(network).macs))

        return FunctionQuality("size", evaluate)

    entry: Entry[object] = Entry(SizeSettings, make, "more is better")
    monkeypatch.setitem(QUALITY_SOURCES.entries, "size", entry)  # type: ignore[arg-type]
    return scored


def context(latency: LatencySource, space: SearchSpace = SPACE) -> SearchContext:
    task = Tabular(TabularSettings())
    return SearchContext(space, task, None, latency, (Objective("latency_ms", 0.002),), seed=0)


def settings(**changed: object) -> AlternatingSettings:
    quality = SizeSettings()
    return AlternatingSettings(controller={"name": "random"}, **changed).model_copy(update={"quality": quality})  # type: ignore[arg-type]


def test_it_keeps_the_promises_of_a_search_loop() -> None:
    entry = METHODS.entries["alternating"]
    made = Entry(
        entry.settings, lambda given, parts: entry.make(given.model_copy(update={"quality": SizeSettings()}), parts)
    )
    for controller in ("reinforce", "random"):
        check_search_loop(made, context, controller={"name": controller}, rounds=3)


def run(**changed: object) -> tuple[AlternatingSearch, list[StepReport]]:
    loop = make_search(settings(**changed), context(AcceleratorSource(SPACE)))
    assert isinstance(loop, AlternatingSearch)
    reports: list[StepReport] = []
    loop.run(reports.append)
    return loop, reports


def test_each_round_is_beside_the_best_accelerator_for_the_best_network_before() -> None:
    _, reports = run(steps=12, rounds=2)
    first, second = reports[:6], reports[6:]
    beside = [
        {SPACE.split(trial.architecture)[1] for report in half for trial in report.trials} for half in (first, second)
    ]
    assert beside[0] == {SPACE.first_beside}
    best = max((trial for report in first for trial in report.trials), key=lambda trial: trial.reward or -9.0)
    objectives = [Objective("latency_ms", 0.002)]
    expected = SPACE.best_beside(SPACE.build(best.architecture).needed_network(), objectives)
    assert beside[1] == {expected} != beside[0]
    again = second[0].trials[0]
    assert SPACE.split(again.architecture)[0] == SPACE.split(best.architecture)[0], "the best network comes first"
    assert again.latency_ms is not None
    assert best.latency_ms is not None
    assert again.latency_ms < best.latency_ms


def test_a_network_is_scored_once_whatever_is_beside_it(quality_by_size: list[str]) -> None:
    run(steps=40, rounds=4, samples_per_step=2)
    assert len(quality_by_size) == len(set(quality_by_size)) == 12


def test_more_rounds_than_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds=3 requires at least as many steps"):
        settings(steps=2, rounds=3)


def test_a_space_without_anything_to_enumerate_is_refused() -> None:
    source = AcceleratorSource(SPACE)
    for parts in (table_context(source), context(source, nested_space())):
        with pytest.raises(ConfigError, match="enumerates the choices beside a network"):
            make_search(settings(), parts)
