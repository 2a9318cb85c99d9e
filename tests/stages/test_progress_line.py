"""What the progress line says of a search and its devices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from device_agents.api import BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError
from device_agents.pool import DeviceStatus, PoolSettings
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.device import DeviceSource
from nas_edge.search.loop import StepReport
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.progress_line import PATIENCE_S, SearchLine, trouble
from nas_edge.tasks.base import Metric
from nas_edge.tasks.classification import ACCURACY
from tests.support.agents import FunctionAgent, fake_info, steady
from tests.support.candidates import candidate
from tests.support.sources import failed

SPEC = BenchmarkSpec()
CONDITIONS = Conditions("device", "phone", "litert", "1", "cpu", 1, "2020-01-01T00:00:00", temperature_c_after=54.3)
WAIT_S = 120
IDLE = DeviceStatus(fake_info(), "idle", 100.0, 7, 0, "")


def trial(measurement: Measurement | None, reward: float | None) -> Trial:
    answer = None if measurement is None else LatencyAnswer.measured(measurement)
    return Trial(3, 3, Architecture((0,)), 0.97, answer, None, reward)


def report(*trials: Trial) -> StepReport:
    return StepReport(3, 1.25, trials, 49.12)


def source(measure: Callable[[bytes, BenchmarkSpec], Measurement], devices: int = 1) -> DeviceSource:
    agents = [FunctionAgent(measure, fake_info(f"fake:{i}")) for i in range(devices)]
    return DeviceSource(agents, "int8", SPEC, PoolSettings(together=1))


def test_facts_of_a_step() -> None:
    timed = replace(steady(0.1034), conditions=CONDITIONS)
    with source(lambda *_: steady(1.0)) as devices:
        line = SearchLine(0.11, ACCURACY, [devices], [trial(timed, 0.5), trial(None, None)])
        assert line.facts() == ["compiling the first step", "device idle", "queue 0"]
        line.show(report())
        assert line.facts() == ["loss 1.250 (weights only)", "entropy 49.1", "device idle", "queue 0"]
        line.show(report(trial(steady(9.0), 0.6), trial(timed, 0.4)))
        assert line.facts() == [
            *("0.1034/0.1100 ms", "reward 0.400", "best reward 0.600", "quality 97.00%", "54 °C"),
            *("entropy 49.1", "device idle", "queue 0"),
        ]
        line.show(report(trial(failed(Verdict.TIMEOUT), None)))
        assert line.facts()[:4] == ["timeout", "reward -", "best reward 0.600", "quality 97.00%"]
        line.show(report(trial(None, None)))
        assert line.facts()[0] == "not timed"


def test_a_quality_is_written_as_its_task_says() -> None:
    line = SearchLine(0.11, Metric("negative error", ".1f"), [], [])
    line.show(report(trial(steady(0.1), 0.6)))
    assert "quality 1.0" in line.facts()


def test_what_the_devices_do_is_asked_at_every_look() -> None:
    asked, release = threading.Event(), threading.Event()

    def measure(*_: object) -> Measurement:
        asked.set()
        assert release.wait(WAIT_S)
        return steady(1.0)

    with source(measure, devices=2) as devices:
        line = SearchLine(1.0, ACCURACY, [devices], [])
        line.show(report())
        futures = [devices.submit(candidate(0)) for _ in range(7)]
        assert asked.wait(WAIT_S)
        expected, deadline_s = ["2 of 2 devices measuring", "queue 5"], time.monotonic() + WAIT_S
        while line.facts()[-2:] != expected and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert line.facts()[-2:] == expected
        release.set()
        for future in futures:
            future.result(WAIT_S)


def test_a_long_wait_is_told() -> None:
    measuring = replace(IDLE, state="measuring", state_s=PATIENCE_S - 0.1)
    assert trouble([IDLE, measuring]) == []
    assert trouble([IDLE, replace(measuring, state_s=12.3)]) == ["waiting for the device for 12 s"]


def test_a_device_that_is_gone_is_told_with_the_reason() -> None:
    gone = replace(IDLE, state="quarantined", last_fault="unplugged")
    assert trouble([gone]) == ["waiting for the device to come back", "unplugged"]
    assert trouble([IDLE, gone]) == ["waiting for 1 of 2 devices to come back", "unplugged"]


def test_a_pool_tells_how_long_a_device_is_in_its_state() -> None:
    started = threading.Event()

    def lost(*_: object) -> Measurement:
        raise DeviceUnavailableError("unplugged")

    agent = FunctionAgent(lost, check=lambda: lost() if started.is_set() else None)
    with DeviceSource([agent], "int8", SPEC) as devices:
        started.set()
        devices.submit(candidate(0))
        deadline_s = time.monotonic() + WAIT_S
        while devices.status()[0].state != "quarantined" and time.monotonic() < deadline_s:
            time.sleep(0.005)
        (status,) = devices.status()
        assert status.state == "quarantined"
        later = devices.status()[0].state_s
        assert 0 <= status.state_s <= later
        assert trouble([status])[1] == "unplugged"


@pytest.mark.parametrize("devices", [1, 3])
def test_an_untouched_bench_is_idle(devices: int) -> None:
    with source(lambda *_: steady(1.0), devices) as bench:
        facts = SearchLine(1.0, ACCURACY, [bench], []).facts()
    assert facts[1] == ("device idle" if devices == 1 else "0 of 3 devices measuring")
