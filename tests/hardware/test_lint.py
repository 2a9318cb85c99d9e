"""Which choices of a space do not fit some hardware, and the space without them."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.errors import SpaceError
from nas_edge.hardware import HARDWARE, Hardware
from nas_edge.hardware.gate import check_file
from nas_edge.hardware.lint import covering_architectures, fit_space, lint_space
from nas_edge.networks import layers as L
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces import find_space, network_space_names
from nas_edge.spaces.decisions import Decision, NetworkSpace
from nas_edge.testing.spaces import check_space

EDGETPU = HARDWARE["edgetpu"]


def space_of(name: str) -> NetworkSpace:
    return find_space(name)(64, 0.25, 10, 3)


def only_h_swish() -> NetworkSpace:
    """A space whose every activation is a choice, one of them h-swish."""
    path = "act"
    choices = tuple(L.Activation(name) for name in ("relu", "hard_swish"))
    template = L.sequential(
        conv=L.Conv2D(8), act=L.OneOf(path, choices, ("relu", "h-swish")), pool=L.GlobalAveragePool(), flat=L.Flatten()
    )
    return NetworkSpace("swishing", template, [Decision(path, ("relu", "h-swish"), "op")], (8, 8, 3), 8)


@pytest.mark.parametrize("name", network_space_names())
def test_a_few_architectures_make_every_choice(name: str) -> None:
    space = space_of(name)
    made = set()
    architectures = list(covering_architectures(space))
    for architecture in architectures:
        active = space.active(architecture)
        made |= {(i, c) for i, (c, on) in enumerate(zip(architecture.choices, active, strict=True)) if on}
    assert len(made) == sum(len(decision.choices) for decision in space.decisions)
    assert len(architectures) <= 2 * max(len(decision.choices) for decision in space.decisions)


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("name", network_space_names())
def test_every_network_of_a_fitted_space_fits(name: str, hardware: str) -> None:
    fitted = fit_space(space_of(name), HARDWARE[hardware])
    changed = ("mobilenet-v3-like", "mnas", "enas-macro", "enas-micro")
    assert bool(fitted.changes) == (hardware == "edgetpu" and name in changed)
    rng = np.random.default_rng(0)
    for _ in range(5):
        file = tflite_model(fitted.space.decode(fitted.space.sample(rng)), "int8")
        check = check_file(file, HARDWARE[hardware])
        assert (check.problems, check.advice) == ((), ())


def test_mobilenet_v3_like_for_the_edge_tpu() -> None:
    space = space_of("mobilenet-v3-like")
    problems = lint_space(space, EDGETPU)
    slow = {problem.decision for problem in problems if problem.runs}
    assert slow == {decision.path for decision in space.decisions if decision.path.endswith(".se")}
    assert {problem.value for problem in problems if problem.runs} == {"se"}
    assert {problem.operator for problem in problems if not problem.runs} == {"HARD_SWISH"}
    assert any(problem.layer == "head1.act" and problem.choice is None for problem in problems)
    fitted = fit_space(space, EDGETPU)
    assert fitted.changes == ("without se (20 decisions)", "relu in place of hard_swish (52 layers)")
    assert fitted.space.size == space.size // 2**20
    assert [decision.path for decision in fitted.space.decisions] == [decision.path for decision in space.decisions]
    assert lint_space(fitted.space, EDGETPU) == []


def test_a_fitted_space_keeps_what_a_space_promises() -> None:
    make = find_space("mobilenet-v3-like")
    check_space(lambda *arguments: fit_space(make(*arguments), EDGETPU).space)


def test_a_choice_is_replaced_where_the_profile_knows_what_by() -> None:
    (problem,) = lint_space(only_h_swish(), EDGETPU)
    assert (problem.decision, problem.choice, problem.value) == ("act", 1, "h-swish")
    fitted = fit_space(only_h_swish(), EDGETPU)
    assert fitted.changes == ("without h-swish (1 decision)",)


def test_what_nothing_can_stand_for_is_an_error() -> None:
    template = L.sequential(conv=L.Conv2D(6), pool=L.GlobalAveragePool(), flat=L.Flatten())
    space = NetworkSpace("plain", template, [], (8, 8, 3), 6)
    fussy = Hardware("fussy", "takes nothing but convolutions", ("",), {"CONV_2D": EDGETPU.operators["CONV_2D"]})
    with pytest.raises(SpaceError, match="plain does not fit fussy: pool: MEAN: the operator is not supported"):
        fit_space(space, fussy)
