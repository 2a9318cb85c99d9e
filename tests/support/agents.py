"""Agents backed by a function, for testing what stands above a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, Verdict

MeasureFunction = Callable[[bytes, BenchmarkSpec], Measurement]


def fake_info(address: str = "fake:1", model: str = "phone", on_host: bool = False) -> DeviceInfo:
    return DeviceInfo(address, "fake", model, "soc", 1, None, "os", "litert", "1", measures_on_host=on_host)


def steady(median_ms: float) -> Measurement:
    return Measurement(Verdict.OK, samples_ms=(median_ms,) * 20)


class FunctionAgent(DeviceAgent):
    """Answers with what a function returns or raises.

    Recordings are asked for once; of any other device, whoever measures in visits makes as many as it likes.
    """

    def __init__(
        self,
        measure: MeasureFunction,
        info: DeviceInfo | None = None,
        check: Callable[[], None] = lambda: None,
        recorded: bool = False,
    ) -> None:
        self._measure = measure
        self._info = info or fake_info()
        self._check = check
        self.recorded = recorded
        self.closed = False

    def info(self) -> DeviceInfo:
        self._check()
        return self._info

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        return self._measure(model, spec)

    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True
