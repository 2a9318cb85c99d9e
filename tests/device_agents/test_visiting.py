from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.simulated_device import SimulatedDevice, SimulatedModel
from device_agents.api import BenchmarkSpec, DeviceAgent, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError
from device_agents.floors import FloorStore
from device_agents.probe_watch import REFERENCE, Probe
from device_agents.quiet import VisitSettings
from device_agents.visiting import VisitedFile, VisitingAgent
from tests.support.agents import FunctionAgent
from tests.support.visits import PROBES, visit

SPEC = BenchmarkSpec(min_runs=9, min_duration_s=0.0, max_duration_s=1.0, patience_s=0.0)
SETTINGS = VisitSettings()


@dataclass
class Device:
    """Takes its time for each model times a slowdown; `log` says what was visited."""

    slowdown: Callable[[], float] = lambda: 1.0
    times_ms: dict[bytes, float] = field(default_factory=dict)
    failing: dict[bytes, Verdict] = field(default_factory=dict)
    log: list[bytes] = field(default_factory=list)
    now_s: float = 0.0
    slept_s: float = 0.0
    drifts: list[float] = field(default_factory=list)

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        self.log.append(model)
        self.now_s += 0.1
        if model in self.failing:
            return Measurement(self.failing[model], "broken")
        return visit(latency_ms=self.times_ms.get(model, 2.0) * self.slowdown(), runs=15)

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def agent(self, probes: list[Probe] = PROBES, floors: FloorStore | None = None, seed: int = 0) -> VisitingAgent:
        return VisitingAgent(
            FunctionAgent(self.measure), probes=probes, floors=floors, seed=seed, on_drift=self.drifts.append,
            clock=lambda: self.now_s, sleep=self.sleep,
        )  # fmt: skip


def rounds_of(log: list[bytes], models: set[bytes]) -> list[bytes]:
    return [model for model in log if model in models]


def test_on_a_quiet_device_three_visits_of_each_file_suffice() -> None:
    device = Device(times_ms={b"a": 1.0, b"b": 3.0})
    found = device.agent().measure_all([(b"a", SPEC), (b"b", SPEC)])
    assert [(one.verdict, one.latency_ms, len(one.visits)) for one in found] == [
        (Verdict.OK, 1.0, 3),
        (Verdict.OK, 3.0, 3),
    ]
    assert [one.round for one in found[0].visits] == [one.round for one in found[1].visits]


def test_files_are_visited_in_turns_in_an_order_that_differs_from_round_to_round() -> None:
    device, models = Device(), {b"a", b"b", b"c", b"d"}
    settings = SPEC.replace(min_runs=150)  # ten visits
    device.agent().measure_all([(model, settings) for model in sorted(models)])
    log = rounds_of(device.log, models)
    rounds = [tuple(log[start : start + 4]) for start in range(0, len(log), 4)]
    assert len(rounds) == 10
    assert all(set(one) == models for one in rounds)
    assert len(set(rounds)) > 3


def test_the_order_of_visits_follows_from_the_seed() -> None:
    logs = []
    for seed in (1, 1, 2):
        device = Device()
        device.agent(seed=seed).measure_all([(model, SPEC) for model in (b"a", b"b", b"c")])
        logs.append(device.log)
    assert logs[0] == logs[1] != logs[2]


def test_a_disturbed_device_is_visited_more_often_and_the_quiet_latency_is_still_true() -> None:
    rng = random.Random(0)
    device = Device(slowdown=lambda: 1.0 if rng.random() < 0.4 else rng.uniform(1.3, 1.8))
    (found,) = device.agent().measure_all([(b"a", SPEC)])
    assert found.verdict is Verdict.OK
    assert found.latency_ms == 2.0
    assert len(found.visits) > SETTINGS.agreeing
    assert found.statistics is not None
    assert found.statistics.median_ms > 2.4


def test_what_does_not_agree_in_time_is_contended_and_keeps_what_was_seen() -> None:
    rng = random.Random(1)
    device = Device(slowdown=lambda: 1.0 if device.log[-1] in (b"P", b"Q") else rng.uniform(1, 40))
    (found,) = device.agent().measure_all([(b"a", SPEC.replace(max_duration_s=0.1))])
    assert found.verdict is Verdict.CONTENDED
    assert found.latency_ms is None
    assert len(found.visits) >= SETTINGS.fewest_before_giving_up
    assert "do not agree" in found.detail


def test_a_disturbance_that_lasts_is_waited_for() -> None:
    device = Device()
    agent = device.agent()
    agent.measure(b"a", SPEC)
    slow_until_s = [10.0]
    device.slowdown = lambda: 1.5 if device.slept_s < slow_until_s[0] else 1.0
    patient = SPEC.replace(max_duration_s=0.5, patience_s=60.0)
    assert agent.measure(b"a", patient).latency_ms == 2.0
    assert 10.0 <= device.slept_s < 20.0
    slow_until_s[0], device.slept_s = 1e9, 0.0
    found = agent.measure(b"a", patient)
    assert found.verdict is Verdict.THROTTLED
    assert device.slept_s == pytest.approx(60.0)


