"""Which points of a grid come into question for a latency."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nas_edge.scaling.design import alone, sample
from nas_edge.scaling.frontier import BAND, candidates, direction, maximal
from nas_edge.scaling.grid import Grid, grows, input_sizes
from nas_edge.spaces.published import SCALED_FAMILIES
from tests.scaling.support import grid_of


def test_no_axis_of_a_maximal_point_can_be_taken_further() -> None:
    feasible = np.random.default_rng(0).random((4, 5, 3)) < 0.4
    found = maximal(feasible)
    points = list(map(tuple, np.argwhere(feasible)))
    for point in itertools.product(*map(range, feasible.shape)):
        beyond = any(other != point and all(np.greater_equal(other, point)) for other in points)
        assert found[point] == (point in points and not beyond)


@pytest.mark.parametrize(
    ("family", "first", "last", "grown"),
    [
        ("efficientnet", 4, 7, (1.20, 1.13, 1.16)),
        ("efficientnet-x-gpu", 1, 7, (1.31, 1.16, 1.07)),
        ("efficientnet-x-tpu", 1, 4, (1.30, 1.14, 1.09)),
    ],
)
def test_published_families_double_their_work(family: str, first: int, last: int, grown: tuple[float, ...]) -> None:
    """By what each step multiplies depth, width and input size; `d w^2 r^2` is about 2."""
    one, other = SCALED_FAMILIES[family][first - 1], SCALED_FAMILIES[family][last - 1]
    power = 1 / (last - first)
    steps = [
        (other.depth / one.depth) ** power,
        (other.width / one.width) ** power,
        (other.input_size / one.input_size) ** power,
    ]
    assert steps == pytest.approx(grown, abs=0.006)
    assert steps[0] * steps[1] ** 2 * steps[2] ** 2 == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("family", "factors"),
    [
        ("efficientnet", (1.18, 1.12, 1.16)),
        ("efficientnet-x-gpu", (1.30, 1.16, 1.07)),
        ("efficientnet-x-tpu", (1.21, 1.20, 1.07)),
    ],
)
def test_rules_are_those_of_the_documentation(family: str, factors: tuple[float, ...]) -> None:
    """The table of `docs/scaling.md`: factors that double the multiply-adds."""
    rule = direction(family)
    assert np.linalg.norm(rule) == pytest.approx(1)
    assert np.exp(rule * np.log(2) / (rule @ [1, 2, 2])) == pytest.approx(factors, abs=0.005)


def test_rules_for_accelerators_grow_deeper_and_hardly_finer() -> None:
    plain, *accelerators = map(direction, SCALED_FAMILIES)
    for rule in accelerators:
        assert rule[0] > plain[0]
        assert rule[2] < plain[2] / 2


@pytest.fixture(scope="module")
def grid() -> Grid:
    return grid_of(64)


def test_steps_are_those_that_make_a_difference(grid: Grid) -> None:
    depths, widths, pixels = (decision.choices for decision in grid.decisions)
    assert 1.0 in depths
    assert 1.0 in widths
    assert pixels == (32, 64, 96, 128, 160)
    for factors, decision in zip(grid.factors, grid.decisions, strict=True):
        assert len(set(np.round(factors, 9))) == len(decision.choices)
        assert list(factors) == sorted(factors)
        assert factors[grid.base.choices[grid.index[decision.path]]] == 0
    assert grid.parameters[grid.base.choices] == grid.analysis(grid.base).parameters
    assert grid.factors[2] == pytest.approx(np.log(np.array(pixels) / 64), abs=0.05)


@pytest.mark.parametrize(
    ("found", "stride", "sizes"), [(224, 32, (128, 224, 544)), (16, 32, (16, 32)), (20, 8, (16, 20, 24, 48))]
)
def test_input_sizes_keep_the_stride(found: int, stride: int, sizes: tuple[int, ...]) -> None:
    offered = input_sizes(found, stride)
    assert set(sizes) <= set(offered)
    assert all(size == found or size % stride == 0 for size in offered)
    assert max(offered) == max(sizes)


def test_a_sample_has_each_axis_alone_and_all_of_a_law(grid: Grid) -> None:
    chosen = sample(grid, 1.0, (1.5, 4.0))
    assert len(chosen) == len(set(chosen)) == 14
    assert chosen[0] == grid.base
    assert {alone(grid, one) for one in chosen} >= {0, 1, 2}
    growth = [grid.macs_growth[one.choices] for one in chosen]
    assert max(growth) <= np.log(4 * 1.3) + 1e-9
    assert chosen == sample(grid, 1.0, (1.5, 4.0))


def test_candidates_are_just_below_and_grow_in_all_directions(grid: Grid) -> None:
    latencies_ms = np.exp(grid.points @ [0.95, 0.7, 1.9])
    found = candidates(grid, latencies_ms, 4.0, 3)
    assert len(set(found)) == 3
    for one in found:
        assert (1 - BAND) * 4 <= latencies_ms[one.choices] <= 4
        assert grows(grid)[one.choices]
    others = candidates(grid, latencies_ms, 4.0, 3, found)
    assert not set(found) & set(others)
