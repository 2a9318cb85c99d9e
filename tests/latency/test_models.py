"""Models of latencies: what they recover of a device whose latencies are known, and what they say of their errors."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from pydantic import TypeAdapter

from nas_edge.errors import ConfigError
from nas_edge.latency.models import PREDICTORS, AnyPredictor
from nas_edge.latency.models.accuracy import accuracy_of
from nas_edge.latency.models.adapted import adapt
from nas_edge.latency.models.blocks import blocks_of
from nas_edge.latency.models.choosing import FOLDS, accuracy_of_macs, accuracy_on, choose_model
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.features import FeatureModel
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.models.predictor import Predictor
from nas_edge.latency.models.ridge import fit_ridge
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject, operator_sequence
from nas_edge.spaces import find_space
from nas_edge.spaces.reference import reference_network
from tests.support.devices import network_ms, observations, operator_ms
from tests.support.spaces import small_space

SPACE = find_space("proxylessnas")(32, 0.25, 10, 3)
TRAIN = observations(SPACE, 60)
HELD_OUT = observations(SPACE, 20, seed=1)
SUBJECTS = [one.subject for one in HELD_OUT]


def adapted() -> Predictor:
    source = PREDICTORS["operators"].fit(TRAIN)
    assert isinstance(source, OperatorTable)
    return adapt(source, HELD_OUT[:10], SUBJECTS)


FITTED = {kind: PREDICTORS[kind].fit(TRAIN) for kind in ("decisions", "operators", "features")} | {"adapted": adapted()}


@pytest.mark.parametrize(
    "network", [reference_network(name, 32, 0.5) for name in ("mobilenet-v2", "mobilenet-v3-large")]
)
def test_operators_are_read_back_from_their_text_and_have_the_networks_work(network) -> None:  # type: ignore[no-untyped-def]
    from nas_edge.networks.analysis import analyze

    sequence = operator_sequence(network)
    assert [OperatorShape.parse(str(operator)) for operator in sequence] == sequence
    # By custom the gates' convolutions are counted there, too.
    assert sum(operator.macs for operator in sequence) == analyze(network).macs


@pytest.mark.parametrize("text", ["", "CONV_2D", "CONV_2D 1x1 ->", "conv 1x1 -> 1x1", "ADD 7x7 -> 7x7 k3x3"])
def test_what_is_no_operator_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an operator such as"):
        OperatorShape.parse(text)


@pytest.mark.parametrize(("kind", "at_most"), [("operators", 0.003), ("features", 0.005)])
def test_a_device_of_operators_is_recovered(kind: str, at_most: float) -> None:
    model = FITTED[kind]
    assert model is not None
    found = accuracy_on(model, HELD_OUT)
    by_macs = accuracy_of_macs(TRAIN, HELD_OUT)
    assert found is not None
    assert by_macs is not None
    assert found.mape < at_most < by_macs.mape
    assert (found.spearman or 0) > 0.98


@pytest.mark.parametrize("kind", [*FITTED])
def test_a_model_is_the_same_after_a_file(kind: str) -> None:
    model = FITTED[kind]
    assert model is not None
    read: Predictor = TypeAdapter(AnyPredictor).validate_json(model.model_dump_json())
    assert type(read) is type(model)
    now, then = read.predict(SUBJECTS), model.predict(SUBJECTS)
    np.testing.assert_allclose(now.latency_ms, then.latency_ms, rtol=1e-12)
    np.testing.assert_allclose(now.relative_error, then.relative_error, rtol=1e-9)


def test_an_operator_that_was_never_measured_takes_the_rates_of_its_group_and_widens_the_error() -> None:
    table = FITTED["operators"]
    assert isinstance(table, OperatorTable)
    known = SUBJECTS[0]
    assert known.sequence is not None
    convolution = next(one for one in known.sequence if one.group == "CONV_2D 1x1")
    height, width, channels = convolution.output
    unseen = OperatorShape("CONV_2D", convolution.sources, (height, width, 8 * channels + 3), (1, 1))
    assert str(unseen) not in table.entries
    rates = table.rates.groups["CONV_2D 1x1"]
    assert table.operator_ms(unseen) == rates.latency_ms(unseen) > 0
    other = OperatorShape("SOFTMAX", ((10,),), (10,))
    assert table.operator_ms(other) == table.rates.others.latency_ms(other)
    found = table.predict([known, Subject((*known.sequence, unseen))])
    assert found.latency_ms[1] == pytest.approx(found.latency_ms[0] + table.operator_ms(unseen))
    assert found.relative_error[1] > found.relative_error[0] == table.error


@pytest.mark.parametrize("kind", ["operators", "features"])
def test_parts_add_up_to_the_latency(kind: str) -> None:
    model = FITTED[kind]
    assert model is not None
    assert math.fsum(model.parts_ms(SUBJECTS[0]).values()) == pytest.approx(model.predict(SUBJECTS[:1]).latency_ms[0])
    assert model.parts_ms(Subject(None, {})).get("CONV_2D 1x1") is None


def test_a_linear_device_is_recovered_to_the_bit_of_noise_there_is() -> None:
    space = small_space()
    points = [one.subject for one in observations(space, 80)]
    costs = {"stem.kernel": {"k3": 0.0, "k5": 3.0}, "block2.layer2.op": {"keep": 2.0, "skip": 0.0}}

    def cost_ms(subject: Subject) -> float:
        assert subject.choices is not None
        chosen = subject.choices
        ms = 10.0 + sum(costs[path][str(chosen[path])] for path in costs)
        # What a combination of choices of one layer adds.
        return ms + (1.5 if (chosen.get("block2.layer1.kernel"), chosen.get("block2.layer1.ratio")) == ("k7", 3) else 0)

    seen = [Observation(one, cost_ms(one)) for one in points]
    model = DecisionModel.fit(seen[:60])
    assert model is not None
    found = model.predict(points[60:]).latency_ms
    np.testing.assert_allclose(found, [one.latency_ms for one in seen[60:]], rtol=0.01)


def test_networks_of_no_space_are_known_by_their_operators_alone() -> None:
    network = Subject(tuple(operator_sequence(reference_network("mobilenet-v2", 32, 0.25, 10))))
    decisions, operators = FITTED["decisions"], FITTED["operators"]
    assert decisions is not None
    assert operators is not None
    assert math.isnan(decisions.predict([network]).latency_ms[0])
    assert operators.predict([network]).latency_ms[0] == pytest.approx(network_ms(network), rel=0.3)
    assert math.isnan(operators.predict([Subject(None, {})]).latency_ms[0])
    assert DecisionModel.fit([Observation(network, 1.0)] * 20) is None
    assert OperatorTable.fit([Observation(Subject(None, {}), 1.0)] * 20) is None
    assert FeatureModel.fit([Observation(Subject(None, {}), 1.0)] * 20) is None


def test_the_best_kind_is_chosen_by_what_it_was_not_fitted_to_and_its_intervals_hold() -> None:
    noisy = observations(SPACE, 60, noise=0.02)
    chosen = choose_model(noisy)
    assert chosen.errors[chosen.model.kind] == min(chosen.errors.values())
    assert set(chosen.errors) == {"decisions", "operators", "features"}
    asked = observations(SPACE, 40, seed=2, noise=0.02)
    found = accuracy_on(chosen.model, asked, chosen.half_width)
    assert found is not None
    assert found.covered is not None
    assert found.covered >= 0.85, "95% of them should be, and there are 40"
    assert found.mape < 0.03


def alone(factor: float) -> list[Observation]:
    """Operators on their own: there, they take so much of their time in a network, and an overhead of 0.2 ms."""
    operators = {operator for one in HELD_OUT for operator in one.subject.sequence or ()}
    chosen = sorted((one for one in operators if one.macs), key=str)[::3]
    return [Observation(Subject((one,)), 0.2 + factor * operator_ms(one)) for one in chosen]


def test_operators_on_their_own_tell_apart_what_few_networks_do_not() -> None:
    few, isolated = observations(SPACE, 16, noise=0.01), alone(0.95)
    plain, told = OperatorTable.fit(few), OperatorTable.fit_with_isolated(few, isolated)
    assert plain is not None
    assert told is not None
    assert told.isolated_bias_ms == pytest.approx(0.2, abs=0.03)
    assert plain.isolated_bias_ms is None

    def off(table: OperatorTable) -> float:
        operators = {one for network in HELD_OUT for one in network.subject.sequence or () if one.macs}
        return fmean(abs(table.operator_ms(one) / operator_ms(one) - 1) for one in operators)

    assert off(told) < 0.1 < 0.5 * off(plain)


def test_operators_on_their_own_make_no_chosen_model_worse() -> None:
    few, isolated = observations(SPACE, 24, noise=0.01), alone(0.95)
    without, chosen = choose_model(few), choose_model(few, isolated=isolated)
    assert set(chosen.errors) == {*without.errors, "operators and isolated"}
    assert chosen.errors[chosen.name] <= without.errors[without.name]
    before, after = (accuracy_on(found.model, HELD_OUT) for found in (without, chosen))
    assert before is not None
    assert after is not None
    assert after.mape < before.mape + 0.003


def test_operators_on_their_own_that_mislead_change_no_model() -> None:
    few = observations(SPACE, 24)
    best = choose_model(few)
    chosen = choose_model(few, isolated=[replace(one, latency_ms=1 / one.latency_ms) for one in alone(30.0)])
    assert (chosen.name, chosen.model) == (best.name, best.model)


def test_too_few_networks_are_told() -> None:
    with pytest.raises(ConfigError, match=r"too few networks .* expected at least 10, received 4; measure longer"):
        choose_model(TRAIN[:4])
    assert len(choose_model(TRAIN[: 8 * FOLDS // (FOLDS - 1)]).errors) >= 1


def test_a_noisy_measurement_counts_less() -> None:
    right = [Observation(one.subject, one.latency_ms, 0.005) for one in TRAIN]
    wrong = [
        Observation(one.subject, 3 * one.latency_ms, error) for one, error in zip(TRAIN[:5], [0.25] * 5, strict=True)
    ]
    trusted = [Observation(one.subject, one.latency_ms, 0.005) for one in wrong]
    doubted, believed = OperatorTable.fit([*right, *wrong]), OperatorTable.fit([*right, *trusted])
    assert doubted is not None
    assert believed is not None
    errors = [accuracy_on(model, HELD_OUT) for model in (doubted, believed)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0].mape < 0.3 * errors[1].mape


def test_figures_of_accuracy_are_those_of_a_hand_made_example() -> None:
    found = accuracy_of([10.4, 20.0, 36.0, 40.0], [10.0, 20.0, 30.0, 44.0], [0.05, 0.05, 0.05, 0.1])
    assert found.networks == 4
    assert found.mape == pytest.approx((0.04 + 0 + 0.2 + 1 / 11) / 4)
    assert (found.within_5, found.within_10, found.covered) == (0.5, 0.75, 0.75)
    assert found.spearman == found.kendall == pytest.approx(1.0)
    assert accuracy_of([1.0], [2.0]).spearman is None


def test_a_model_is_brought_to_a_device_that_is_slower_and_differs_in_one_kind_of_operators() -> None:
    source = FITTED["operators"]
    assert isinstance(source, OperatorTable)

    def elsewhere_ms(subject: Subject) -> float:
        depthwise = sum(ms for group, ms in source.parts_ms(subject).items() if group.startswith("DEPTHWISE"))
        return 1.7 * float(source.predict([subject]).latency_ms[0]) + 0.5 * depthwise

    measured = [Observation(one.subject, elsewhere_ms(one.subject)) for one in TRAIN[:10]]
    model = adapt(source, measured, [one.subject for one in TRAIN])
    truth = [elsewhere_ms(subject) for subject in SUBJECTS]
    found = accuracy_of(model.predict(SUBJECTS).latency_ms, truth)
    reused = accuracy_of(source.predict(SUBJECTS).latency_ms, truth)
    assert found.mape < 0.05 < 0.3 < reused.mape
    with pytest.raises(ValueError, match="the source knows 2 of the measured networks, and 3 are needed"):
        adapt(source, measured[:2], SUBJECTS)


def test_held_out_errors_of_a_ridge_are_those_of_fits_without_each_row() -> None:
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(12, 5)), rng.uniform(0.5, 2.0, 12)
    values = features @ rng.normal(size=5) + rng.normal(size=12)
    variances = np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    found = fit_ridge(features, values, weights, variances, noise=0.1)
    # The same by the normal equations, with an intercept that is not penalised, and the noise as it was scaled.
    squares = weights**2
    centre = squares @ features / squares.sum()
    size = np.trace((features - centre) @ np.diag(variances) @ (features - centre).T * np.outer(weights, weights)) / 12
    penalty = np.diag(np.append(0.1 * size / variances, 0.0))
    for left in range(12):
        rows = [row for row in range(12) if row != left]
        at = np.c_[features, np.ones(12)]
        solved = np.linalg.solve(
            at[rows].T @ (at[rows] * squares[rows, None]) + penalty, at[rows].T @ (squares[rows] * values[rows])
        )
        assert found.held_out[left] == pytest.approx(weights[left] * (values[left] - at[left] @ solved), rel=1e-6)


def test_blocks_are_found_in_the_operators() -> None:
    space = find_space("proxylessnas")(64, 0.25, 10, 3)
    network = space.decode(space.encode({"block2.layer2.kernel": "k5", "block3.layer3.op": "skip"}))
    blocks = blocks_of(operator_sequence(network))
    assert blocks is not None
    assert [block.kind for block in blocks] == ["Conv", *["expanded_conv"] * 21, "Conv_1", "Logits"]
    assert blocks[3].key(by_channels=False) == (
        "expanded_conv-input:16x16x8-output:16x16x8-expand:3-kernel:5-stride:1-idskip:1"
    )
    assert blocks[-1].key(by_channels=False) == "Logits-input:2x2x320-output:10"
    gated = blocks_of(operator_sequence(reference_network("mobilenet-v3-large", 64, 0.5, 10)))
    assert gated is not None
    assert any(block.squeezes for block in gated)
    assert any(block.hard_swish for block in gated)
    assert blocks_of([OperatorShape("ADD", ((1,), (1,)), (1,))]) is None
    assert json.dumps([block.key(True) for block in gated])
