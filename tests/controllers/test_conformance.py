"""What every controller promises. A new one needs a line in CONTROLLERS here and nothing else."""

from collections.abc import Callable

import numpy as np
import pytest

from nas_edge.controllers import (
    CONTROLLERS,
    CategoricalController,
    Controller,
    EvolutionController,
    Outcome,
    RandomSearchController,
)
from nas_edge.errors import RunError
from nas_edge.spaces import SPACES
from nas_edge.spaces.decisions import Architecture, SearchSpace
from tests.controllers.small import TargetProblem, flat_space, nested_space, search, through_json

FACTORIES: dict[str, Callable[[SearchSpace], Controller]] = {
    "reinforce": lambda space: CategoricalController(space, 40, delay_fraction=0.0),
    "random": RandomSearchController,
    "evolution": lambda space: EvolutionController(space, population_size=6, sample_size=3),
}

pytestmark = pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)


def test_every_controller_is_under_test(make: Callable[[SearchSpace], Controller]) -> None:
    assert set(FACTORIES) == set(CONTROLLERS)
    assert make(flat_space()).name in CONTROLLERS


@pytest.mark.parametrize("space_name", ["nested", *SPACES])
def test_proposals_are_points_of_the_space(make: Callable[[SearchSpace], Controller], space_name: str) -> None:
    space = nested_space() if space_name == "nested" else SPACES[space_name](32, 0.25, 10, 3)
    controller = make(space)
    proposals = controller.propose(10, np.random.default_rng(0), op_warmup=0.5, filter_warmup=0.5)
    assert len(proposals) == 10
    for proposal in proposals:
        space.check(proposal.architecture)
        assert [len(row) for row in proposal.weights] == [len(d.choices) for d in space.decisions]
        assert all(sum(row) == pytest.approx(1.0) for row in proposal.weights)
        for decision, row, choice, replaced in zip(
            space.decisions, proposal.weights, proposal.architecture.choices, proposal.replaced, strict=True
        ):
            assert row[choice] > 0
            if replaced and decision.kind == "filters":
                assert choice == decision.largest
            if replaced and decision.kind == "op":
                assert len(set(row)) == 1
    controller.update([Outcome(p, 0.5) for p in proposals], 0)
    space.check(controller.most_likely())


def test_the_same_generator_gives_the_same_proposals(make: Callable[[SearchSpace], Controller]) -> None:
    space = flat_space()
    first, second, other = (make(space).propose(5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_the_global_generator_is_not_touched(make: Callable[[SearchSpace], Controller]) -> None:
    before = np.random.get_state(legacy=False)
    space = flat_space()
    search(make(space), TargetProblem(space).reward, 10, np.random.default_rng(0))
    after = np.random.get_state(legacy=False)
    np.testing.assert_equal(after, before)


def test_random_numbers_used_do_not_depend_on_warmup(make: Callable[[SearchSpace], Controller]) -> None:
    space = flat_space()
    states = []
    for warmup in (0.0, 0.7):
        rng = np.random.default_rng(0)
        make(space).propose(3, rng, op_warmup=warmup, filter_warmup=warmup)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_probabilities_and_entropy_describe_every_decision(make: Callable[[SearchSpace], Controller]) -> None:
    space = flat_space()
    controller = make(space)
    search(controller, TargetProblem(space).reward, 20, np.random.default_rng(0))
    probabilities = controller.probabilities()
    assert list(probabilities) == [d.path for d in space.decisions]
    assert all(sum(row) == pytest.approx(1.0) for row in probabilities.values())
    assert 0.0 <= controller.entropy() <= 8 * np.log(4) + 1e-9


def test_most_likely_is_canonical(make: Callable[[SearchSpace], Controller]) -> None:
    space = nested_space()
    controller = make(space)
    search(controller, lambda a: float(a.choices[1] == 1), 40, np.random.default_rng(0))
    assert controller.most_likely() == space.canonical(controller.most_likely())


def test_a_search_in_which_everything_fails_goes_on(make: Callable[[SearchSpace], Controller]) -> None:
    space = flat_space()
    controller = make(space)
    assert len(search(controller, lambda _: None, 10, np.random.default_rng(0), samples=2)) == 20
    space.check(controller.most_likely())


def test_a_step_without_outcomes_changes_nothing(make: Callable[[SearchSpace], Controller]) -> None:
    controller = make(flat_space())
    before = controller.state()
    controller.update([], 0)
    assert controller.state() == before


def test_restoring_continues_to_the_bit(make: Callable[[SearchSpace], Controller]) -> None:
    space = flat_space()
    problem = TargetProblem(space)

    def reward(architecture: Architecture) -> float | None:
        return None if architecture.choices[1] == 0 else problem.reward(architecture)

    whole, whole_rng = make(space), np.random.default_rng(9)
    expected = search(whole, reward, 30, whole_rng, samples=2)
    for stop in (0, 1, 17):
        first, rng = make(space), np.random.default_rng(9)
        tried = search(first, reward, stop, rng, samples=2)
        second = make(space)
        second.restore(through_json(first.state()))
        tried += search(second, reward, 30, rng, samples=2, first_step=stop)
        assert tried == expected
        assert second.state() == whole.state()


def test_a_state_is_not_changed_by_later_updates(make: Callable[[SearchSpace], Controller]) -> None:
    space = flat_space()
    controller, rng = make(space), np.random.default_rng(0)
    search(controller, TargetProblem(space).reward, 5, rng)
    state = controller.state()
    copy = through_json(state)
    search(controller, TargetProblem(space).reward, 10, rng, first_step=5)
    assert state == copy


def test_a_state_of_another_space_is_refused(make: Callable[[SearchSpace], Controller]) -> None:
    with pytest.raises(RunError, match="its decisions differs"):
        make(flat_space(4)).restore(make(flat_space(5)).state())


def test_a_state_of_another_version_is_refused(make: Callable[[SearchSpace], Controller]) -> None:
    controller = make(flat_space())
    with pytest.raises(RunError, match="its schema_version differs"):
        controller.restore(controller.state() | {"schema_version": 0})


def test_a_reward_that_is_not_finite_is_refused(make: Callable[[SearchSpace], Controller]) -> None:
    proposal = make(flat_space()).propose(1, np.random.default_rng(0))[0]
    with pytest.raises(ValueError, match="or None for a failed candidate"):
        Outcome(proposal, float("nan"))
