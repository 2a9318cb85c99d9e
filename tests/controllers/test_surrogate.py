"""Model-guided search: it finds the best in few evaluations, learns from failures, and never repeats itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from nas_edge.controllers import CONTROLLERS, Controller, Outcome, RandomSearchController, SearchPlan, as_proposed
from nas_edge.controllers import surrogate_models as models
from nas_edge.rewards import Objective, Usage, absolute
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points
from nas_edge.testing.problems import TargetProblem, flat_space, nested_space, search, through_json

OBJECTIVES = [Objective("latency_ms", 3.0, -0.5)]


def reward_of(quality: float, usage: Usage) -> float:
    return absolute(quality, usage, OBJECTIVES)


def make(space: SearchSpace, evaluations: int = 100, **settings: Any) -> Controller:
    chosen = CONTROLLERS.settings({"name": "surrogate", **settings})
    return CONTROLLERS.make(chosen, space, SearchPlan(evaluations, reward=reward_of))


class Problem:
    """Qualities and latencies of a flat space in which pairs of decisions combine."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sizes = [len(decision.choices) for decision in space.decisions]
        self.gains = [rng.uniform(0, 0.3, (a, b)) for a, b in pairwise(sizes)]
        self.costs = [rng.uniform(0.1, 1.5, size) for size in sizes]

    def outcome(self, space: SearchSpace, architecture: Architecture) -> Outcome:
        choices = architecture.choices
        quality = float(sum(g[a, b] for g, (a, b) in zip(self.gains, pairwise(choices), strict=True)))
        usage = {"latency_ms": float(sum(c[i] for c, i in zip(self.costs, choices, strict=True)))}
        return Outcome(as_proposed(space, architecture), reward_of(quality, usage), quality, usage)


def tried(
    controller: Controller, outcome: Callable[[Architecture], Outcome], steps: int, seed: int = 0, batch: int = 1
) -> list[Outcome]:
    rng, outcomes = np.random.default_rng(seed), []
    for step in range(steps):
        told = [outcome(architecture) for architecture in controller.propose(batch, rng)]
        controller.update(told, step)
        outcomes += told
    return outcomes


def rewards(outcomes: list[Outcome]) -> list[float]:
    return [outcome.reward for outcome in outcomes if outcome.reward is not None]


def test_it_finds_the_best_of_a_space_in_a_fraction_of_it() -> None:
    space = flat_space(5, 4)
    every = [Architecture(tuple(row)) for row in Points(space).every().tolist()]
    found, by_chance = [], []
    for seed in range(3):
        problem = Problem(space, seed)
        best = max(rewards([problem.outcome(space, architecture) for architecture in every]))
        # As many candidates as there are architectures.
        controller = make(space, candidates=1024)
        outcomes = tried(controller, lambda a, p=problem: p.outcome(space, a), 80, seed)  # type: ignore[misc]
        assert controller.most_likely() == max(outcomes, key=lambda o: o.reward or 0.0).proposal.architecture
        found.append(best - max(rewards(outcomes)))
        drawn = tried(RandomSearchController(space), lambda a, p=problem: p.outcome(space, a), 400, seed)  # type: ignore[misc]
        by_chance.append(best - max(rewards(drawn)))
    assert np.median(found) <= 1e-9, "the best of 1,024 after 80 evaluations"
    assert sum(found) < sum(by_chance), "and better than five times as many by chance"


def test_a_controller_that_is_told_rewards_alone_models_them() -> None:
    space = flat_space(8, 4)
    problem = TargetProblem(space)
    made = CONTROLLERS.make(CONTROLLERS.settings({"name": "surrogate", "candidates": 1024}), space, SearchPlan(100))
    learned = search(made, problem.reward, 100, np.random.default_rng(0))
    drawn = search(RandomSearchController(space), problem.reward, 1000, np.random.default_rng(0))
    assert max(map(problem.reward, learned)) > max(map(problem.reward, drawn)), "ten times as many by chance"


def test_candidates_that_fail_are_avoided_and_what_is_known_of_them_is_used() -> None:
    space = flat_space(5, 4)
    problem = Problem(space, 1)

    def outcome(architecture: Architecture) -> Outcome:
        known = problem.outcome(space, architecture)
        return Outcome(known.proposal, None, known.quality, None) if architecture.choices[2] == 3 else known

    outcomes = tried(make(space), outcome, 100)
    counts = Counter(o.proposal.architecture.choices[2] for o in outcomes[-50:])
    assert counts[3] < 6, "half as many as by chance"
    assert make(space).most_likely() == Architecture((0,) * 5)


def test_where_all_fails_it_goes_on() -> None:
    space = flat_space(3, 3)
    outcomes = tried(make(space), lambda a: Outcome(as_proposed(space, a), None), 27)
    assert len({outcome.proposal.architecture for outcome in outcomes}) == 27


