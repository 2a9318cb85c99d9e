"""Every controller keeps what controllers promise. A new one is under test as soon as it is in the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nas_edge.controllers import CONTROLLERS, Outcome, RandomSearchController, as_proposed
from nas_edge.controllers.optuna_samplers import SAMPLERS
from nas_edge.spaces import find_space
from nas_edge.testing import check_controller
from nas_edge.testing.problems import flat_space

# Settings beside the defaults, by controller.
MORE_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "optuna": [{"sampler": sampler} for sampler in SAMPLERS if sampler not in ("tpe", "gp")],
    "surrogate": [{"initial": 4, "candidates": 64}],
    "evolution": [{"population_size": 6, "sample_size": 3}],
}
CASES = [(name, settings) for name in CONTROLLERS.entries for settings in ({}, *MORE_SETTINGS.get(name, []))]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_controllers_conform(name: str, settings: dict[str, Any]) -> None:
    check_controller(CONTROLLERS.entries[name], find_space("proxylessnas")(32, 0.25, 10, 3), **settings)


def test_the_gaussian_process_conforms() -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    check_controller(CONTROLLERS.entries["optuna"], sampler="gp")


def test_a_reward_that_is_not_finite_is_refused() -> None:
    space = flat_space()
    (architecture,) = RandomSearchController(space).propose(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="or None for a failed candidate"):
        Outcome(as_proposed(space, architecture), float("nan"))
