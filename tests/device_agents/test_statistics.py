from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.worker.statistics import (
    _lower_rank,
    median_interval,
    quantile,
    relative_half_width,
    summarize,
)

samples = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60)


@given(samples)
def test_statistics_equal_those_of_numpy(values: list[float]) -> None:
    result = summarize(values)
    expected = np.percentile(values, [5, 50, 90, 95])
    np.testing.assert_allclose([result.p5_ms, result.median_ms, result.p90_ms, result.p95_ms], expected, rtol=1e-12)
    assert result.mean_ms == pytest.approx(statistics.fmean(values))
    assert result.mad_ms == pytest.approx(np.median(np.abs(np.array(values) - np.median(values))))
    assert (result.min_ms, result.max_ms, result.count) == (min(values), max(values), len(values))


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (9, 2), (10, 2), (15, 4), (20, 6), (100, 40)])
def test_interval_ranks_are_those_of_the_published_table(count: int, rank: int) -> None:
    # Conover, Practical Nonparametric Statistics, 1999, table A3 (p = 0.5, 95%).
    assert median_interval(list(range(1, count + 1))) == (rank, count + 1 - rank)


@pytest.mark.parametrize("count", range(6, 120))
def test_interval_covers_the_median_with_95_percent_and_no_narrower_one_does(count: int) -> None:
    def coverage(rank: int) -> float:
        return sum(math.comb(count, k) for k in range(rank, count - rank + 1)) / 2**count

    rank = _lower_rank(count)
    assert coverage(rank) >= 0.95
    assert coverage(rank + 1) < 0.95


def test_large_counts_use_an_approximation_that_agrees_with_the_exact_rank() -> None:
    from device_agents.worker import statistics as ours

    for count in (501, 800, 1000):
        approximate = _lower_rank(count)
        tail, exact = 0.0, 0
        while (tail := tail + math.comb(count, exact) / 2**count) <= 0.025:
            exact += 1
        assert abs(approximate - exact) <= 1
    assert ours.CONFIDENCE == 0.95


def test_few_samples_have_no_interval() -> None:
    assert median_interval([1.0] * 5) is None
    assert relative_half_width([1.0] * 5) is None
    assert summarize([1.0] * 5).relative_half_width is None


def test_zero_median_has_no_relative_width() -> None:
    assert relative_half_width([0.0] * 10) is None


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


def test_quantile_of_one_value_is_that_value() -> None:
    assert quantile([3.0], 0.9) == 3.0
