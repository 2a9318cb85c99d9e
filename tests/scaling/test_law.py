"""The law is found again from what it says, and needs no more terms than that takes."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.scaling.law import Law, fit

RNG = np.random.default_rng(0)
POINTS = np.concatenate([RNG.uniform(-0.7, 1.2, (16, 3)), np.zeros((16, 1))], axis=1)
NOISE = RNG.normal(0, 0.003, 16)


def exponents(law: Law) -> dict[tuple[int, ...], float]:
    return dict(zip(law.terms, law.coefficients.tolist(), strict=True))


def test_exponents_are_found() -> None:
    law = fit(POINTS, list(np.exp(0.5 + POINTS @ [0.95, 0.7, 1.9, 0] + NOISE)))
    assert law.terms == ((), (0,), (1,), (2,))
    assert law.coefficients == pytest.approx([0.5, 0.95, 0.7, 1.9], abs=0.02)
    assert law.error < 0.01
    low_ms, high_ms = law.interval_ms(POINTS[0])
    assert low_ms < law.latency_ms(POINTS[0]) < high_ms < 1.02 * low_ms
    assert law.to_json()["terms"][1]["of"] == ["depth"]


def test_a_product_is_added_where_the_law_is_off() -> None:
    truth = 0.5 + POINTS @ [0.95, 0.7, 1.9, 0] + 0.6 * POINTS[:, 1] * POINTS[:, 2]
    law = fit(POINTS, list(np.exp(truth + NOISE)))
    assert exponents(law)[1, 2] == pytest.approx(0.6, abs=0.05)
    assert law.error < 0.1


def test_memory_is_a_term_where_it_runs_out_alone() -> None:
    points = POINTS.copy()
    points[::2, 3] = RNG.uniform(0.1, 0.8, 8)
    law = fit(points, list(np.exp(points @ [0.95, 0.7, 1.9, 1.4] + NOISE)))
    assert exponents(law)[3,] == pytest.approx(1.4, abs=0.05)


def test_an_axis_that_does_not_vary_has_no_exponent() -> None:
    points = POINTS.copy()
    points[:, 0] = 0
    assert (0,) not in fit(points, list(np.exp(points @ [1, 0.7, 1.9, 0]))).terms


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="requires 6 networks"):
        fit(POINTS[:5], [1.0] * 5)
