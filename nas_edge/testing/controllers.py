"""What a controller promises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from nas_edge.controllers.base import Controller, Outcome, Proposal
from nas_edge.errors import RunError
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing.expect import expect, expect_no_error
from nas_edge.testing.problems import TargetProblem, flat_space, nested_space, search, through_json

MakeController: TypeAlias = Callable[[SearchSpace], Controller]


def check_controller(make_controller: MakeController, space: SearchSpace | None = None) -> None:
    """Checks a controller; takes seconds.

    Args:
        make_controller: makes one, for searches of about 40 steps.
        space: one more space to propose in, beside two small ones.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    for one in (flat_space(), nested_space(), *(() if space is None else (space,))):
        with expect_no_error(f"proposing architectures of {one.name}"):
            _check_proposals(make_controller(one), one)
    _check_randomness(make_controller)
    with expect_no_error("searching"):
        _check_learned(make_controller)
    with expect_no_error("searching where every candidate fails"):
        failing = make_controller(flat_space())
        search(failing, lambda _: None, 10, np.random.default_rng(0), samples=2)
        failing.space.check(failing.most_likely())
    with expect_no_error("restoring a state"):
        _check_state(make_controller)
        _check_restoring(make_controller)
    _check_foreign_states(make_controller)


def _check_proposals(controller: Controller, space: SearchSpace) -> None:
    proposals = controller.propose(10, np.random.default_rng(0), op_warmup=0.5, filter_warmup=0.5)
    expect(len(proposals) == 10, f"`propose` was asked for 10 proposals and gave {len(proposals)}")
    for proposal in proposals:
        space.check(proposal.architecture)
        _check_weights(proposal, space)
    controller.update([Outcome(proposal, 0.5) for proposal in proposals], 0)
    space.check(controller.most_likely())


def _check_weights(proposal: Proposal, space: SearchSpace) -> None:
    rows = zip(space.decisions, proposal.weights, proposal.architecture.choices, proposal.replaced, strict=True)
    for decision, weights, choice, replaced in rows:
        where = f"the weights of {decision.path}, {weights},"
        expect(len(weights) == len(decision.choices), f"{where} are not one per choice")
        expect(math.isclose(sum(weights), 1.0, rel_tol=1e-6), f"{where} do not sum to 1")
        expect(weights[choice] > 0, f"{where} leave out the proposed choice {choice}")
        if replaced and decision.kind == "filters":
            expect(choice == decision.largest, f"warm-up must run the largest choice of {decision.path}, not {choice}")
        if replaced and decision.kind == "op":
            expect(len(set(weights)) == 1, f"{where} are not equal, although warm-up runs all choices")


def _check_randomness(make: MakeController) -> None:
    space = flat_space()
    first, same, other = (make(space).propose(5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    expect(first == same, "the same generator gives other proposals: a run could not be repeated")
    expect(first != other, "another generator gives the same proposals: they are not drawn from it")
    before = np.random.get_state(legacy=False)
    search(make(space), TargetProblem(space).reward, 10, np.random.default_rng(0))
    after = np.random.get_state(legacy=False)
    expect(
        _plain(before) == _plain(after), "the global generator was drawn from; draw from the one that is handed over"
    )
    used = []
    for warmup in (0.0, 0.7):
        rng = np.random.default_rng(0)
        make(space).propose(3, rng, op_warmup=warmup, filter_warmup=warmup)
        used.append(rng.bit_generator.state)
    expect(used[0] == used[1], "how many random numbers are drawn depends on warm-up")


def _check_learned(make: MakeController) -> None:
    space = flat_space()
    controller = make(space)
    search(controller, TargetProblem(space).reward, 20, np.random.default_rng(0))
    probabilities = controller.probabilities()
    paths = [decision.path for decision in space.decisions]
    expect(
        list(probabilities) == paths, f"`probabilities` must name {paths} in this order, named {list(probabilities)}"
    )
    for path, row in probabilities.items():
        expect(math.isclose(sum(row), 1.0, rel_tol=1e-6), f"the probabilities of {path}, {row}, do not sum to 1")
    entropy, most = controller.entropy(), 8 * math.log(4)
    expect(0 <= entropy <= most + 1e-9, f"`entropy` must lie in 0 to {most:.4f} nats, is {entropy}")
    nested = nested_space()
    controller = make(nested)
    search(controller, lambda architecture: float(architecture.choices[1] == 1), 40, np.random.default_rng(0))
    winner = controller.most_likely()
    expect(winner == nested.canonical(winner), f"`most_likely` must be canonical, is {winner}")


def _check_state(make: MakeController) -> None:
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


def _check_restoring(make: MakeController) -> None:
    space = flat_space()
    problem = TargetProblem(space)

    def reward(architecture: Architecture) -> float | None:
        return None if architecture.choices[1] == 0 else problem.reward(architecture)

    whole = make(space)
    expected = search(whole, reward, 30, np.random.default_rng(9), samples=2)
    for stop in (0, 1, 17):
        first, rng = make(space), np.random.default_rng(9)
        tried = search(first, reward, stop, rng, samples=2)
        second = make(space)
        second.restore(through_json(first.state()))
        tried += search(second, reward, 30, rng, samples=2, first_step=stop)
        expect(
            tried == expected and second.state() == whole.state(),
            f"a search stopped after step {stop} and restored ends otherwise than one that was not stopped",
        )


def _check_foreign_states(make: MakeController) -> None:
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


def _plain(state: Any) -> Any:
    """The state of the global generator, comparable."""
    return json.dumps(state, default=lambda array: array.tolist())
