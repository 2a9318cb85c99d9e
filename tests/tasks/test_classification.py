"""How sure an accuracy is, and whether two of them differ."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nas_edge.tasks.classification import mcnemar_p_value, wilson_interval
from tests.support.tasks import CLASSIFICATION


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    # Published values: Newcombe, 1998, "Two-sided confidence intervals for the single proportion", table I.
    [
        (81 / 263, 263, (0.2553, 0.3662)),
        (15 / 148, 148, (0.0624, 0.1605)),
        (0.0, 20, (0.0, 0.1611)),
        (1 / 29, 29, (0.0061, 0.1718)),
    ],
)
def test_the_interval_of_an_accuracy_is_wilsons(share: float, count: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(share, count) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 60_000), st.floats(0, 1))
def test_the_interval_agrees_with_scipys(count: int, share: float) -> None:
    correct = round(share * count)
    expected = binomtest(correct, count).proportion_ci(method="wilson")
    assert wilson_interval(correct / count, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_interval_holds_the_share_at_its_ends(share: float) -> None:
    low, high = wilson_interval(share, 360) or (None, None)
    assert low is not None
    assert high is not None
    assert 0 <= low <= share <= high <= 1
    assert wilson_interval(share, 0) is None


def classified(both: int, only_first: int, only_second: int, neither: int) -> tuple[Any, Any]:
    """Two classifiers that are correct on so many images."""
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    return first, second


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Published: Fagerland, Lydersen, Laake, 2013, "The McNemar test for binary matched-pairs data", table 1
        # (airway hyper-responsiveness before and after stem cell transplantation), exact conditional test: 0.070.
        ((1, 1, 7, 12), 18 / 256),
        # By hand: twice the lower tail of a binomial distribution with n trials, at most 1.
        ((350, 0, 3, 6), 2 / 8),
        ((90, 0, 6, 4), 2 / 64),
        ((80, 2, 10, 8), 2 * (1 + 12 + 66) / 4096),
        ((80, 10, 2, 8), 2 * (1 + 12 + 66) / 4096),
        ((0, 5, 5, 0), 1.0),
        ((10, 0, 0, 3), 1.0),
    ],
)
def test_two_classifiers_are_compared_by_mcnemars_exact_test(table: tuple[int, ...], expected: float) -> None:
    assert mcnemar_p_value(*classified(*table)) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200), st.randoms(use_true_random=False))
def test_only_images_on_which_they_differ_count(pairs: list[tuple[bool, bool]], random: Any) -> None:
    first, second = np.array(pairs).T
    p_value = mcnemar_p_value(first, second)
    less, more = sorted((int((first & ~second).sum()), int((second & ~first).sum())))
    tail = sum(math.comb(less + more, k) for k in range(less + 1)) / 2 ** (less + more)
    assert p_value == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar_p_value(second, first) == pytest.approx(p_value)
    random.shuffle(pairs)
    assert mcnemar_p_value(*np.array(pairs).T) == p_value
    agreeing = np.concatenate([first, [True] * 50 + [False] * 50]), np.concatenate([second, [True] * 50 + [False] * 50])
    assert mcnemar_p_value(*agreeing) == p_value


def test_an_image_scores_when_it_is_classified_correctly() -> None:
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)
    scores = CLASSIFICATION.example_scores(outputs, np.array([1, 0, 0]))
    assert scores is not None
    assert scores.tolist() == [True, True, False]
    assert CLASSIFICATION.score(outputs, np.array([1, 0, 0])) == scores.mean()


def test_a_confusion_matrix_counts_images_by_class_and_answer() -> None:
    outputs = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [3.0, 1.0, 0.0], [0.0, 0.0, 9.0]], np.float32)
    labels = np.array([0, 0, 1, 2])
    first, rest = CLASSIFICATION.breakdown(outputs[:1], labels[:1]), CLASSIFICATION.breakdown(outputs[1:], labels[1:])
    total = first + rest
    np.testing.assert_array_equal(total, [[1, 1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(total, CLASSIFICATION.breakdown(outputs, np.eye(3)[labels]))
    told = CLASSIFICATION.describe_breakdown(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]]), named_data("a", "b", "c"))
    assert told["classes"] == {
        "a": {"accuracy": 0.5, "images": 2},
        "b": {"accuracy": 0.0, "images": 1},
        "c": {"accuracy": None, "images": 0},
    }
    assert told["confusion_matrix"] == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    many = tuple(str(number) for number in range(101))
    assert "confusion_matrix" not in CLASSIFICATION.describe_breakdown(np.eye(101, dtype=int), named_data(*many))


def named_data(*names: str) -> Any:
    """Only what the task asks of the data."""
    return SimpleNamespace(dataset=SimpleNamespace(class_names=names))
