"""The recurrent policy's gradients against finite differences, and what its decisions may depend on."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.controllers.recurrent import (
    BoolArray,
    Decide,
    FloatArray,
    IntArray,
    RecurrentPolicy,
    Squashing,
    Trace,
    by_logits_of_divergence,
    by_logits_of_entropy,
    by_logits_of_log_prob,
    steps_of,
)
from nas_edge.spaces.decisions import Architecture, Decision, SearchSpace
from nas_edge.spaces.design import Design
from nas_edge.testing.problems import nested_space

OPS = ("conv3", "conv5", "pool")


class Undrawn(SearchSpace):
    """Decisions alone: no network is ever made of them."""

    def build(self, architecture: Architecture) -> Design:
        raise NotImplementedError


def chain(length: int = 3) -> SearchSpace:
    return Undrawn("chain", [Decision(f"layer{i}.op", OPS, "op") for i in range(length)])


def cells(nodes: int = 2) -> SearchSpace:
    """Each node takes one of the two inputs or earlier nodes, and has an operator; as in ENAS's micro space."""
    decisions = []
    for i in range(nodes):
        before = ("input0", "input1", *(f"node{j}" for j in range(i)))
        decisions += [Decision(f"node{i}.from", before, "index"), Decision(f"node{i}.op", OPS, "op")]
    return Undrawn("cells", decisions)


def connected(layers: int = 3) -> SearchSpace:
    """Each layer has an operator, and a connection from each earlier layer or not; as in ENAS's macro space."""
    decisions = []
    for i in range(layers):
        decisions.append(Decision(f"layer{i}.op", OPS, "op"))
        decisions += [Decision(f"layer{i}.from{j}", ("", f"layer{j}"), "skip") for j in range(i)]
    return Undrawn("connected", decisions)


def conditional() -> SearchSpace:
    """A layer's connection and operator matter only where it is kept; the parent comes last."""
    kept = ((("layer1.keep", 1),),)
    return Undrawn(
        "conditional",
        [
            Decision("layer0.op", OPS, "op"),
            Decision("layer1.op", OPS, "op", kept),
            Decision("layer1.from0", ("", "layer0"), "skip", kept),
            Decision("layer1.keep", (0, 1), "filters"),
            Decision("layer2.op", OPS, "op"),
        ],
    )


SPACES = {"chain": chain, "cells": cells, "connected": connected, "nested": nested_space, "conditional": conditional}


def policy_of(space: SearchSpace, shared: bool = False) -> tuple[RecurrentPolicy, FloatArray]:
    policy = RecurrentPolicy(space, 4, shared, Squashing(5.0, 0.44), Squashing(2.0, 1.1))
    # Larger than the initial ones, so that everything matters.
    return policy, np.random.default_rng(0).uniform(-1, 1, policy.size)


def drawn(policy: RecurrentPolicy, weights: FloatArray, count: int, seed: int = 1) -> Trace:
    rng = np.random.default_rng(seed)
    return policy.run(weights, count, lambda i, pi: np.array([rng.choice(len(row), p=row) for row in pi]))


def given(choices: IntArray) -> Decide:
    return lambda i, pi: choices[:, i]


def finite_difference(function: object, weights: FloatArray) -> FloatArray:
    assert callable(function)
    h = 1e-5
    return np.array([(function(weights + h * e) - function(weights - h * e)) / (2 * h) for e in np.eye(len(weights))])


