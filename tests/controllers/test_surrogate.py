"""Model-guided search: it finds the best in few evaluations, learns from failures, and never repeats itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from nas_edge.controllers import CONTROLLERS, Controller, Outcome, RandomSearchController, SearchPlan, as_proposed
from nas_edge.controllers import surrogate_models as models
from nas_edge.controllers.surrogate import most_improving
from nas_edge.rewards import Objective, Value, absolute
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.points import Points
from nas_edge.testing.problems import TargetProblem, flat_space, nested_space, search, through_json

OBJECTIVES = [Objective("latency_ms", 3.0, -0.5)]


def reward_of(quality: Value, usage: Mapping[str, Value]) -> Value:
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


@pytest.mark.parametrize("batch", [1, 4])
def test_it_finds_the_best_of_a_space_in_a_fraction_of_it(batch: int) -> None:
    space = flat_space(5, 4)
    every = [Architecture(tuple(row)) for row in Points(space).every().tolist()]
    found, by_chance = [], []
    for seed in range(3 if batch == 1 else 1):
        problem = Problem(space, seed)
        best = max(rewards([problem.outcome(space, architecture) for architecture in every]))
        # Fewer candidates than architectures, so that not all of them are looked at each time.
        controller = make(space, candidates=600)
        outcomes = tried(controller, lambda a, p=problem: p.outcome(space, a), 80 // batch, seed, batch)  # type: ignore[misc]
        assert controller.most_likely() == max(outcomes, key=lambda o: o.reward or 0.0).proposal.architecture
        found.append(best - max(rewards(outcomes)))
        drawn = tried(RandomSearchController(space), lambda a, p=problem: p.outcome(space, a), 400, seed)  # type: ignore[misc]
        by_chance.append(best - max(rewards(drawn)))
    assert np.median(found) <= 1e-9, "the best of 1,024 after 80 evaluations"
    assert sum(found) < sum(by_chance), "and better than five times as many by chance"


def test_of_a_batch_each_adds_most_to_those_before_it() -> None:
    # Two draws of the rewards of four architectures: the third is the first again, and nearly as good.
    rewards = np.array([[0.9, 0.2, 0.8, 0.5], [0.3, 0.7, 0.3, 0.6]])
    sure = np.ones(4)
    assert most_improving(rewards, 0.4, sure, 3) == [0, 1, 3], (
        "the third adds nothing to the first; closest is the last"
    )
    assert most_improving(rewards, 0.4, sure, 4) == [0, 1, 3, 2]
    assert most_improving(rewards, 0.65, sure, 1) == [0]
    assert most_improving(rewards, 0.4, np.array([0.1, 1.0, 1.0, 1.0]), 1) == [2], "the first will likely fail"
    assert most_improving(rewards, 2.0, sure, 2) == [0, 2], "none exceeds the best: those that come closest"


def test_a_controller_that_is_told_rewards_alone_models_them() -> None:
    space = flat_space(8, 4)
    problem = TargetProblem(space)
    made = CONTROLLERS.make(CONTROLLERS.settings("surrogate"), space, SearchPlan(100))
    learned = search(made, problem.reward, 40, np.random.default_rng(0))
    drawn = search(RandomSearchController(space), problem.reward, 1000, np.random.default_rng(0))
    assert max(map(problem.reward, learned)) > max(map(problem.reward, drawn)), "25 times as many by chance"


def test_candidates_that_fail_are_avoided_and_what_is_known_of_them_is_used() -> None:
    space = flat_space(5, 4)
    problem = Problem(space, 1)

    def outcome(architecture: Architecture) -> Outcome:
        known = problem.outcome(space, architecture)
        return Outcome(known.proposal, None, known.quality, None) if architecture.choices[2] == 3 else known

    outcomes = tried(make(space), outcome, 60)
    counts = Counter(o.proposal.architecture.choices[2] for o in outcomes[-40:])
    assert counts[3] < 5, "half as many as by chance"
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
    assert other.state() == controller.state()
    assert not set(other.propose(8, rng)) & set(waiting), "nor after a restart"


def test_beyond_what_a_model_is_fitted_to_a_restored_search_goes_on_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MOST_ROWS", 24)
    monkeypatch.setattr(models, "MOST_ROWS_OF_KERNEL", 10)
    space = flat_space(6, 4)
    problem, whole = Problem(space, 2), make(space, candidates=300)
    tried(whole, lambda a: problem.outcome(space, a), 50)
    restored = make(space, candidates=300)
    restored.restore(through_json(whole.state()))
    expected = tried(whole, lambda a: problem.outcome(space, a), 6, seed=1)
    assert tried(restored, lambda a: problem.outcome(space, a), 6, seed=1) == expected


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


def test_counts_are_of_choices_that_several_decisions_offer_alike() -> None:
    points = Points(flat_space(3, 2))
    (inputs,) = models.inputs_of(points, np.array([[0, 1, 1]]))
    assert inputs.tolist() == [1, 0, 0, 1, 0, 1, 1, 2]
    assert points.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert points.counted.tolist() == [0] * 6 + [1] * 2
    (skipped,) = models.inputs_of(Points(nested_space()), np.array([[0, 1, 0]]))
    assert len(skipped) == len(Points(nested_space()).groups) == 8, "no two decisions of this one are alike"


def a_kernel(points: Points) -> models.Kernel:
    rng = np.random.default_rng(5)
    relevance = rng.uniform(0.05, 0.4, points.groups.max() + 1)[points.groups]
    return models.Kernel(variance=0.7, relevance=relevance, slopes=np.full(len(relevance), 0.05), noise=0.04)


def test_a_posterior_is_that_of_scikit_learn() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

    points, rng = Points(flat_space(5, 3)), np.random.default_rng(0)
    known, asked = (models.inputs_of(points, points.sample(n, rng)) for n in (30, 12))
    values = rng.normal(3.0, 2.0, 30)
    kernel = a_kernel(points)
    means, deviations = models.Posterior(kernel, known, values).each(asked)
    linear = ConstantKernel(0.05) * DotProduct(1e-9)
    theirs = ConstantKernel(0.7) * Matern(1.0 / np.sqrt(kernel.relevance), nu=2.5) + linear
    reference = GaussianProcessRegressor(theirs, alpha=0.04, optimizer=None, normalize_y=True).fit(known, values)
    expected = reference.predict(asked, return_std=True)
    np.testing.assert_allclose(means, expected[0], rtol=1e-8)
    np.testing.assert_allclose(deviations, expected[1], rtol=1e-6)
    draws = models.Posterior(kernel, known, values).draws(asked, 20_000, rng)
    np.testing.assert_allclose(draws.mean(axis=0), means, atol=0.08)
    covariance = reference.predict(asked, return_cov=True)[1]
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.15)


def test_the_fit_ends_where_the_likelihood_times_the_prior_is_highest() -> None:
    from scipy.optimize import check_grad
    from scipy.stats import multivariate_normal, norm

    points, rng = Points(flat_space(4, 3)), np.random.default_rng(0)
    inputs = models.inputs_of(points, points.sample(40, rng))
    values = inputs @ rng.normal(size=inputs.shape[1]) + rng.normal(0, 0.5, 40)
    standardised = (values - values.mean()) / values.std()
    loss = models.loss_of(points, inputs, standardised)
    mean, deviation, bounds = models.prior_of(points)
    theta = mean + rng.normal(0, 0.5, len(mean))
    error = check_grad(lambda t: loss(t)[0], lambda t: loss(t)[1], theta)
    assert error < 1e-4 * np.linalg.norm(loss(theta)[1])

    def expected(theta: models.FloatArray) -> float:
        kernel = models.kernel_of(theta, points)
        covariance = kernel.between(inputs, inputs) + kernel.noise * np.eye(40)
        prior = norm(mean, deviation).logpdf(theta).sum()
        return float(-multivariate_normal(np.zeros(40), covariance).logpdf(standardised) - prior)

    assert loss(theta)[0] - loss(mean)[0] == pytest.approx(expected(theta) - expected(mean))
    fitted = models.fitted(points, inputs, standardised)
    inside = (fitted > bounds[:, 0] + 1e-9) & (fitted < bounds[:, 1] - 1e-9)
    assert inside.sum() > len(mean) / 2
    assert abs(loss(fitted)[1][inside]).max() < 0.02
    assert models.fit_kernel(points, inputs, values).noise == pytest.approx(np.exp(fitted[1]))


def test_a_kernel_is_fitted_to_how_values_vary() -> None:
    points, rng = Points(flat_space(8, 4)), np.random.default_rng(0)
    choices = points.sample(120, rng)
    inputs = models.inputs_of(points, choices)
    added = choices @ np.arange(8)
    noisy = models.fit_kernel(points, inputs, added + rng.normal(0, 4.0, 120))
    clean = models.fit_kernel(points, inputs, added)
    assert noisy.noise > 20 * clean.noise
    assert clean.noise == pytest.approx(1e-6), "what adds up is explained; less is not numerically safe"
    combined = (choices[:, 0] * choices[:, 1] % 3).astype(float)
    relevance = models.fit_kernel(points, inputs, combined).relevance
    assert min(relevance[0], relevance[4]) > 3 * relevance[8:32].max(), "only the first two decisions matter"


def test_networks_of_the_same_layers_in_another_order_are_alike() -> None:
    points, rng = Points(flat_space(8, 4)), np.random.default_rng(0)

    def values(choices: models.IntArray) -> models.FloatArray:
        return np.square((choices == 3).sum(axis=1) - 3.0)

    known, asked = points.sample(60, rng), points.sample(200, rng)
    inputs = models.inputs_of(points, known)
    posterior = models.Posterior(models.fit_kernel(points, inputs, values(known)), inputs, values(known))
    errors = posterior.each(models.inputs_of(points, asked))[0] - values(asked)
    assert np.sqrt(np.square(errors).mean()) < 0.2 * values(asked).std(), "from 60 of 65,536"


def test_kernels_are_fitted_again_as_rows_grow_and_to_those_selected() -> None:
    counts = [models.rows_of_kernel(n) for n in range(4, 5000)]
    assert counts[:8] == [4, 5, 6, 6, 8, 8, 10, 10]
    assert len(set(counts)) < 45
    assert all(5 * n / 6 - 1 < count <= n for n, count in enumerate(counts, 4))
    rewards = np.array([0.1, 0.9, -np.inf, 0.3, 0.8, 0.2, 0.7, 0.4])
    assert models.selected(rewards, 8).tolist() == list(range(8))
    assert models.selected(rewards, 6).tolist() == [1, 4, 6, 0, 2, 5]
    assert models.selected(rewards, 5).tolist() == [1, 4, 0, 3, 6]
    assert models.evenly(10, 4).tolist() == [0, 2, 5, 7]


def test_what_learned_nothing_does_not_set_the_scale() -> None:
    values = np.array([0.01, 0.01, 0.70, 0.71, 0.72, 0.73, 0.74])
    floored = models.floored(values)
    assert list(floored[2:]) == list(values[2:])
    assert floored[0] == floored[1] == pytest.approx(0.71 - 2 * (np.quantile(values, 0.9) - 0.71))
    assert list(models.floored(np.ones(5))) == [1.0] * 5
    assert list(models.floored(values, least=1.0)) == list(values), "none is so far below the median"
    assert models.floored(np.array([-9.0, *values]), least=1.0)[0] == pytest.approx(0.705 - 1.0)
