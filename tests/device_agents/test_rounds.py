"""Files measured side by side in rounds, and the rounds joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from device_agents.api import PRESETS, BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.rounds import join_rounds, measure_in_rounds, share_of

SPEC = PRESETS["search"]
CONDITIONS = Conditions("abc", "phone", "litert", "1", "cpu", 1, "2024-01-01", wait_share=0.0)


def steady(median_ms: float, **changes: object) -> Measurement:
    noise = np.random.default_rng(0).normal(0, 0.005, 24)
    samples_ms = tuple(float(x) for x in median_ms * (1 + noise))
    measurement = Measurement(Verdict.OK, samples_ms=samples_ms, busy_s=1.0, conditions=CONDITIONS)
    return replace(measurement, **changes)  # type: ignore[arg-type]


class Device:
    """Answers with a latency by file; what it cannot load fails."""

    def __init__(self, latency_ms: dict[bytes, float]) -> None:
        self._latency_ms = latency_ms
        self.calls: list[tuple[bytes, BenchmarkSpec]] = []

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        self.calls.append((model, spec))
        if model not in self._latency_ms:
            return Measurement(Verdict.LOAD_FAILED, "no model")
        return steady(self._latency_ms[model])


def test_files_take_turns_and_each_round_takes_its_share() -> None:
    device = Device({b"a": 1.0, b"b": 2.0})
    told: list[tuple[int, int, float]] = []
    whole = PRESETS["quick"]
    measured = measure_in_rounds(
        [(b"a", whole), (b"b", whole.replace(threads=2))],
        3,
        device.measure,
        progress=lambda done, position, part: told.append((done, position, round(part.statistics.median_ms))),  # type: ignore[union-attr]
    )
    assert [model for model, _ in device.calls] == [b"a", b"b"] * 3
    assert [spec for _, spec in device.calls] == [share_of(whole, 3), share_of(whole.replace(threads=2), 3)] * 3
    assert told == [(1, 0, 1), (2, 1, 2), (3, 0, 1), (4, 1, 2), (5, 0, 1), (6, 1, 2)]
    assert [(found.whole.verdict, len(found.parts), len(found.whole.samples_ms)) for found in measured] == [
        (Verdict.OK, 3, 72)
    ] * 2
    assert [round(found.whole.latency_ms or 0) for found in measured] == [1, 2]


def test_a_file_that_fails_is_left_out_of_the_rounds_that_follow() -> None:
    device = Device({b"b": 2.0})
    told: list[int] = []
    broken, good = measure_in_rounds(
        [(b"a", SPEC), (b"b", SPEC)], 3, device.measure, progress=lambda done, *_: told.append(done)
    )
    assert [model for model, _ in device.calls] == [b"a", b"b", b"b", b"b"]
    assert told == [1, 2, 4, 6], "what is left out counts as done"
    assert (broken.whole.verdict, broken.whole.detail, len(broken.parts)) == (Verdict.LOAD_FAILED, "no model", 1)
    assert good.whole.ok


def test_answers_that_are_provisional_are_replaced_at_the_end() -> None:
    device = Device({b"a": 1.0, b"b": 2.0})

    def finish() -> Sequence[Measurement]:
        return [steady(10.0 + number) for number, _ in enumerate(device.calls)]

    first, second = measure_in_rounds([(b"a", SPEC), (b"b", SPEC)], 2, device.measure, finish=finish)
    assert [round(part.latency_ms or 0) for part in (*first.parts, *second.parts)] == [10, 12, 11, 13]


def test_what_a_run_has_measured_before_it_was_interrupted_is_not_measured_again() -> None:
    """Delivery puts such a function between the rounds and the device."""
    device, known = Device({b"a": 1.0}), [steady(1.0), steady(1.0)]

    def measured_once(model: bytes, spec: BenchmarkSpec) -> Measurement:
        return known.pop() if known else device.measure(model, spec)

    (found,) = measure_in_rounds([(b"a", SPEC)], 5, measured_once)
    assert (len(device.calls), len(found.parts)) == (3, 5)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rounds", [1, 2, 5, 8, 1000])
def test_the_shares_of_all_rounds_are_the_whole(preset: str, rounds: int) -> None:
    whole = PRESETS[preset]
    share = share_of(whole.replace(profile_ops=True), rounds)
    assert rounds * share.min_runs >= whole.min_runs
    assert rounds * share.max_runs >= whole.max_runs
    assert rounds * share.max_duration_s == pytest.approx(whole.max_duration_s)
    assert share.min_runs >= min(6, whole.min_runs), "with fewer runs a round has no interval"
    assert not share.profile_ops


def test_joined_rounds_are_assessed_as_a_whole() -> None:
    calm = steady(1.0)
    busy = steady(1.0, conditions=replace(CONDITIONS, wait_share=0.5, throttle_events=1), busy_s=1.0)
    joined = join_rounds([calm, replace(calm, peak_memory_bytes=5, attempts=2)], SPEC)
    assert joined.ok
    assert (len(joined.samples_ms), joined.peak_memory_bytes, joined.attempts) == (48, 5, 3)
    assert join_rounds([calm, busy], SPEC).verdict is Verdict.THROTTLED
    contended = replace(busy, conditions=replace(CONDITIONS, wait_share=0.5))
    waited = join_rounds([calm, contended], SPEC)
    assert waited.verdict is Verdict.UNSTEADY
    assert waited.conditions is not None
    assert waited.conditions.wait_share == pytest.approx(0.25)
    assert join_rounds([calm, steady(1.5)], SPEC).verdict is Verdict.UNSTEADY  # the second half is slower
    assert join_rounds([calm, Measurement(Verdict.TIMEOUT, "hung")], SPEC).verdict is Verdict.TIMEOUT
