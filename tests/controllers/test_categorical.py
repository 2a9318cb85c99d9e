"""The TuNAS controller: what it proposes, how it learns, that it resumes exactly."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas_edge.controllers import (
    CategoricalController,
    Outcome,
    Proposal,
    RandomSearchController,
    SearchPlan,
    as_proposed,
)
from nas_edge.controllers.categorical import ReinforceSettings, make_reinforce
from nas_edge.errors import ConfigError
from nas_edge.spaces.decisions import Architecture
from nas_edge.testing.problems import TargetProblem, flat_space, nested_space, search, through_json

KERNEL, OP, WIDTH = range(3)


def controller(**settings: Any) -> CategoricalController:
    return CategoricalController(nested_space(), **{"total_steps": 100} | settings)


def proposed(learner: CategoricalController, n: int, rng: np.random.Generator) -> list[Proposal]:
    return [as_proposed(learner.space, architecture) for architecture in learner.propose(n, rng)]


# ---------------------------------------------------------------- proposals


def test_a_new_policy_is_uniform() -> None:
    new = controller()
    assert new.entropy() == pytest.approx(math.log(3) + math.log(2) + math.log(3))
    assert list(new.probabilities()) == ["kernel", "op", "width"]
    assert new.probabilities()["kernel"] == pytest.approx((1 / 3,) * 3)
    assert new.most_likely() == Architecture((0, 0, 0))


def test_samples_follow_the_policy() -> None:
    tilted = controller()
    state = tilted.state()
    state["learned"]["logits"] = [math.log(0.7), math.log(0.2), math.log(0.1), 0, 0, 0, 0, 0]
    tilted.restore(state)
    chosen = [a.choices[KERNEL] for a in tilted.propose(4000, np.random.default_rng(0))]
    np.testing.assert_allclose(np.bincount(chosen) / 4000, [0.7, 0.2, 0.1], atol=0.03)


def test_temperature_leaves_the_initial_policy_uniform() -> None:
    hot = controller(temperature=5.0)
    assert hot.entropy() == pytest.approx(controller().entropy())
    for architecture in hot.propose(20, np.random.default_rng(0)):
        hot.space.check(architecture)


# ---------------------------------------------------------------- learning


def one_update(reward: float, other: float, **settings: Any) -> tuple[CategoricalController, list[Proposal]]:
    """An update whose first sample got `reward` and second `other`, without a past."""
    learner = controller(**settings)
    proposals = proposed(learner, 2, np.random.default_rng(0))
    assert proposals[0].architecture.choices[WIDTH] != proposals[1].architecture.choices[WIDTH]
    learner.update([Outcome(proposals[0], reward), Outcome(proposals[1], other)], step=0)
    return learner, proposals


def test_what_was_rewarded_more_becomes_more_likely() -> None:
    learner, (better, worse) = one_update(0.9, 0.1)
    width = learner.probabilities()["width"]
    assert width[better.architecture.choices[WIDTH]] > 1 / 3 > width[worse.architecture.choices[WIDTH]]


def test_a_decision_that_was_not_reached_does_not_move() -> None:
    learner = controller()
    proposals = [p for p in proposed(learner, 50, np.random.default_rng(0)) if p.architecture.choices[OP] == 1]
    learner.update([Outcome(p, float(i)) for i, p in enumerate(proposals)], step=0)
    assert not learner.logits[KERNEL].any()
    assert learner.logits[WIDTH].any()


def test_a_decision_that_warmup_replaced_does_not_move() -> None:
    learner = controller()
    proposals = [
        replace(proposal, replaced=(True, True, False), active=(True, True, True))
        for proposal in proposed(learner, 50, np.random.default_rng(0))
    ]
    learner.update([Outcome(p, float(i)) for i, p in enumerate(proposals)], step=0)
    assert not learner.logits[KERNEL].any()
    assert not learner.logits[OP].any()
    assert learner.logits[WIDTH].any()


@pytest.mark.parametrize(("baseline", "expected"), [("before", 1 - 0.05 / 0.0975), ("after", 1.0)])
def test_a_baseline_updated_before_use_halves_the_second_advantage(baseline: str, expected: float) -> None:
    """Rewards 0 then 1. The advantage is read from Adam's first non-zero second moment, 0.001 * gradient ** 2."""
    learner = controller(baseline=baseline)
    rng = np.random.default_rng(0)
    for step, reward in enumerate((0.0, 1.0)):
        learner.update([Outcome(proposed(learner, 1, rng)[0], reward)], step)
    steepest = 1 - 1 / 3  # of the width decision, which is always active
    assert math.sqrt(max(learner.state()["learned"]["v"]) / 0.001) / steepest == pytest.approx(expected)
    assert learner.baseline == pytest.approx(0.05 / 0.0975)


