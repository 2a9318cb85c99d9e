"""The recurrent controller: what it learns from, and what its settings are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nas_edge.controllers import CONTROLLERS, LstmController, Outcome, SearchPlan, as_proposed
from nas_edge.controllers.base import Proposal
from nas_edge.controllers.lstm import LstmSettings
from nas_edge.errors import ConfigError
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing.problems import TargetProblem, flat_space, nested_space, search, through_json
from tests.controllers.test_recurrent import connected


def made(space: SearchSpace, plan: SearchPlan = SearchPlan(40), **settings: Any) -> LstmController:  # noqa: B008
    controller = CONTROLLERS.make(CONTROLLERS.settings({"name": "lstm", **settings}), space, plan)
    assert isinstance(controller, LstmController)
    return controller


def weights(controller: LstmController) -> str:
    return str(controller.state()["learned"]["weights"])


def test_published_settings_are_taken_unless_others_are_given() -> None:
    micro = CONTROLLERS.settings("lstm:enas-micro")
    assert isinstance(micro, LstmSettings)
    assert (micro.learning_rate, micro.tanh_constant, micro.op_tanh_reduce, micro.baseline) == (
        3.5e-3,
        1.1,
        2.5,
        "before",
    )
    other = CONTROLLERS.settings({"name": "lstm", "published": "enas-macro", "temperature": 5.0})
    assert isinstance(other, LstmSettings)
    assert (other.learning_rate, other.tanh_constant, other.skip_weight, other.temperature) == (1e-3, 1.5, 0.8, 5.0)
    with pytest.raises(ConfigError, match="expected one of enas-macro, enas-micro"):
        CONTROLLERS.settings("lstm:enas")


def test_weights_are_drawn_from_the_generator_of_the_first_proposal() -> None:
    states = []
    for seed in (1, 1, 2):
        controller = made(flat_space())
        assert controller.state()["learned"]["weights"] is None
        controller.propose(1, np.random.default_rng(seed))
        states.append(weights(controller))
    assert states[0] == states[1] != states[2]


def test_before_it_proposes_it_is_uniform_and_learns_nothing() -> None:
    space = nested_space()
    controller = made(space)
    fresh = controller.state()
    controller.update([Outcome(as_proposed(space, Architecture((0, 0, 0))), 1.0)], 0)
    assert controller.state() == fresh
    assert controller.probabilities()["op"] == (0.5, 0.5)
    assert controller.entropy() == pytest.approx(math.log(3 * 2 * 3))


def test_it_finds_a_good_architecture() -> None:
    space = flat_space(4, 4)
    problem, plan = TargetProblem(space), SearchPlan(150, samples_per_step=4)
    controller = made(space, plan)
    first = controller.entropy()
    search(controller, problem.reward, plan.total_steps, np.random.default_rng(0), samples=4)
    rewards = sorted(problem.reward(Architecture(tuple(row))) for row in np.ndindex(4, 4, 4, 4))
    assert problem.reward(controller.most_likely()) >= rewards[-5]
    assert controller.entropy() < first / 2


def test_it_learns_that_a_choice_depends_on_another() -> None:
    """Two decisions that are right when they are equal: independent choices cannot say so while both are open."""
    space, plan = flat_space(2, 2), SearchPlan(120, samples_per_step=8)
    controller = made(space, plan, entropy_weight=0.3, learning_rate=0.005, lstm_factor=1.0, final_factor=1.0)
    search(controller, lambda a: float(a.choices[0] == a.choices[1]), plan.total_steps, np.random.default_rng(0), 8)
    drawn = [a.choices for a in controller.propose(100, np.random.default_rng(1))]
    assert sum(first == second for first, second in drawn) > 90
    assert 20 < sum(first for first, _ in drawn) < 80
    assert controller.entropy() < math.log(2.0) + 0.3  # of the pair; that of the choices apart would be twice as much


@pytest.mark.parametrize(
    ("replaced", "active", "changes"),
    [
        ((False, True, False), (True, True, True), "op"),
        ((False, False, True), (True, True, True), "width"),
        ((False, False, False), (False, True, True), "kernel"),
    ],
)
def test_what_was_replaced_or_is_not_reached_has_no_gradient(
    replaced: tuple[bool, ...], active: tuple[bool, ...], changes: str
) -> None:
    space = nested_space()
    controller = made(space)
    controller.propose(1, np.random.default_rng(0))
    proposal = as_proposed(space, Architecture((1, 0, 1)))
    before = controller.probabilities()
    outcome = Outcome(Proposal(proposal.architecture, proposal.weights, replaced, active), 1.0)
    controller.update([outcome], 0)  # compared with itself
    controller.update([Outcome(outcome.proposal, 2.0)], 1)
    assert controller.weights is not None
    biases = controller.policy.views(controller.weights)
    for path in before:
        assert np.any(biases[f"{path} bias"]) == (path != changes)


def test_a_failed_candidate_becomes_less_likely() -> None:
    space = nested_space()
    controller = made(space, SearchPlan(60))
    search(controller, lambda a: None if a.choices[1] == 0 else 0.5 + 0.1 * a.choices[2], 60, np.random.default_rng(0))
    assert controller.probabilities()["op"][0] < 0.3


def test_nothing_is_learned_in_the_delay() -> None:
    space = flat_space()
    controller = made(space, SearchPlan(20, delay_steps=10))
    (architecture,) = controller.propose(1, np.random.default_rng(0))
    fresh = controller.state()
    controller.update([Outcome(as_proposed(space, architecture), 1.0)], 9)
    assert controller.state() == fresh
    assert [controller.learning_rate(step) > 0 for step in (0, 9, 10)] == [False, False, True]


def test_connections_are_drawn_to_their_target() -> None:
    space, plan = connected(4), SearchPlan(60, samples_per_step=4)
    controller = made(space, plan, skip_target=0.1, learning_rate=0.01, lstm_factor=1.0)
    search(controller, lambda _: 0.5, plan.total_steps, np.random.default_rng(0), samples=4)
    shares = [row[1] for path, row in controller.probabilities().items() if ".from" in path]
    assert len(shares) == 6
    assert max(shares) < 0.2 < made(space).probabilities()["layer1.from0"][1]


def test_an_entropy_weight_keeps_it_undecided() -> None:
    space, plan = flat_space(3, 3), SearchPlan(100, samples_per_step=4)
    left = []
    for weight in (0.0, 1.0):
        controller = made(space, plan, entropy_weight=weight, learning_rate=0.05, final_factor=1.0)
        search(controller, TargetProblem(space).reward, plan.total_steps, np.random.default_rng(0), samples=4)
        left.append(controller.entropy())
    assert left[0] < 1.0 < 2.8 < left[1] <= 3 * math.log(3) + 1e-9


def test_the_state_is_small_enough_to_be_written_often() -> None:
    controller = made(flat_space())
    search(controller, TargetProblem(flat_space()).reward, 3, np.random.default_rng(0))
    state = controller.state()
    assert through_json(state) == state
    assert controller.weights is not None
    assert len(str(state)) < 24 * len(controller.weights)
