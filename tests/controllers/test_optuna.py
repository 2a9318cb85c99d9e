"""Optuna's samplers as controllers: they learn, failures discourage, and nothing is kept but what was told."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
from optuna.samplers import NSGAIISampler

from nas_edge.controllers import CONTROLLERS, Controller, Outcome, RandomSearchController, SearchPlan, as_proposed
from nas_edge.controllers.optuna_controller import OptunaController
from nas_edge.controllers.optuna_settings import OptunaSettings
from nas_edge.errors import ConfigError
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing.problems import TargetProblem, flat_space, nested_space, search, through_json

SAMPLERS = ("tpe", "nsga2")


def make(sampler: str, space: SearchSpace, steps: int) -> Controller:
    return CONTROLLERS.make(CONTROLLERS.settings(f"optuna:{sampler}"), space, SearchPlan(steps))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_late_proposals_are_better_than_random_ones(sampler: str) -> None:
    space = flat_space(8, 4)
    problem = TargetProblem(space)
    controller, by_chance = make(sampler, space, 120), RandomSearchController(space)
    learned = search(controller, problem.reward, 120, np.random.default_rng(0))
    drawn = search(by_chance, problem.reward, 120, np.random.default_rng(0))
    late, of_chance = (sorted(map(problem.reward, tried[-40:])) for tried in (learned, drawn))
    assert late[20] > of_chance[30], "the median is above the upper quartile of chance"
    assert controller.most_likely() == max(learned, key=problem.reward)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_candidates_that_fail_are_avoided_in_the_end(sampler: str) -> None:
    space = flat_space(4, 3)
    noise = np.random.default_rng(1)

    def reward(architecture: Architecture) -> float | None:
        return None if architecture.choices[0] == 2 else 0.5 + 0.1 * float(noise.normal())

    tried = search(make(sampler, space, 200), reward, 200, np.random.default_rng(0))
    counts = Counter(architecture.choices[0] for architecture in tried[-90:])
    assert counts[2] < 15, "half as many as by chance"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_canonical(sampler: str) -> None:
    space = nested_space()
    tried = search(make(sampler, space, 40), lambda a: float(a.choices[1]), 40, np.random.default_rng(0), samples=2)
    assert any(architecture.choices[1] == 1 for architecture in tried)
    assert all(architecture == space.canonical(architecture) for architecture in tried)


def test_what_was_not_evaluated_leaves_no_trace() -> None:
    space = flat_space()
    asked, other = make("tpe", space, 40), make("tpe", space, 40)
    asked.propose(50, np.random.default_rng(5))
    first, second = (search(c, TargetProblem(space).reward, 20, np.random.default_rng(0)) for c in (asked, other))
    assert first == second
    assert asked.state() == other.state()


def test_a_state_lists_what_was_told() -> None:
    space = flat_space(2, 3)
    controller = make("tpe", space, 10)
    for choices, reward in (((0, 1), 0.5), ((2, 2), None)):
        controller.update([Outcome(as_proposed(space, Architecture(choices)), reward)], 0)
    assert through_json(controller.state())["learned"] == {"told": [["0:1", 0.5], ["2:2", None]]}
    assert controller.name == "optuna:tpe"
    assert controller.probabilities() is None
    assert controller.entropy() is None


def test_a_space_without_alternatives_has_one_proposal() -> None:
    space = flat_space(2, 1)
    assert make("tpe", space, 4).propose(2, np.random.default_rng(0)) == [Architecture((0, 0))] * 2


def test_the_short_form_names_the_sampler() -> None:
    assert CONTROLLERS.settings("optuna:nsga2") == OptunaSettings(sampler="nsga2")
    assert CONTROLLERS.settings("optuna") == OptunaSettings(sampler="tpe")
    with pytest.raises(ConfigError, match=r"^controller: sampler: expected one of tpe, nsga2, gp"):
        CONTROLLERS.settings("optuna:x")


@pytest.mark.parametrize(
    ("sampler", "missing", "command"),
    [
        ("tpe", ("optuna",), r"pip install 'nas-edge\[optuna\]'"),
        ("gp", ("torch",), "pip install torch"),
        ("gp", ("optuna", "torch"), r"pip install 'nas-edge\[optuna\]' torch"),
    ],
)
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, sampler: str, missing: tuple[str, ...], command: str
) -> None:
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"^the controller optuna:{sampler} requires .* not installed: {command}$"):
        make(sampler, flat_space(), 10)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    space = flat_space()
    search(make("tpe", space, 15), TargetProblem(space).reward, 15, np.random.default_rng(0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("evaluations", "size"), [(120, 12), (2000, 50), (5, 2)])
def test_a_search_has_ten_generations_of_at_most_fifty(evaluations: int, size: int) -> None:
    controller = make("nsga2", flat_space(), evaluations)
    assert isinstance(controller, OptunaController)
    sampler = controller._seeded(0)
    assert isinstance(sampler, NSGAIISampler)
    assert sampler.population_size == size
