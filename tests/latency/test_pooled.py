"""A noisy latency is steadied by what the other candidates of the run say, and a good one is left alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer, LatencyKind
from nas_edge.latency.pooled import PooledLatency, PooledSettings
from nas_edge.networks.analysis import analyze
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture
from tests.support import sources

SPACE = find_space("proxylessnas")(input_size=32, width_multiplier=0.35, classes=10, channels=3)


def architectures(count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [SPACE.canonical(SPACE.sample(rng)) for _ in range(count)]


def true_ms(architecture: Architecture) -> float:
    """A device on which kernels of 7 cost more than their multiply-adds say."""
    wide = sum(kernel == "k7" for kernel in SPACE.describe(architecture).values())
    return 0.05 + analyze(SPACE.build(architecture).needed_network()).macs / 1e7 + 0.004 * wide


def visited(latency_ms: float, verdict: Verdict = Verdict.OK, half_width: float = 0.01) -> LatencyAnswer:
    return LatencyAnswer.measured(sources.visited(latency_ms, verdict, half_width))


def filled(of: Sequence[Architecture], scatter: float = 0.01) -> PooledLatency:
    rng, pooled = np.random.default_rng(1), PooledLatency(SPACE)
    for architecture in of:
        pooled.take(architecture, visited(true_ms(architecture) * math.exp(rng.normal(0, scatter))))
    return pooled


@pytest.fixture(scope="module")
def model() -> PooledLatency:
    return filled(architectures(200))


NEW = architectures(40, seed=9)


def test_its_error_is_that_of_architectures_it_has_not_seen(model: PooledLatency) -> None:
    errors = []
    for architecture in NEW:
        adjusted = model.adjust(architecture, visited(true_ms(architecture), Verdict.CORRECTED, 0.5))
        assert adjusted is not None
        errors.append(math.log(adjusted.latency_ms / true_ms(architecture)))
    assert model.error is not None
    assert 0.5 * model.error < float(np.sqrt(np.mean(np.square(errors)))) < 1.5 * model.error


@pytest.mark.parametrize("half_width", [0.0, 0.01, 0.025])
def test_a_latency_that_is_known_well_is_left_as_it_is(model: PooledLatency, half_width: float) -> None:
    assert model.adjust(NEW[0], visited(1.03 * true_ms(NEW[0]), half_width=half_width)) is None


def test_an_ok_one_just_beyond_is_hardly_moved(model: PooledLatency) -> None:
    given_ms = 1.03 * true_ms(NEW[0])
    adjusted = model.adjust(NEW[0], visited(given_ms, half_width=0.026))
    assert adjusted is not None
    assert adjusted.verdict is Verdict.OK
    assert adjusted.latency_ms == pytest.approx(given_ms, rel=0.02)


def test_a_corrected_one_comes_nearer_to_the_truth_and_its_interval_holds_it(model: PooledLatency) -> None:
    before, after, held = [], [], 0
    for i, architecture in enumerate(NEW):
        truth_ms = true_ms(architecture)
        given_ms = truth_ms * (1.06 if i % 2 else 0.96)
        adjusted = model.adjust(architecture, visited(given_ms, Verdict.CORRECTED, 0.04))
        assert adjusted is not None
        assert adjusted.verdict is Verdict.CORRECTED
        before.append(abs(given_ms / truth_ms - 1))
        after.append(abs(adjusted.latency_ms / truth_ms - 1))
        held += adjusted.interval_ms[0] <= truth_ms <= adjusted.interval_ms[1]
    assert np.mean(after) < 0.6 * np.mean(before)
    assert held >= 36


def test_a_contended_one_becomes_corrected_where_the_model_is_good_enough(model: PooledLatency) -> None:
    held = 0
    for architecture in NEW:
        truth_ms = true_ms(architecture)
        adjusted = model.adjust(architecture, visited(1.5 * truth_ms, Verdict.CONTENDED))
        assert adjusted is not None
        assert adjusted.verdict is Verdict.CORRECTED
        low_ms, high_ms = adjusted.interval_ms
        assert (high_ms - low_ms) / 2 / adjusted.latency_ms <= 0.101
        held += low_ms <= truth_ms <= high_ms
    assert held >= 36


def test_it_is_never_slower_than_what_was_seen(model: PooledLatency) -> None:
    """Whatever disturbs only adds time."""
    seen_ms = 0.95 * true_ms(NEW[0])
    adjusted = model.adjust(NEW[0], visited(seen_ms, Verdict.CONTENDED))
    assert adjusted is not None
    assert adjusted.latency_ms <= seen_ms * (1 + 1e-9)


def test_a_model_whose_own_error_is_large_corrects_nothing() -> None:
    of = architectures(200)
    wild = filled(of, scatter=0.3)
    assert wild.error is not None
    assert wild.error > 0.2
    assert wild.adjust(NEW[0], visited(true_ms(NEW[0]), Verdict.CONTENDED)) is None


def test_few_architectures_say_nothing() -> None:
    fewest = PooledSettings().fewest
    of = architectures(fewest)
    noisy = visited(true_ms(NEW[0]), Verdict.CORRECTED, 0.04)
    few = filled(of[: fewest - 1])
    assert few.adjust(NEW[0], noisy) is None
    for _ in range(5):  # an answer out of the cache is no new measurement
        few.take(of[0], visited(true_ms(of[0])))
    assert few.adjust(NEW[0], noisy) is None
    assert few.error is None
    assert filled(of).adjust(NEW[0], noisy) is not None


def test_what_the_model_contradicts_is_left_as_it_is(model: PooledLatency) -> None:
    assert model.adjust(NEW[0], visited(2 * true_ms(NEW[0]), Verdict.CORRECTED, 0.04)) is None
    assert model.adjust(NEW[0], visited(0.3 * true_ms(NEW[0]), Verdict.CONTENDED)) is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        LatencyAnswer.estimated(LatencyKind.LOOKED_UP, 1.0, (0.5, 2.0)),
        LatencyAnswer.failed(LatencyKind.MEASURED, Verdict.TIMEOUT, "too slow"),
        LatencyAnswer.measured(Measurement(Verdict.OK, samples_ms=(0.5, 1.0, 2.0, 0.7, 0.8, 0.9))),
        visited(1.0, Verdict.THROTTLED),
    ],
)
def test_only_what_was_measured_in_visits_is_adjusted_or_learned_from(
    model: PooledLatency, answer: LatencyAnswer | None
) -> None:
    error = model.error
    assert model.adjust(NEW[0], answer) is None
    model.take(NEW[0], answer)
    assert model.error == error


def test_it_depends_on_nothing_but_the_order_of_what_it_has_taken_in() -> None:
    of = architectures(60)
    noisy = visited(1.3 * true_ms(NEW[0]), Verdict.CORRECTED, 0.3)
    once = filled(of)
    asked_often = PooledLatency(SPACE)
    rng = np.random.default_rng(1)
    for architecture in of:
        asked_often.adjust(NEW[0], noisy)
        asked_often.take(architecture, visited(true_ms(architecture) * math.exp(rng.normal(0, 0.01))))
    assert asked_often.adjust(NEW[0], noisy) == once.adjust(NEW[0], noisy)


def test_an_adjusted_latency_survives_the_journal() -> None:
    adjusted = AdjustedLatency(1.0, (0.95, 1.05), Verdict.CORRECTED)
    assert AdjustedLatency.from_json(adjusted.to_json()) == adjusted
