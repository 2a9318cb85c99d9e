"""What is visited together goes to the device together, also through an agent that asks again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from device_agents.api import BenchmarkSpec, Measurement, MeasureRequest
from device_agents.errors import DeviceUnavailableError
from device_agents.patient import PatientAgent
from device_agents.pool import PoolSettings
from tests.support.agents import FunctionAgent, steady

SPEC = BenchmarkSpec()


class TogetherAgent(FunctionAgent):
    """Takes note of what it is asked for at once; fails the first time if it shall."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__(lambda model, spec: pytest.fail("a visit was measured in one go"))
        self.asked: list[list[bytes]] = []
        self._fails = fails

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        self.asked.append([model for model, _ in requests])
        if self._fails:
            self._fails = False
            raise DeviceUnavailableError("unplugged")
        return [steady(float(model)) for model, _ in requests]


@pytest.mark.parametrize("count", [1, 2, 40])
def test_visits_stay_together_and_in_order(count: int) -> None:
    agent = TogetherAgent()
    models = [str(number).encode() for number in range(1, count + 1)]
    with PatientAgent(agent) as patient:
        for _ in range(5):
            found = patient.measure_all([(model, SPEC) for model in models])
            assert [one.latency_ms for one in found] == list(range(1, count + 1))
    assert agent.asked == [models] * 5


def test_visits_that_their_device_was_lost_with_are_made_again_as_visits() -> None:
    agent = TogetherAgent(fails=True)
    with PatientAgent(agent, PoolSettings(quarantine_s=0.01)) as patient:
        found = patient.measure_all([(model, SPEC) for model in (b"1", b"2")])
    assert [one.latency_ms for one in found] == [1, 2]
    assert agent.asked == [[b"1", b"2"], [b"1"], [b"2"]]