@pytest.mark.parametrize("baseline", ["before", "after"])
def test_the_first_single_sample_teaches_nothing(baseline: str) -> None:
    learner = controller(baseline=baseline)
    learner.update([Outcome(proposed(learner, 1, np.random.default_rng(0))[0], 0.7)], step=0)
    assert not np.concatenate(learner.logits).any()
    assert learner.baseline == pytest.approx(0.7)


def test_logits_rest_during_the_delay_while_the_second_moment_learns() -> None:
    for accumulate in (True, False):
        learner, _ = one_update(0.9, 0.1, delay_steps=50, accumulate_during_delay=accumulate)
        assert not np.concatenate(learner.logits).any()
        assert any(learner.state()["learned"]["v"]) is accumulate
        assert learner.baseline == pytest.approx(0.5)


def test_entropy_weight_pulls_the_policy_back_to_uniform() -> None:
    for weight in (0.0, 1.0):
        learner = controller(entropy_weight=weight)
        state = learner.state()
        state["learned"]["logits"] = [2.0, 0, 0, 1.0, 0, 2.0, 0, 0]
        learner.restore(state)
        before = learner.entropy()
        search(learner, lambda _: 0.5, 20, np.random.default_rng(0))  # constant rewards teach nothing else
        assert learner.entropy() > before if weight else learner.entropy() == before


def test_a_failed_candidate_is_discouraged() -> None:
    learner = controller()
    rng = np.random.default_rng(0)
    good, failed = proposed(learner, 2, rng)
    assert good.architecture.choices[WIDTH] != failed.architecture.choices[WIDTH]
    learner.update([Outcome(good, 0.5)], step=0)
    learner.update([Outcome(good, 0.6)], step=1)
    before = learner.probabilities()["width"][failed.architecture.choices[WIDTH]]
    learner.update([Outcome(failed, None)], step=2)
    assert learner.probabilities()["width"][failed.architecture.choices[WIDTH]] < before


def test_failures_before_any_success_teach_nothing() -> None:
    learner = controller()
    search(learner, lambda _: None, 10, np.random.default_rng(0))
    assert not np.concatenate(learner.logits).any()
    assert learner.baseline is None


def test_a_failed_candidate_is_as_bad_as_the_worst_of_late_not_of_ever() -> None:
    learner = controller(momentum=0.5)  # remembers two updates
    rng = np.random.default_rng(0)
    for step, reward in enumerate((-100.0, 0.8, 0.9)):
        learner.update([Outcome(proposed(learner, 1, rng)[0], reward)], step)
    before = learner.state()["learned"]["baseline"]
    learner.update([Outcome(proposed(learner, 1, rng)[0], None)], step=3)
    assert learner.state()["learned"]["baseline"][0] == 0.5 * before[0] + 0.5 * 0.8


def test_candidates_that_always_fail_are_avoided_in_the_end() -> None:
    learner = CategoricalController(flat_space(4, 3), 600, delay_steps=150)
    rng = np.random.default_rng(0)

    def reward(architecture: Architecture) -> float | None:
        return None if architecture.choices[0] == 2 else 0.5 + 0.1 * float(rng.normal())

    search(learner, reward, 600, rng)
    assert learner.probabilities()["layer0.filters"][2] < 0.1


# ---------------------------------------------------------------- searching


@pytest.mark.parametrize("baseline", ["before", "after"])
@pytest.mark.parametrize("samples", [1, 4])
def test_finds_the_optimum_of_a_separable_problem(baseline: Any, samples: int) -> None:
    space = flat_space(5, 3)
    best = (2, 0, 1, 1, 2)
    learner = CategoricalController(space, 400, samples_per_step=samples, delay_steps=100, baseline=baseline)
    rng = np.random.default_rng(3)
    search(learner, lambda a: float(np.mean([x == y for x, y in zip(a.choices, best, strict=True)])), 400, rng, samples)
    assert learner.most_likely().choices == best