@pytest.mark.parametrize("batch", [1, 4])
def test_no_network_comes_up_twice_until_all_did(batch: int) -> None:
    space = nested_space()
    distinct = space.distinct_size

    def alike(architecture: Architecture) -> Outcome:
        return Outcome(as_proposed(space, architecture), 0.5, 0.5, {"latency_ms": 1.0})

    outcomes = tried(make(space), alike, distinct // batch, 0, batch)
    architectures = [outcome.proposal.architecture for outcome in outcomes]
    assert len(set(architectures)) == distinct == 12
    assert all(architecture == space.canonical(architecture) for architecture in architectures)
    controller = make(space)
    tried(controller, alike, 20)
    (again,) = controller.propose(1, np.random.default_rng(0))
    space.check(again)


def test_proposals_that_wait_for_their_outcomes_are_not_made_again() -> None:
    space = flat_space(4, 3)
    problem, controller = Problem(space, 0), make(space)
    tried(controller, lambda a: problem.outcome(space, a), 20)
    rng = np.random.default_rng(3)
    waiting = [architecture for _ in range(4) for architecture in controller.propose(4, rng)]
    assert len(set(waiting)) == 16
    other = make(space)
    other.restore(through_json(controller.state()))
    assert not set(other.propose(8, rng)) & set(waiting), "nor after a restart"


def test_beyond_what_a_model_is_fitted_to_a_restored_search_goes_on_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MOST_ROWS", 24)
    monkeypatch.setattr(models, "MOST_ROWS_OF_KERNEL", 10)
    space = flat_space(6, 4)
    problem, whole = Problem(space, 2), make(space)
    tried(whole, lambda a: problem.outcome(space, a), 60)
    restored = make(space)
    restored.restore(through_json(whole.state()))
    expected = tried(whole, lambda a: problem.outcome(space, a), 10, seed=1)
    assert tried(restored, lambda a: problem.outcome(space, a), 10, seed=1) == expected


@pytest.mark.parametrize("name", ["nested", "mobilenet-v3-like"])
def test_points_are_canonical_and_mutations_differ_where_it_matters(name: str) -> None:
    space = nested_space() if name == "nested" else find_space(name)(32, 0.25, 10, 3)
    points, rng = Points(space), np.random.default_rng(0)
    drawn = points.sample(50, rng)
    for row, active in zip(drawn, points.active(drawn), strict=True):
        architecture = Architecture(tuple(row.tolist()))
        assert architecture == space.canonical(architecture)
        assert tuple(active) == space.active(architecture)
    mutated = points.mutated(drawn, 50, rng)
    assert (mutated == points.canonical(mutated)).all()
    # Two changes may undo each other.
    assert (drawn != mutated).any(axis=1).mean() > 0.8


def test_features_of_what_is_not_reached_are_zero() -> None:
    space = nested_space()
    points = Points(space)
    skipped = space.encode({"op": "skip"})
    (row,) = points.features(np.array([space.canonical(skipped).choices]))
    assert row.sum() == sum(space.active(skipped)) == 2


def test_a_posterior_is_that_of_scikit_learn() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    points, rng = Points(flat_space(5, 3)), np.random.default_rng(0)
    known, asked = (points.features(points.sample(n, rng)) for n in (30, 12))
    values = rng.normal(3.0, 2.0, 30)
    kernel = models.Kernel(variance=0.7, length=1.6, noise=0.04)
    means, deviations = models.Posterior(kernel, known, values).each(asked)
    # One-hot vectors that differ in one decision are the root of two apart.
    theirs = ConstantKernel(0.7) * Matern(1.6 * np.sqrt(2.0), nu=2.5)
    reference = GaussianProcessRegressor(theirs, alpha=0.04, optimizer=None, normalize_y=True).fit(known, values)
    expected = reference.predict(asked, return_std=True)
    np.testing.assert_allclose(means, expected[0], rtol=1e-8)
    np.testing.assert_allclose(deviations, expected[1], rtol=1e-6)
    draws = models.Posterior(kernel, known, values).draws(asked, 20_000, rng)
    np.testing.assert_allclose(draws.mean(axis=0), means, atol=0.08)
    covariance = reference.predict(asked, return_cov=True)[1]
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.15)


def test_a_kernel_is_fitted_to_how_values_vary() -> None:
    points, rng = Points(flat_space(8, 4)), np.random.default_rng(0)
    choices = points.sample(100, rng)
    features = points.features(choices)
    smooth = choices.sum(axis=1) / 10.0
    noisy = models.fit_kernel(features, smooth + rng.normal(0, 0.4, 100))
    clean = models.fit_kernel(features, smooth)
    assert noisy.noise > 20 * clean.noise
    rough = (choices.sum(axis=1) % 2).astype(float)
    assert clean.length > models.fit_kernel(features, rough).length


def test_what_learned_nothing_does_not_set_the_scale() -> None:
    values = np.array([0.01, 0.01, 0.70, 0.71, 0.72, 0.73, 0.74])
    floored = models.floored(values)
    assert list(floored[2:]) == list(values[2:])
    assert floored[0] == floored[1] == pytest.approx(0.71 - 2 * (np.quantile(values, 0.9) - 0.71))
    assert list(models.floored(np.ones(5))) == [1.0] * 5
