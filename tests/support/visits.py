"""Devices that answer visits, for testing what decides by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from device_agents.api import Conditions, Measurement, MeasureRequest, Verdict
from device_agents.probe_watch import Probe
from tests.support.agents import FunctionAgent, fake_info

PROBES = [Probe("compute", b"P"), Probe("memory", b"Q")]


def visit(verdict: Verdict = Verdict.OK, latency_ms: float = 2.0, runs: int = 15, detail: str = "") -> Measurement:
    """A visit to a device that tells no single runs."""
    info = fake_info()
    conditions = Conditions(info.fingerprint, info.model, info.runtime, info.runtime_version, "cpu", 1, "2026-01-01")
    return Measurement(verdict, detail, (latency_ms,), runs_per_sample=runs, conditions=conditions)


class DistantAgent(FunctionAgent):
    """Takes note of what it is asked for at once."""

    def __init__(self, rounds_at_once: int, answer: Callable[[bytes, int], Measurement]) -> None:
        super().__init__(lambda model, spec: pytest.fail("a visit was measured in one go"))
        self.rounds_at_once = rounds_at_once
        self.asked: list[list[bytes]] = []
        self._answer = answer
        self._visits: dict[bytes, int] = {}

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        self.asked.append([model for model, _ in requests])
        found = []
        for model, _ in requests:
            self._visits[model] = self._visits.get(model, 0) + 1
            found.append(self._answer(model, self._visits[model]))
        return found
