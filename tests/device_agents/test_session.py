from __future__ import annotations

import pytest

from device_agents.anchor_watch import AnchorSettings
from device_agents.anchored import AnchoredAgent
from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError
from device_agents.session import MeasuringSession
from tests.support.agents import FunctionAgent, steady

ANCHOR = b"anchor"


class Device:
    """Takes 1 ms for everything, times a speed that the test scripts per anchor reading."""

    def __init__(self, slowdowns: list[float]) -> None:
        self._slowdowns = slowdowns
        self.log: list[bytes] = []

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        self.log.append(model)
        readings = self.log.count(ANCHOR)
        index = readings - 1 if model == ANCHOR else readings
        return steady(self._slowdowns[min(index, len(self._slowdowns) - 1)])


def session(device: Device, every: int = 2, rounds: int = 2) -> MeasuringSession:
    return MeasuringSession(
        FunctionAgent(device.measure),
        BenchmarkSpec(),
        ANCHOR,
        AnchorSettings(every=every, interval_s=1e9, confirmations=1, repetitions=rounds),
        clock=lambda: 0.0,
    )


def measure_all(session: MeasuringSession, *models: bytes) -> list[Measurement]:
    for model in models:
        session.measure(model)
    return session.finish()


def test_anchor_is_measured_at_the_start_at_intervals_and_at_the_end() -> None:
    device = Device([1.0])
    results = measure_all(session(device), b"a", b"b", b"c")
    assert device.log == [ANCHOR, b"a", b"b", ANCHOR, b"c", ANCHOR]
    assert [r.latency_ms for r in results] == [1.0] * 3


def test_what_lies_between_drifted_anchors_is_measured_again() -> None:
    device = Device([1.0, 1.2, 1.01])
    run = session(device)
    results = measure_all(run, b"a", b"b")
    assert device.log == [ANCHOR, b"a", b"b", ANCHOR, b"a", b"b", ANCHOR]
    assert [r.latency_ms for r in results] == [1.01, 1.01]
    assert [a.ratio for a in run.anchors] == pytest.approx([1.0, 1.2, 1.01])


def test_a_model_may_come_with_a_spec_of_its_own() -> None:
    specs: list[tuple[bytes, int]] = []
    device = Device([1.0, 1.2, 1.01])

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        specs.append((model, spec.threads))
        return device.measure(model, spec)

    run = MeasuringSession(FunctionAgent(measure), BenchmarkSpec(), ANCHOR, AnchorSettings(every=1, confirmations=1))
    run.measure(b"a", BenchmarkSpec(threads=3))
    assert specs == [(ANCHOR, 1), (b"a", 3), (ANCHOR, 1), (b"a", 3), (ANCHOR, 1)]


def test_lasting_drift_is_a_verdict_that_names_the_ratio() -> None:
    results = measure_all(session(Device([1.0, 1.3])), b"a", b"b")
    assert [r.verdict for r in results] == [Verdict.DRIFTED] * 2
    assert "1.30" in results[0].detail
    assert results[0].latency_ms is None


def test_drift_within_the_threshold_is_accepted() -> None:
    device = Device([1.0, 1.09, 0.92])
    assert all(r.ok for r in measure_all(session(device), b"a", b"b", b"c"))


def test_a_single_odd_reading_is_not_believed() -> None:
    device = Device([1.0, 1.4, 1.0])
    run = MeasuringSession(FunctionAgent(device.measure), BenchmarkSpec(), ANCHOR, AnchorSettings(every=2))
    run.measure(b"a")
    run.measure(b"b")
    assert device.log == [ANCHOR, b"a", b"b", ANCHOR, ANCHOR]


def test_both_ways_of_watching_a_device_draw_the_line_at_the_same_drift() -> None:
    """Of a device that is slower by a tenth and a bit, and then by a tenth less a bit."""
    for slowdown, drifted in ((1.11, True), (1.09, False)):
        found = measure_all(session(Device([1.0, slowdown]), every=1), b"a")[0].verdict is Verdict.DRIFTED
        anchored = AnchoredAgent(
            FunctionAgent(Device([1.0, slowdown]).measure), BenchmarkSpec(), ANCHOR, AnchorSettings(every=1)
        )
        anchored.measure(b"a", BenchmarkSpec())
        anchored.measure(b"a", BenchmarkSpec())
        assert found == AnchorSettings().is_drift(anchored.readings[-1].ratio) == drifted


def test_anchor_is_due_after_some_time_too() -> None:
    device, now = Device([1.0]), [0.0]
    run = MeasuringSession(FunctionAgent(device.measure), BenchmarkSpec(), ANCHOR, clock=lambda: now[0])
    run.measure(b"a")
    now[0] = 61.0
    run.measure(b"b")
    assert device.log == [ANCHOR, b"a", b"b", ANCHOR]


def test_failed_candidates_keep_their_verdict_and_are_not_repeated() -> None:
    device = Device([1.0, 1.3])

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if model == b"broken":
            device.log.append(model)
            return Measurement(Verdict.LOAD_FAILED, "broken")
        return device.measure(model, spec)

    run = MeasuringSession(FunctionAgent(measure), BenchmarkSpec(), ANCHOR)
    results = measure_all(run, b"broken", b"a")
    assert [r.verdict for r in results] == [Verdict.LOAD_FAILED, Verdict.DRIFTED]
    assert device.log.count(b"broken") == 1


def test_an_anchor_that_cannot_be_measured_is_a_broken_bench() -> None:
    agent = FunctionAgent(lambda *_: Measurement(Verdict.LOAD_FAILED, "no kernel"))
    with pytest.raises(DeviceUnavailableError, match="no kernel"):
        MeasuringSession(agent, BenchmarkSpec(), ANCHOR).measure(b"a")


@pytest.mark.parametrize(
    ("verdict", "fix"),
    [
        (Verdict.LOAD_FAILED, "look at the device: nas-edge devices doctor fake:1"),
        (Verdict.FALLBACK, "measure with another --delegate"),
        (Verdict.BENCH_FAILED, None),  # whose detail says it
    ],
)
def test_it_is_said_what_can_be_done_about_an_anchor_that_cannot_be_measured(verdict: Verdict, fix: str | None) -> None:
    agent = FunctionAgent(lambda *_: Measurement(verdict, "why"))
    with pytest.raises(DeviceUnavailableError) as caught:
        MeasuringSession(agent, BenchmarkSpec(), ANCHOR).measure(b"a")
    assert (caught.value.what, caught.value.fix) == (f"The anchor model cannot be measured ({verdict}: why)", fix)


def test_finish_without_measurements_measures_nothing() -> None:
    device = Device([1.0])
    assert session(device).finish() == []
    assert device.log == []
