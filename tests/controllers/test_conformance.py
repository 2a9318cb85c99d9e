"""Every controller keeps what controllers promise. A new one needs a line in FACTORIES here and nothing else."""

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
from nas_edge.spaces import find_space, network_space_names
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.testing import check_controller
from nas_edge.testing.problems import flat_space

FACTORIES: dict[str, Callable[[SearchSpace], Controller]] = {
    "reinforce": lambda space: CategoricalController(space, 40, delay_fraction=0.0),
    "random": RandomSearchController,
    "evolution": lambda space: EvolutionController(space, population_size=6, sample_size=3),
}


def test_every_controller_is_under_test() -> None:
    assert {make(flat_space()).name for make in FACTORIES.values()} == set(FACTORIES) == set(CONTROLLERS)


@pytest.mark.parametrize("space", network_space_names())
@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)
def test_controllers_conform(make: Callable[[SearchSpace], Controller], space: str) -> None:
    check_controller(make, find_space(space)(32, 0.25, 10, 3))


def test_a_reward_that_is_not_finite_is_refused() -> None:
    proposal = RandomSearchController(flat_space()).propose(1, np.random.default_rng(0))[0]
    with pytest.raises(ValueError, match="or None for a failed candidate"):
        Outcome(proposal, float("nan"))
