"""Golden numbers: worked values of the TuNAS design notes at Q = 0.8, beta = -0.07."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_edge.errors import ConfigError
from nas_edge.rewards import REWARDS, Objective, Reward, absolute, hard, soft

TARGET_MS = 84.0
LATENCY = [Objective("latency_ms", TARGET_MS, beta=-0.07)]


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("absolute", 2.0, 0.73),
        ("soft", 2.0, 0.76211),
        ("hard", 2.0, 0.76211),
        ("absolute", 0.5, 0.765),
        ("soft", 0.5, 0.839773),
        ("hard", 0.5, 0.8),
        ("absolute", 1.0, 0.8),
        ("soft", 1.0, 0.8),
        ("hard", 1.0, 0.8),
    ],
)
def test_reward_has_the_worked_value(name: str, x: float, expected: float) -> None:
    assert REWARDS[name](0.8, {"latency_ms": x * TARGET_MS}, LATENCY) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_of_arrays_are_elementwise(name: str) -> None:
    qualities, latencies_ms = np.array([0.8, 0.7, 0.9]), np.array([42.0, 84.0, 200.0])
    expected = [
        REWARDS[name](q, {"latency_ms": ms}, LATENCY)
        for q, ms in zip([0.8, 0.7, 0.9], [42.0, 84.0, 200.0], strict=True)
    ]
    np.testing.assert_allclose(REWARDS[name](qualities, {"latency_ms": latencies_ms}, LATENCY), expected)
    with pytest.raises(ValueError, match="no reward"):
        REWARDS[name](qualities, {"latency_ms": np.array([1.0, 0.0, 2.0])}, LATENCY)


def test_default_beta_is_that_of_the_tunas_code() -> None:
    assert absolute(0.8, {"latency_ms": 2.0}, [Objective("latency_ms", 1.0)]) == pytest.approx(0.7)


@pytest.mark.parametrize("name", REWARDS)
def test_without_objectives_the_reward_is_the_quality(name: str) -> None:
    assert REWARDS[name](0.8, {"latency_ms": 1.0}, []) == 0.8


def test_absolute_sums_the_terms_of_several_resources() -> None:
    objectives = [Objective("latency_ms", 10.0, -0.1), Objective("macs", 100.0, -0.2)]
    assert absolute(0.9, {"latency_ms": 20.0, "macs": 50.0}, objectives) == pytest.approx(0.9 - 0.1 - 0.2 * 0.5)


def test_exponent_forms_multiply_the_terms_of_several_resources() -> None:
    objectives = [Objective("latency_ms", 10.0, -0.1), Objective("peak_memory_bytes", 100.0, -0.2)]
    usage = {"latency_ms": 20.0, "peak_memory_bytes": 50.0}
    assert soft(0.9, usage, objectives) == pytest.approx(0.9 * 2**-0.1 * 0.5**-0.2)
    assert hard(0.9, usage, objectives) == pytest.approx(0.9 * 2**-0.1)


@given(q=st.floats(0, 1), x=st.floats(1.0, 50), slower=st.floats(1.001, 3))
def test_every_reward_falls_as_a_network_gets_slower_than_its_target(q: float, x: float, slower: float) -> None:
    for reward in REWARDS.values():
        on, off = ({"latency_ms": t * TARGET_MS} for t in (x, x * slower))
        assert reward(q, off, LATENCY) <= reward(q, on, LATENCY)


@given(q=st.floats(0, 1), x=st.floats(0.05, 20))
def test_hard_is_never_above_soft_nor_above_the_quality(q: float, x: float) -> None:
    usage = {"latency_ms": x * TARGET_MS}
    assert hard(q, usage, LATENCY) <= min(q, soft(q, usage, LATENCY)) + 1e-12


@given(accuracy=st.floats(0.01, 0.95), x=st.floats(0.05, 20))
def test_in_mnasnets_soft_form_twice_the_latency_is_worth_five_percent_more_accuracy(accuracy: float, x: float) -> None:
    once, twice = ({"latency_ms": factor * x * TARGET_MS} for factor in (1, 2))
    assert soft(accuracy * 1.05, twice, LATENCY) == pytest.approx(soft(accuracy, once, LATENCY), rel=1e-3)


@given(accuracy=st.floats(0.01, 0.95), x=st.floats(0.05, 20))
def test_mnasnets_hard_form_leaves_the_accuracy_or_divides_it_by_the_latency(accuracy: float, x: float) -> None:
    reward = hard(accuracy, {"latency_ms": x * TARGET_MS}, [Objective("latency_ms", TARGET_MS, beta=-1.0)])
    assert reward == pytest.approx(accuracy if x <= 1 else accuracy / x)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_latency_that_is_not_positive_is_refused(value: float) -> None:
    for reward in REWARDS.values():
        with pytest.raises(ValueError, match="expected a positive latency_ms"):
            reward(0.8, {"latency_ms": value}, LATENCY)


def test_a_missing_resource_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a positive latency_ms, received None"):
        soft(0.8, {"macs": 1.0}, LATENCY)


def test_a_quality_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite quality"):
        absolute(math.nan, {"latency_ms": 1.0}, LATENCY)


@pytest.mark.parametrize("target", [0.0, -84.0, math.nan, math.inf])
def test_a_target_that_is_not_positive_is_refused(target: float) -> None:
    with pytest.raises(ConfigError, match="target of latency_ms must be a positive number"):
        Objective("latency_ms", target)


@pytest.mark.parametrize("beta", [0.0, 0.1, math.nan])
def test_a_beta_that_would_reward_deviation_is_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match="must be negative"):
        Objective("latency_ms", 84.0, beta)


@pytest.mark.parametrize("reward", REWARDS.values())
def test_below_a_limit_nothing_is_gained_or_lost(reward: Reward) -> None:
    limit = [Objective("file_size_bytes", 100.0, -0.2, limit=True)]
    assert reward(0.5, {"file_size_bytes": 10.0}, limit) == reward(0.5, {"file_size_bytes": 100.0}, limit) == 0.5
    beyond = [reward(0.5, {"file_size_bytes": value}, limit) for value in (110.0, 150.0)]
    assert 0.5 > beyond[0] > beyond[1]
    assert limit[0].allows({"file_size_bytes": 100.0})
    assert not limit[0].allows({"file_size_bytes": 100.1})
    assert not limit[0].allows(None)
