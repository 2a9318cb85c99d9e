"""Files that are measured in visits in more than one session, and with several settings at once."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from device_agents.api import PRESETS, BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.probe_watch import Probe
from device_agents.visiting import VisitedFile, VisitingAgent
from tests.support.agents import FunctionAgent

SPEC = PRESETS["search"]


class Device:
    """Takes 10 ms for a run of a file and 1 ms for one of the probe; counts visits."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.visits: Counter[tuple[bytes, int]] = Counter()

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        self.visits[model, spec.threads] += 1
        first = self.visits[model, spec.threads] == 1
        conditions = Conditions(
            "abc", "phone", "litert", "1", "cpu", spec.threads, "2024-01-01",
            wait_share=0.01 * self.visits[model, spec.threads], delegate_kernels=2 if first else None,
        )  # fmt: skip
        time_ms = (1.0 if model == b"probe" else 10.0 + 0.01 * self.visits[model, spec.threads]) / self.speed
        return Measurement(
            Verdict.OK,
            samples_ms=(time_ms,) * 4,
            init_ms=5.0 if first else None,
            first_inference_ms=20.0 if first else None,
            warmup_runs=1,
            busy_s=0.05,
            peak_memory_bytes=1000 if first else None,
            conditions=conditions,
        )


def visiting(device: Device) -> VisitingAgent:
    return VisitingAgent(FunctionAgent(device.measure), probes=[Probe("compute", b"probe")])


def test_a_stored_measurement_is_visited_further() -> None:
    (whole,) = visiting(Device()).measure_all([(b"a", SPEC)])
    stored = Measurement.from_json(json.loads(json.dumps(whole.to_json())))
    file = VisitedFile.of(b"a", SPEC, stored)
    assert (file.rounds, file.at_s) == ([visit.round for visit in whole.visits], [v.at_s for v in whole.visits])
    again = file.joined()
    for name in ("samples_ms", "visits", "init_ms", "first_inference_ms", "warmup_runs", "peak_memory_bytes"):
        assert getattr(again, name) == getattr(whole, name)
    assert again.busy_s == pytest.approx(whole.busy_s)
    assert again.conditions is not None
    assert whole.conditions is not None
    assert again.conditions.delegate_kernels == 2
    assert again.conditions.wait_share == pytest.approx(whole.conditions.wait_share, rel=0.01)

    for _ in visiting(Device()).rounds([file]):
        pass
    assert file.answer is not None
    assert file.answer.visits[: len(whole.visits)] == whole.visits
    assert file.answer.visits[len(whole.visits)].round > whole.visits[-1].round
    assert file.answer.visits[len(whole.visits)].at_s >= whole.visits[-1].at_s


def test_visits_that_failed_are_not_taken_over() -> None:
    file = VisitedFile(b"a", SPEC)
    device = Device()
    for number in range(3):
        file.add(device.measure(b"a", SPEC), number, 0.0)
    file.add(Measurement(Verdict.DEVICE_LOST, "unplugged"), 3, 0.0)
    again = VisitedFile.of(b"a", SPEC, file.joined())
    assert again.rounds == [0, 1, 2]
    assert again.joined().conditions is not None


def test_rounds_are_numbered_on_from_files_that_have_their_answer() -> None:
    """Else later visits would seem to have been side by side with those of an earlier session."""
    done = VisitedFile(b"a", SPEC)
    for _ in visiting(Device()).rounds([done]):
        pass
    assert done.answer is not None
    visits = len(done.visits)
    new = VisitedFile(b"b", SPEC)
    for _ in visiting(Device()).rounds([done, new]):
        pass
    assert len(done.visits) == visits
    assert min(new.rounds) > max(done.rounds)


@pytest.mark.parametrize("appended", [1, 2])
def test_a_visit_that_was_being_noted_does_not_count(appended: int) -> None:
    """Ctrl-C may come at any moment."""
    file = VisitedFile(b"a", SPEC)
    device = Device()
    for number in range(3):
        file.add(device.measure(b"a", SPEC), number, 0.5)
    file.at_s.append(1.0)
    if appended == 2:
        file.rounds.append(3)
    assert len(file.joined().visits) == 3
    assert len(file.times(visiting(device).settings)) == 3


def test_each_number_of_threads_has_probes_of_its_own() -> None:
    """Contention on the second core shows only with two threads."""
    device = Device()
    agent = visiting(device)
    two = SPEC.replace(threads=2)
    one_thread, two_threads = agent.measure_all([(b"a", SPEC), (b"a", two)])
    assert (one_thread.ok, two_threads.ok) == (True, True)
    assert [visit.round for visit in one_thread.visits] == [visit.round for visit in two_threads.visits]
    for spec in (SPEC, two):
        watch = agent.watch_of(spec)
        assert watch is not None
        assert watch.states()[0].visits == device.visits[b"probe", spec.threads] > len(one_thread.visits)
    assert agent.watch_of(SPEC.replace(threads=3)) is None


def test_what_is_half_done_is_assessed_too() -> None:
    agent = visiting(Device())
    file = VisitedFile(b"a", PRESETS["rapid"])
    next(agent.rounds([file]))
    assert agent.provisional(file).verdict is Verdict.CONTENDED
    assert agent.provisional(file).statistics is not None


def test_recordings_that_have_their_answer_are_not_asked_again() -> None:
    device = Device()
    recorded = FunctionAgent(device.measure)
    recorded.recorded = True
    answered, new = VisitedFile(b"a", SPEC), VisitedFile(b"b", SPEC)
    answered.answer = device.measure(b"a", SPEC)
    assert len([*VisitingAgent(recorded).rounds([answered, new])]) == 1
    assert new.answer is not None
    assert device.visits == {(b"a", 1): 1, (b"b", 1): 1}
