from __future__ import annotations

import math

import pytest

from nas_edge.training.schedules import CosineWithWarmup, cosine_with_warmup

# From the TuNAS reference code's custom_layers_test: peak 2, 100 steps, 5 of them warm-up.
GOLDEN = [(0, 0.0), (2, 0.8), (5, 2.0), (10, 1 + math.cos(5 * math.pi / 95)), (100, 0.0)]


@pytest.mark.parametrize(("step", "expected"), GOLDEN)
def test_learning_rate_is_the_published_one(step: int, expected: float) -> None:
    assert cosine_with_warmup(step, 2.0, 100, 5) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("warmup_steps", [0, 5, 100])
def test_keras_schedule_equals_the_function(warmup_steps: int) -> None:
    schedule = CosineWithWarmup.from_config(CosineWithWarmup(2.0, 100, warmup_steps).get_config())
    for step in range(0, 111, 3):
        assert float(schedule(step)) == pytest.approx(cosine_with_warmup(step, 2.0, 100, warmup_steps), abs=1e-6)


def test_without_warmup_it_starts_at_the_peak_and_stays_at_zero_after_the_end() -> None:
    assert cosine_with_warmup(0, 2.0, 10) == 2.0
    assert cosine_with_warmup(1000, 2.0, 10) == 0.0


def test_a_training_that_is_all_warmup_ends_at_its_peak_and_one_of_no_steps_is_over() -> None:
    assert cosine_with_warmup(4, 2.0, 5, 5) == pytest.approx(1.6)
    assert cosine_with_warmup(5, 2.0, 5, 5) == 2.0
    assert float(CosineWithWarmup(2.0, 5, 5)(5)) == pytest.approx(2.0)
    assert float(CosineWithWarmup(2.0, 10)(0)) == pytest.approx(2.0)
