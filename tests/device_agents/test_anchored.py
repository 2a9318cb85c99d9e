from __future__ import annotations

from device_agents.anchor_watch import AnchorSettings
from device_agents.anchored import AnchoredAgent
from device_agents.api import BenchmarkSpec, Conditions, Measurement, Verdict
from tests.support.agents import FunctionAgent

ANCHOR = b"anchor"
CONDITIONS = Conditions("device", "phone", "litert", "1", "cpu", 1, "2020-01-01T00:00:00")


class Device:
    """Takes 1 ms times a slowdown for everything; `log` says what it was asked for."""

    def __init__(self) -> None:
        self.slowdown = 1.0
        self.refused = b""
        self.log = ""
        self.suspect_since: list[float] = []
        self.now_s = 0.0

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        self.log += "A" if model == ANCHOR else "m"
        self.now_s += 1.0
        if model == self.refused:
            return Measurement(Verdict.LOAD_FAILED, "refused", conditions=CONDITIONS)
        return Measurement(Verdict.OK, samples_ms=(self.slowdown,) * 20, conditions=CONDITIONS)

    def anchored(self, **settings: float) -> AnchoredAgent:
        chosen = AnchorSettings(**{"every": 3, "interval_s": 1e9, **settings})  # type: ignore[arg-type]
        return AnchoredAgent(
            FunctionAgent(self.measure), BenchmarkSpec(), ANCHOR, chosen, self.suspect_since.append, lambda: self.now_s
        )


def measure(agent: AnchoredAgent, count: int) -> list[Measurement]:
    return [agent.measure(b"model", BenchmarkSpec()) for _ in range(count)]


def ratio(measurement: Measurement) -> float | None:
    assert measurement.conditions is not None
    return measurement.conditions.anchor_ratio


def test_anchor_is_measured_at_the_start_at_intervals_and_at_the_end() -> None:
    device = Device()
    with device.anchored() as agent:
        assert [ratio(m) for m in measure(agent, 7)] == [1.0] * 7
        assert [reading.after for reading in agent.readings] == [0, 3, 6]
        agent.close()
    assert device.log == "AmmmAmmmAmA"


def test_anchor_is_due_after_some_time_too() -> None:
    device = Device()
    agent = device.anchored(interval_s=60.0)
    measure(agent, 1)
    device.now_s += 60
    measure(agent, 1)
    assert device.log == "AmAm"


def test_the_anchor_costs_less_than_a_twentieth_of_the_measuring() -> None:
    device = Device()
    agent = device.anchored(every=AnchorSettings().every)
    measure(agent, 500)
    assert device.log.count("A") <= 0.05 * 500


def test_slow_changes_within_the_limit_are_recorded_and_accepted() -> None:
    device = Device()
    agent = device.anchored()
    measure(agent, 3)
    device.slowdown = 1.08
    answers = measure(agent, 3)
    assert all(m.ok for m in answers)
    assert {ratio(m) for m in answers} == {1.08}
    assert device.suspect_since == []


def test_a_single_odd_reading_is_not_believed() -> None:
    device = Device()
    agent = device.anchored()
    measure(agent, 3)
    odd = iter([1.5, 1.0])
    inner = device.measure

    def once(model: bytes, spec: BenchmarkSpec) -> Measurement:
        device.slowdown = next(odd, 1.0)
        return inner(model, spec)

    agent._agent = agent._anchor._agent = FunctionAgent(once)
    assert measure(agent, 1)[0].ok
    assert device.log == "AmmmAAm"
    assert device.suspect_since == []


def test_drift_marks_what_follows_until_it_is_over_and_makes_what_went_before_suspect() -> None:
    device = Device()
    agent = device.anchored()
    measure(agent, 3)
    good_s = 1.0  # when the last good reading was over
    device.slowdown = 1.3
    during = measure(agent, 2)
    device.slowdown = 1.02
    after = measure(agent, 1)
    assert device.log == "Ammm" + "AAAm" + "Am" + "Am"
    assert [m.verdict for m in during] == [Verdict.DRIFTED] * 2
    assert "1.30 times as long" in during[0].detail
    assert during[0].samples_ms
    assert after[0].ok
    assert device.suspect_since == [good_s]


def test_a_drift_that_stays_is_the_devices_new_speed() -> None:
    device = Device()
    agent = device.anchored(patience=4)
    start_s = device.now_s
    measure(agent, 3)
    device.slowdown = 1.3
    answers = measure(agent, 10)
    assert [m.verdict for m in answers] == [Verdict.DRIFTED] * 4 + [Verdict.OK] * 6
    assert {ratio(m) for m in answers} == {1.3}
    assert device.suspect_since == [1.0, start_s]  # at the end all of the former speed
    device.slowdown = 1.0  # and back
    assert Verdict.DRIFTED in {m.verdict for m in measure(agent, 4)}


def test_failed_candidates_keep_their_verdict() -> None:
    device = Device()
    device.refused = b"model"
    agent = device.anchored()
    measure(agent, 3)
    device.slowdown = 1.3
    assert measure(agent, 1)[0].verdict is Verdict.LOAD_FAILED


def test_where_the_anchor_does_not_run_drift_is_not_known() -> None:
    device = Device()
    device.refused = ANCHOR
    agent = device.anchored()
    answers = measure(agent, 5)
    assert all(m.ok for m in answers)
    assert {ratio(m) for m in answers} == {None}
    assert device.log == "AAAmmmmm"


def test_a_drift_at_the_very_end_is_told() -> None:
    device = Device()
    agent = device.anchored()
    measure(agent, 2)
    device.slowdown = 1.5
    agent.close()
    assert device.suspect_since == [1.0]
