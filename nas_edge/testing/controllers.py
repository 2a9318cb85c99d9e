"""What a controller promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nas_edge.controllers.base import Controller, Outcome, SearchPlan, as_proposed
from nas_edge.errors import RunError
from nas_edge.registry import Entry
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing.expect import expect, expect_no_error, expect_no_global_draws
from nas_edge.testing.problems import TargetProblem, flat_space, nested_space, search, through_json
from nas_edge.testing.settings import check_settings

# The search that a controller under test is made for.
_PLAN = SearchPlan(total_steps=30, samples_per_step=2)

_Make: TypeAlias = Callable[[SearchSpace], Controller]


def check_controller(entry: Entry[Controller], space: SearchSpace | None = None, **settings: Any) -> None:
    """Checks a controller; takes seconds.

    Args:
        entry: the line of the table of controllers; of another package, the object that its entry point names.
        space: one more space to propose in, beside two small ones.
        **settings: other than the defaults.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    with expect_no_error("the settings"):
        chosen = check_settings(entry, "name", settings)

    def make(space: SearchSpace) -> Controller:
        controller = entry.make(chosen, space, _PLAN)
        expect(isinstance(controller, Controller), f"`make` must return a Controller, returned {type(controller)}")
        return controller

    for one in (flat_space(), nested_space(), *(() if space is None else (space,))):
        with expect_no_error(f"proposing architectures of {one.name}"):
            _check_proposals(make(one), one)
    with expect_no_error("proposing"):
        _check_randomness(make)
    with expect_no_error("searching"):
        _check_policy(make)
        _check_winner(make)
    with expect_no_error("searching where every candidate fails"):
        failing = make(flat_space())
        search(failing, lambda _: None, 10, np.random.default_rng(0), samples=2)
        failing.space.check(failing.most_likely())
    with expect_no_error("restoring a state"):
        _check_state(make)
        _check_restoring(make)
    _check_foreign_states(make)


def _check_proposals(controller: Controller, space: SearchSpace) -> None:
    architectures = controller.propose(10, np.random.default_rng(0))
    expect(len(architectures) == 10, f"`propose` was asked for 10 architectures and gave {len(architectures)}")
    for architecture in architectures:
        expect(isinstance(architecture, Architecture), f"`propose` must give Architectures, gave {architecture!r}")
        space.check(architecture)
    controller.update([Outcome(as_proposed(space, architecture), 0.5) for architecture in architectures], 0)
    space.check(controller.most_likely())


def _check_randomness(make: _Make) -> None:
    space = flat_space()
    reward = TargetProblem(space).reward
    with expect_no_global_draws():
        first, same, other = (search(make(space), reward, 15, np.random.default_rng(seed)) for seed in (1, 1, 2))
    expect(first == same, "the same generator gives other proposals: a run could not be repeated")
    expect(first != other, "another generator gives the same proposals: they are not drawn from it")


def _check_policy(make: _Make) -> None:
    space = flat_space()
    controller = make(space)
    search(controller, TargetProblem(space).reward, 20, np.random.default_rng(0))
    probabilities, entropy = controller.probabilities(), controller.entropy()
    if probabilities is None or entropy is None:
        expect(
            probabilities is None and entropy is None,
            f"a controller has both or neither: `probabilities` is {probabilities}, `entropy` {entropy}",
        )
        return
    paths = [decision.path for decision in space.decisions]
    expect(
        list(probabilities) == paths, f"`probabilities` must name {paths} in this order, named {list(probabilities)}"
    )
    for decision in space.decisions:
        row = probabilities[decision.path]
        expect(
            len(row) == len(decision.choices) and min(row) >= 0 and math.isclose(sum(row), 1.0, rel_tol=1e-6),
            f"the probabilities of {decision.path}, {row}, must be one per choice and sum to 1",
        )
    most = sum(math.log(len(decision.choices)) for decision in space.decisions)
    expect(0 <= entropy <= most + 1e-9, f"`entropy` must lie in 0 to {most:.4f} nats, is {entropy}")


def _check_winner(make: _Make) -> None:
    nested = nested_space()
    controller = make(nested)
    search(controller, lambda architecture: float(architecture.choices[1] == 1), 30, np.random.default_rng(0))
    winner = controller.most_likely()
    expect(winner == nested.canonical(winner), f"`most_likely` must be canonical, is {winner}")


def _check_state(make: _Make) -> None:
    space = flat_space()
    controller, rng = make(space), np.random.default_rng(0)
    fresh = controller.state()
    controller.update([], 0)
    expect(controller.state() == fresh, "a step without outcomes changes the state")
    search(controller, TargetProblem(space).reward, 5, rng)
    state = controller.state()
    copy = through_json(state)
    expect(state == copy, "`state` does not survive JSON")
    search(controller, TargetProblem(space).reward, 10, rng, first_step=5)
    expect(state == copy, "a state that was handed out is changed by later updates")


@dataclass
class _Search:
    """A search that can be stopped between any two steps, some of whose candidates fail."""

    controller: Controller
    rng: np.random.Generator
    problem: TargetProblem

    def step(self, step: int) -> tuple[list[Architecture], dict[str, Any]]:
        """Does one step; returns what was tried and the state after it."""
        tried = search(self.controller, self.reward, step + 1, self.rng, _PLAN.samples_per_step, first_step=step)
        return tried, through_json(self.controller.state())

    def reward(self, architecture: Architecture) -> float | None:
        return None if architecture.choices[1] == 0 else self.problem.reward(architecture)

    def continued(self, controller: Controller) -> _Search:
        """The same search, its controller restored into a new one."""
        controller.restore(through_json(self.controller.state()))
        return _Search(controller, self.rng, self.problem)


def _check_restoring(make: _Make) -> None:
    space = flat_space()

    def new() -> _Search:
        return _Search(make(space), np.random.default_rng(9), TargetProblem(space))

    whole = new()
    expected = [whole.step(step) for step in range(_PLAN.total_steps)]
    every, late = new(), new()
    for step in range(_PLAN.total_steps):
        every = every.continued(make(space))
        late = late.continued(make(space)) if step == 17 else late
        for what, running in (("each step", every), ("step 17", late)):
            expect(
                running.step(step) == expected[step],
                f"a search stopped after {what} and restored differs from one that was not stopped, in step {step}",
            )


def _check_foreign_states(make: _Make) -> None:
    controller = make(flat_space(5))
    for what, state in {
        "of another space": make(flat_space(4)).state(),
        "of another version": controller.state() | {"schema_version": 0},
        "of another controller": controller.state() | {"controller": "somebody else's"},
    }.items():
        try:
            controller.restore(state)
        except RunError:
            continue
        except Exception as error:
            raise AssertionError(f"a state {what} must be refused with RunError, raised {error!r}") from error
        raise AssertionError(f"a state {what} was accepted")