def error(gradient: FloatArray, expected: FloatArray) -> float:
    return float(np.abs(gradient - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_gradient_of_log_prob_is_its_finite_difference(name: str, shared: bool) -> None:
    policy, weights = policy_of(SPACES[name](), shared)
    trace = drawn(policy, weights, 3)
    choices, counted = trace.choices, trace.active

    def value(weights: FloatArray) -> float:
        return float(policy.run(weights, 3, given(choices), counted).log_prob(counted).sum())

    by_logits = [by_logits_of_log_prob(pi, choices[:, i]) * counted[:, i, None] for i, pi in enumerate(trace.pi)]
    assert error(policy.gradient(weights, trace, by_logits), finite_difference(value, weights)) < 1e-6


@pytest.mark.parametrize("name", ["chain", "connected"])
def test_gradient_of_the_entropy_and_the_divergence_is_their_finite_difference(name: str) -> None:
    policy, weights = policy_of(SPACES[name]())
    trace = drawn(policy, weights, 2)
    every: BoolArray = np.ones_like(trace.active)
    skips = [i for i, pi in enumerate(trace.pi) if pi.shape[1] == 2]
    target = np.array([0.6, 0.4])

    def value(weights: FloatArray) -> float:
        again = policy.run(weights, 2, given(trace.choices))
        divergence = sum((again.pi[i] * np.log(again.pi[i] / target)).sum() for i in skips)
        return float(again.entropy(every).sum() - divergence)

    by_logits = [
        by_logits_of_entropy(pi) - (by_logits_of_divergence(pi, target) if i in skips else 0.0)
        for i, pi in enumerate(trace.pi)
    ]
    assert error(policy.gradient(weights, trace, by_logits), finite_difference(value, weights)) < 1e-6


@pytest.mark.parametrize("name", SPACES)
def test_probabilities_of_all_architectures_sum_to_one(name: str) -> None:
    space = SPACES[name]()
    policy, weights = policy_of(space)
    grid = np.indices(tuple(len(d.choices) for d in space.decisions)).reshape(len(space.decisions), -1).T
    canonical = np.array(sorted({space.canonical(Architecture(tuple(row))).choices for row in grid.tolist()}))
    trace = policy.run(weights, len(canonical), given(canonical))
    assert trace.active.tolist() == [list(space.active(Architecture(tuple(row)))) for row in canonical.tolist()]
    assert np.exp(trace.log_prob(trace.active)).sum() == pytest.approx(1.0)


def test_what_was_drawn_for_a_layer_that_is_not_there_changes_nothing() -> None:
    policy, weights = policy_of(conditional())
    choices = np.array([[1, a, b, 0, 2] for a in range(3) for b in range(2)])
    trace = policy.run(weights, len(choices), given(choices))
    np.testing.assert_array_equal(trace.active, [[True, False, False, True, True]] * 6)
    assert len({round(p, 12) for p in trace.log_prob(trace.active)}) == 1
    kept = policy.run(weights, 6, given(np.where(np.arange(5) == 3, 1, choices)))
    assert len({round(p, 12) for p in kept.log_prob(kept.active)}) == 6


def test_a_decision_depends_on_those_before_it() -> None:
    policy, weights = policy_of(chain())
    choices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    first, second, third = policy.run(weights, 3, given(choices)).pi
    assert np.allclose(first[0], first[1])
    assert np.allclose(second[0], second[2])
    assert not np.allclose(second[0], second[1])
    assert not np.allclose(third[0], third[1])
    assert not np.allclose(third[0], third[2])


def test_steps_are_those_of_the_published_samplers() -> None:
    micro = steps_of(cells(2), shared=True)
    assert [(s.kind, s.attended, s.anchor, s.is_input) for s in micro] == [
        ("", (), 0, True),
        ("", (), 1, True),
        ("index", (0, 1), None, False),
        ("", (), None, False),
        ("", (), 2, False),  # complete: what later nodes attend to
        ("index", (0, 1, 2), None, False),
        ("", (), None, False),  # the last node, to which nothing attends
    ]
    macro = steps_of(connected(3), shared=True)
    assert [(len(s.decisions), s.kind, s.attended, s.anchor) for s in macro] == [
        (1, "", (), None),
        (0, "", (), 0),
        (1, "", (), None),
        (1, "skip", (0,), 1),
        (1, "", (), None),
        (2, "skip", (0, 1), None),
    ]
    assert len({s.group for s in micro if s.group and not s.kind}) == 1
    assert len({s.group for s in steps_of(cells(2), shared=False) if s.group and not s.kind}) == 2


def test_logits_are_bounded() -> None:
    policy = RecurrentPolicy(chain(), 8, False, Squashing(0.01, 1.5), Squashing())
    trace = policy.run(np.random.default_rng(0).uniform(-9, 9, policy.size), 1, lambda i, pi: pi.argmax(axis=1))
    most = np.exp(1.5) / (np.exp(1.5) + 2 * np.exp(-1.5))
    for pi in trace.pi:
        assert pi.max() <= most + 1e-12
    assert max(pi.max() for pi in trace.pi) > 0.7