def test_answers_of_a_round_that_turns_out_to_have_been_disturbed_are_taken_back() -> None:
    """All is slow at first, unknown to anybody: what was believed then is measured on."""
    device = Device()
    slow = [True]
    device.slowdown = lambda: 1.5 if slow[0] else 1.0
    agent = device.agent()
    files = [VisitedFile(b"a", SPEC), VisitedFile(b"b", SPEC.replace(min_runs=300))]
    for _ in agent.rounds(files):
        if files[0].answer is not None:
            slow[0] = False
    assert [file.answer.latency_ms for file in files if file.answer is not None] == [2.0, 2.0]
    assert device.drifts


def test_floors_of_an_earlier_session_keep_a_disturbed_one_from_being_believed(tmp_path: Path) -> None:
    floors, device = FloorStore(tmp_path / "floors.json"), Device()
    with device.agent(floors=floors) as agent:
        assert agent.measure(b"a", SPEC).ok
    later = Device(slowdown=lambda: 1.4)
    with later.agent(floors=floors) as agent:
        assert agent.measure(b"a", SPEC).verdict is Verdict.THROTTLED
    without = Device(slowdown=lambda: 1.4)
    assert without.agent().measure(b"a", SPEC).ok  # nobody could know


def test_a_slight_disturbance_that_lasts_is_corrected_by_the_reference_network(tmp_path: Path) -> None:
    floors, probes = FloorStore(tmp_path / "floors.json"), [*PROBES, Probe(REFERENCE, b"R")]
    with Device().agent(probes, floors) as agent:
        assert agent.measure(b"a", SPEC).ok
    with Device(slowdown=lambda: 1.2).agent(probes, floors) as agent:
        found = agent.measure(b"a", SPEC)
    assert found.verdict is Verdict.CORRECTED
    assert found.latency_ms == pytest.approx(2.0)
    assert found.interval_ms is not None
    assert found.interval_ms[0] < 2.0 < found.interval_ms[1]


def test_a_model_that_fails_has_its_verdict_and_the_others_their_latency() -> None:
    device = Device(failing={b"bad": Verdict.LOAD_FAILED})
    found = device.agent().measure_all([(b"a", SPEC), (b"bad", SPEC)])
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.LOAD_FAILED]
    assert device.log.count(b"bad") == 1


def test_a_probe_that_the_device_refuses_says_nothing() -> None:
    device = Device(failing={b"Q": Verdict.FALLBACK})
    assert device.agent().measure(b"a", SPEC).ok
    assert device.log.count(b"Q") == 1


def test_without_any_probe_there_are_more_visits() -> None:
    device = Device()
    assert device.agent(probes=[]).measure(b"a", SPEC).ok
    assert device.log.count(b"a") > SETTINGS.agreeing


def test_what_is_too_fast_to_be_work_is_refused() -> None:
    found = Device(times_ms={b"a": 1e-5}).agent().measure(b"a", SPEC)
    assert found.verdict is Verdict.RUN_FAILED
    assert "no work worth timing" in found.detail


def test_a_recording_is_asked_once_and_answers_what_it_has() -> None:
    recorded = Measurement(Verdict.UNSTEADY, "as recorded", (1.0, 2.0))
    agent = FunctionAgent(lambda model, spec: recorded)
    agent.recorded = True
    assert VisitingAgent(agent).measure_all([(b"a", SPEC)] * 2) == [recorded, recorded]


def test_a_bench_that_breaks_is_an_exception_and_what_was_visited_stays_in_the_files() -> None:
    device = Device()
    file = VisitedFile(b"a", SPEC.replace(min_runs=300))

    def break_down(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if device.log.count(b"a") >= 4:
            raise DeviceUnavailableError("unplugged")
        return device.measure(model, spec)

    agent: DeviceAgent = FunctionAgent(break_down)
    with pytest.raises(DeviceUnavailableError):
        list(VisitingAgent(agent, probes=PROBES).rounds([file]))
    assert len(file.visits) == 4


@pytest.mark.parametrize("quiet_share", [0.2, 0.5, 0.8])
def test_latencies_are_true_on_a_simulated_device_however_often_it_is_disturbed(quiet_share: float) -> None:
    errors = []
    for seed in range(6):
        models = {b"P": SimulatedModel(1.0, 0.5), b"Q": SimulatedModel(1.0, 0.9)}
        candidates = {b"%d" % number: SimulatedModel(0.5 + number, 0.3) for number in range(4)}
        device = SimulatedDevice({**models, **candidates}, quiet_share, 0.4, alike=False, seed=seed)
        agent = VisitingAgent(device, probes=PROBES, seed=seed, clock=lambda d=device: d.now_s, sleep=lambda s: None)  # type: ignore[misc]
        spec = SPEC.replace(max_duration_s=2.4)
        for found, model in zip(agent.measure_all([(c, spec) for c in candidates]), candidates.values(), strict=True):
            assert found.latency_ms is not None
            errors.append(abs(found.latency_ms / model.quiet_ms - 1))
    assert sum(error > 0.05 for error in errors) <= 1


def test_a_device_that_says_nothing_of_its_conditions_is_believed_all_the_same() -> None:
    agent = FunctionAgent(lambda model, spec: Measurement(Verdict.OK, samples_ms=(2.0,) * 5))
    assert VisitingAgent(agent, probes=PROBES).measure(b"a", SPEC).latency_ms == 2.0