def test_beats_random_search_at_equal_budget_over_seeds() -> None:
    space = flat_space(12, 4)
    problem = TargetProblem(space)
    for seed in range(5):
        learner, random = CategoricalController(space, 600, delay_steps=150), RandomSearchController(space)
        search(learner, problem.reward, 600, np.random.default_rng(seed))
        search(random, problem.reward, 600, np.random.default_rng(seed))
        assert problem.reward(learner.most_likely()) > problem.reward(random.most_likely())


# ---------------------------------------------------------------- resuming and settings


def test_an_interrupted_search_equals_an_uninterrupted_one_to_the_bit() -> None:
    space = flat_space(6, 3)
    problem = TargetProblem(space)

    def failing(a: Architecture) -> float | None:
        return None if a.choices[0] == 1 else problem.reward(a)

    def new() -> CategoricalController:
        return CategoricalController(space, 60, delay_steps=15, entropy_weight=0.01)

    whole, whole_rng = new(), np.random.default_rng(5)
    search(whole, failing, 60, whole_rng, samples=2)

    first, rng = new(), np.random.default_rng(5)
    search(first, failing, 25, rng, samples=2)
    state, rng_state = through_json(first.state()), through_json(dict(rng.bit_generator.state))
    second, rng = new(), np.random.default_rng()
    second.restore(state)
    rng.bit_generator.state = rng_state
    search(second, failing, 60, rng, samples=2, first_step=25)

    assert second.state() == whole.state()
    assert rng.bit_generator.state == whole_rng.bit_generator.state


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("total_steps", 0),
        ("samples_per_step", 0),
        ("base_learning_rate", 0.0),
        ("delay_steps", 100),
        ("temperature", 0.0),
        ("momentum", 1.0),
        ("baseline", "never"),
        ("entropy_weight", -1.0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"controller.{setting} must be"):
        controller(**{setting: value})


def test_settings_and_plan_reach_the_controller() -> None:
    settings = ReinforceSettings(learning_rate=0.01, baseline_momentum=0.5, entropy_weight=0.1, temperature=2.0)
    made = make_reinforce(settings, nested_space(), SearchPlan(100, delay_steps=20, samples_per_step=2))
    by_hand = CategoricalController(
        nested_space(),
        100,
        samples_per_step=2,
        base_learning_rate=0.01,
        delay_steps=20,
        temperature=2.0,
        momentum=0.5,
        entropy_weight=0.1,
        accumulate_during_delay=False,
    )
    for learner in (made, by_hand):
        search(learner, lambda a: float(sum(a.choices)), 60, np.random.default_rng(0), samples=2)
    assert made.state() == by_hand.state()
    assert made.learning_rate(19) == 0.0
    assert made.learning_rate(20) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("name", "default", "accepted", "refused"),
    [
        ("learning_rate", None, [1e-9, 2.0], [0.0]),
        ("baseline_momentum", 0.95, [0.0, 0.999], [-1e-9, 1.0]),
        ("baseline", "after", ["before"], ["never"]),
        ("second_moments", "learning", ["always"], ["never"]),
        ("entropy_weight", 0.0, [0.0, 2.0], [-1e-9]),
        ("temperature", 1.0, [1e-9, 5.0], [0.0]),
    ],
)
def test_every_setting_has_its_default_and_its_limits(
    name: str, default: Any, accepted: list[Any], refused: list[Any]
) -> None:
    assert getattr(ReinforceSettings(), name) == default
    for value in accepted:
        assert getattr(ReinforceSettings(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ValueError, match=name):
            ReinforceSettings(**{name: value})


def test_settings_at_their_limits_are_accepted() -> None:
    made = controller(total_steps=1, samples_per_step=1, delay_steps=0, momentum=0.0, entropy_weight=0.0)
    assert made.learning_rate(0) == pytest.approx(made.learning_rate(1) / 10)


def test_entropy_is_worth_something_beside_the_reward_and_not_instead_of_it() -> None:
    """A uniform policy has no more entropy to gain, so its first step is that of the reward alone."""
    without, _ = one_update(0.9, 0.1)
    with_entropy, _ = one_update(0.9, 0.1, entropy_weight=1.0)
    np.testing.assert_allclose(np.concatenate(with_entropy.logits), np.concatenate(without.logits), atol=1e-12)
    assert np.concatenate(without.logits).any()
