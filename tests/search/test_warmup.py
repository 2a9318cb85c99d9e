"""TuNAS's warm-up: what it replaces, how often, and that it leaves every other number as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from nas_edge.controllers import (
    CategoricalController,
    Controller,
    EvolutionController,
    Outcome,
    Proposal,
    RandomSearchController,
    as_proposed,
)
from nas_edge.search import warmup
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.testing.problems import nested_space, through_json

KERNEL, OP, WIDTH = range(3)


def propose(n: int = 200, space: SearchSpace | None = None, **probabilities: float) -> list[Proposal]:
    controller = CategoricalController(space or nested_space(), 100)
    return warmup.propose(controller, n, np.random.default_rng(0), probabilities)


def test_without_warmup_architectures_are_run_as_proposed() -> None:
    space = nested_space()
    for proposal in propose():
        assert proposal == as_proposed(space, proposal.architecture)
        assert proposal.architecture.choices == tuple(row.index(1.0) for row in proposal.weights)
        assert not proposal.mixed


def test_full_op_warmup_runs_every_operator_and_leaves_widths_alone() -> None:
    for proposal in propose(op=1.0):
        assert proposal.weights[KERNEL] == (1 / 3,) * 3
        assert proposal.weights[OP] == (0.5, 0.5)
        assert max(proposal.weights[WIDTH]) == 1.0
        assert proposal.replaced == (True, True, False)
        assert proposal.active == (True, True, True)
        assert proposal.mixed


def test_full_filter_warmup_runs_the_largest_value_and_leaves_operators_alone() -> None:
    for proposal in propose(filters=1.0):
        assert proposal.weights[WIDTH] == (0.0, 1.0, 0.0)
        assert proposal.architecture.choices[WIDTH] == 1
        assert proposal.replaced == (False, False, True)
        assert not proposal.mixed


def test_a_kind_without_a_warmup_is_never_replaced() -> None:
    space = nested_space()
    placement = replace(space.decisions[KERNEL], kind="placement")  # type: ignore[arg-type]
    space.decisions = (placement, *space.decisions[1:])
    for proposal in propose(space=space, op=1.0, filters=1.0, placement=1.0):
        assert proposal.replaced == (False, True, True)
        assert max(proposal.weights[KERNEL]) == 1.0


def test_partial_warmup_replaces_its_share() -> None:
    proposals = propose(2000, op=0.25)
    assert np.mean([p.replaced[KERNEL] for p in proposals]) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_a_subset_of_fixed_size_runs_all_operators_and_fades_as_a_whole(at_once: int) -> None:
    controller, rng = CategoricalController(nested_space(), 100), np.random.default_rng(0)
    for share in (1.0, 0.5, 0.0):
        proposals = warmup.propose(controller, 400, rng, {"op": share, "filters": share}, at_once)
        sizes = [proposal.replaced[KERNEL] + proposal.replaced[OP] for proposal in proposals]
        assert set(sizes) <= {0, min(at_once, 2)}
        assert np.mean(np.array(sizes) > 0) == pytest.approx(share, abs=0.08)
        assert np.mean([p.replaced[WIDTH] for p in proposals]) == pytest.approx(share, abs=0.08)
        if at_once == 1 and share == 1:
            assert np.mean([p.replaced[OP] for p in proposals]) == pytest.approx(0.5, abs=0.08)


def test_a_kernel_counts_while_warmup_runs_its_layer_beside_the_skip() -> None:
    replaced = [proposal for proposal in propose(op=0.5) if proposal.replaced[OP]]
    assert any(proposal.architecture.choices[OP] == 1 for proposal in replaced)
    assert all(proposal.active[KERNEL] for proposal in replaced)


def test_how_many_numbers_are_drawn_does_not_depend_on_warmup() -> None:
    states = []
    for share in (0.0, 0.7):
        rng = np.random.default_rng(0)
        warmup.propose(RandomSearchController(nested_space()), 3, rng, {"op": share, "filters": share})
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_a_proposal_survives_json_also_as_earlier_versions_wrote_it() -> None:
    for proposal in propose(20, op=0.5, filters=0.5):
        row = through_json(proposal.to_json())
        assert Proposal.from_json(row) == proposal
        assert Proposal.from_json(row | {"log_prob": -3.5}) == proposal


def test_warmup_falls_linearly_to_nothing() -> None:
    assert [warmup.probability(t, 4) for t in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert warmup.probability(0, 0) == 0.0


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


CONTROLLERS: Mapping[str, Callable[[SearchSpace], Controller]] = {
    "reinforce": lambda space: CategoricalController(space, 40, base_learning_rate=0.25),
    "evolution": lambda space: EvolutionController(space, population_size=6, sample_size=3),
    "random": RandomSearchController,
}


@pytest.mark.parametrize(
    ("space", "controller", "expected", "last_digits"),
    [
        ("nested", "reinforce", "e3c1e19291533e72", 384291329184),
        ("nested", "evolution", "6c1d6de93d6e5a0a", 535332175897),
        ("nested", "random", "c852652783960be6", 479382078254),
        ("proxylessnas", "reinforce", "353957562fce7187", 822615092848),
        ("proxylessnas", "evolution", "7912e735385c29f0", 884197388702),
        ("proxylessnas", "random", "161b324aa4602989", 181650600736),
    ],
)
def test_searches_are_those_of_versions_whose_controllers_did_the_warmup(
    space: str, controller: str, expected: str, last_digits: int
) -> None:
    """Proposals and the generator's state after 12 steps, from 878c00a, the last such version."""
    made = CONTROLLERS[controller](nested_space() if space == "nested" else find_space(space)(32, 0.25, 10, 3))
    rng, rows = np.random.default_rng(7), []
    for step in range(12):
        probabilities = {"op": warmup.probability(step, 6), "filters": warmup.probability(step, 9)}
        proposals = warmup.propose(made, 3, rng, probabilities)
        rows += [[str(p.architecture), p.weights, p.replaced, p.active] for p in proposals]
        made.update([Outcome(p, 0.01 * sum(p.architecture.choices)) for p in proposals], step)
    assert digest(rows) == expected
    assert rng.bit_generator.state["state"]["state"] % 10**12 == last_digits


def test_fair_sampling_draws_every_choice_equally_often_and_goes_on_where_it_was() -> None:
    space = nested_space()
    fair, rng = warmup.FairSampler(space), np.random.default_rng(0)
    drawn = fair.propose(6, rng)
    for position, decision in enumerate(space.decisions):
        size = len(decision.choices)
        for start in range(0, 6, size):
            assert {a.choices[position] for a in drawn[start : start + size]} == set(range(size))
    assert len({architecture.choices for architecture in fair.propose(36, rng)}) > 6, "decisions are drawn apart"
    fair.propose(2, rng)
    restored, state = warmup.FairSampler(space), rng.bit_generator.state
    restored.restore(through_json(fair.state()))
    expected = fair.propose(10, rng)
    rng.bit_generator.state = state
    assert restored.propose(10, rng) == expected
