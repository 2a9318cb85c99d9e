"""The learning rule's mathematics against finite differences and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_edge.controllers import reinforce
from nas_edge.controllers.reinforce import FloatArray, MovingAverage

SIZES = (3, 2, 5, 1)
CHOICES = (2, 0, 3, 0)
SPLITS = np.cumsum(SIZES)[:-1]


def finite_difference(function: Callable[[list[FloatArray]], float], theta: FloatArray) -> FloatArray:
    h = 1e-6
    return np.array(
        [
            (function(np.split(theta + h * e, SPLITS)) - function(np.split(theta - h * e, SPLITS))) / (2 * h)
            for e in np.eye(len(theta))
        ]
    )


@pytest.mark.parametrize("temperature", [1.0, 5.0, 0.5])
@pytest.mark.parametrize("active", [(True,) * 4, (True, False, True, True)])
@pytest.mark.parametrize("replaced", [(False,) * 4, (False, False, True, False)])
def test_log_prob_gradient_is_its_finite_difference(
    temperature: float, active: tuple[bool, ...], replaced: tuple[bool, ...]
) -> None:
    theta = np.random.default_rng(1).normal(size=sum(SIZES))

    def value(logits: list[FloatArray]) -> float:
        return reinforce.log_prob(logits, CHOICES, active, replaced, temperature)

    gradient = reinforce.log_prob_gradient(np.split(theta, SPLITS), CHOICES, active, replaced, temperature)
    np.testing.assert_allclose(gradient, finite_difference(value, theta), atol=1e-8)
    for i, rows in enumerate(np.split(gradient, SPLITS)):
        if not active[i] or replaced[i]:
            assert not rows.any()


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("active", [(True,) * 4, (True, False, True, True)])
def test_entropy_gradient_is_its_finite_difference(temperature: float, active: tuple[bool, ...]) -> None:
    theta = np.random.default_rng(2).normal(size=sum(SIZES))
    gradient = reinforce.entropy_gradient(np.split(theta, SPLITS), active, temperature)
    expected = finite_difference(lambda logits: reinforce.entropy(logits, active, temperature), theta)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_temperature_five_divides_the_initial_gradient_by_five() -> None:
    logits = np.split(np.zeros(sum(SIZES)), SPLITS)
    arguments = (logits, CHOICES, (True,) * 4, (False,) * 4)
    np.testing.assert_allclose(
        reinforce.log_prob_gradient(*arguments, temperature=5.0), reinforce.log_prob_gradient(*arguments) / 5
    )


def test_policy_of_huge_logits_is_finite() -> None:
    np.testing.assert_allclose(reinforce.policy(np.array([1e4, 0.0, -1e4])), [1.0, 0.0, 0.0])
    assert reinforce.entropy([np.array([1e4, 0.0, -1e4])], [True]) == 0.0


def test_moving_average_is_debiased() -> None:
    one = MovingAverage().update(1.0, 0.9)
    two = one.update(2.0, 0.9)
    assert MovingAverage().value is None
    assert one.value == pytest.approx(1.0)
    assert two.value == pytest.approx(0.29 / 0.19)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0, 0.99))
def test_moving_average_stays_between_the_values_it_saw(values: list[float], momentum: float) -> None:
    average = MovingAverage()
    for value in values:
        average = average.update(value, momentum)
    assert average.value is not None
    assert min(values) - 1e-9 <= average.value <= max(values) + 1e-9


def test_second_moment_squares_before_it_averages() -> None:
    gradients = np.array([[1.0, 3.0], [-1.0, 1.0]])
    np.testing.assert_allclose(reinforce.second_moment(np.zeros(2), gradients, beta2=0.9), [0.1, 0.5])


def test_first_adam_step_is_mean_over_root_mean_square() -> None:
    gradients = np.array([[1.0, 3.0], [-1.0, 1.0]])
    v = reinforce.second_moment(np.zeros(2), gradients)
    np.testing.assert_allclose(reinforce.adam_direction(v, 1, gradients), [0.0, 2 / math.sqrt(5)], atol=1e-6)


def test_adam_step_of_zero_gradients_is_zero() -> None:
    assert not reinforce.adam_direction(np.zeros(2), 1, np.zeros((1, 2))).any()


def test_learning_rate_rests_then_rises_tenfold() -> None:
    def rate(step: int) -> float:
        return reinforce.learning_rate(step, 27_050, 6_762, 0.0048)

    assert rate(0) == rate(6_761) == 0.0
    assert rate(6_762) == pytest.approx(0.0048)
    assert rate((6_762 + 27_050) // 2) == pytest.approx(0.0048 * math.sqrt(10))
    assert rate(27_050) == rate(30_000) == pytest.approx(0.048)


def test_learning_rate_without_delay_starts_at_once() -> None:
    assert reinforce.learning_rate(0, 1, 0, 0.5) == 0.5


def test_default_base_rate_is_higher_for_shorter_searches_and_more_samples() -> None:
    assert reinforce.default_base_rate(20_288) == pytest.approx(0.0048)
    assert reinforce.default_base_rate(317) == pytest.approx(0.0048 * 8)
    assert reinforce.default_base_rate(20_288, samples=4) == pytest.approx(0.0096)


def test_steps_after_the_first_are_corrected_for_the_little_that_the_mean_square_has_seen() -> None:
    gradients, v = np.array([[2.0, -1.0]]), np.zeros(2)
    for count in range(1, 4):
        v = reinforce.second_moment(v, gradients)
        np.testing.assert_allclose(reinforce.adam_direction(v, count, gradients), [1.0, -1.0], atol=1e-6)


def test_a_search_without_updates_has_the_rate_of_one() -> None:
    assert reinforce.default_base_rate(0) == reinforce.default_base_rate(1)


def test_the_learning_rate_of_a_search_that_is_all_delay_but_its_end() -> None:
    assert reinforce.learning_rate(10, 10, 10, 0.5) == 0.5
    assert reinforce.learning_rate(5, 10, 0, 1.0, final_factor=100.0) == pytest.approx(10.0)
