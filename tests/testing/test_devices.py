"""The suite for device agents notices every promise that is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_agents.anchor import builtin_anchor_model
from device_agents.api import BenchmarkSpec, Conditions, DeviceAgent, DeviceInfo, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError, ModelError
from nas_edge.testing import check_device_agent
from tests.support.agents import fake_info


class Good(DeviceAgent):
    """A device that keeps every promise, without being one."""

    opened = 0

    def __init__(self) -> None:
        type(self).opened += 1

    def info(self) -> DeviceInfo:
        return fake_info()

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        if model != builtin_anchor_model():
            return Measurement(Verdict.LOAD_FAILED, "no model")
        info = self.info()
        when = "2020-01-01T00:00:00"
        conditions = Conditions(info.fingerprint, info.model, info.runtime, "1", "cpu", spec.threads, when)
        return Measurement(Verdict.OK, samples_ms=(1.0,) * 6, conditions=conditions)

    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        if [array.shape for array in inputs] != [(1, 32, 32, 32)]:
            raise ModelError("other inputs are expected")
        return [inputs[0]]

    def close(self) -> None:
        pass


class OtherInfo(Good):
    def info(self) -> DeviceInfo:
        self.calls = getattr(self, "calls", 0) + 1
        return fake_info(model=f"phone {self.calls}")


class OtherDevice(Good):
    def info(self) -> DeviceInfo:
        return fake_info(model=f"phone {self.opened}")


class ClosedOnce(Good):
    def close(self) -> None:
        del self.handle

    def __init__(self) -> None:
        super().__init__()
        self.handle = 1


class RaisesForBadModels(Good):
    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        measurement = super().measure(model, spec)
        if not measurement.ok:
            raise ValueError("not a model")
        return measurement


class MeasuresAnything(Good):
    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        return super().measure(builtin_anchor_model(), spec)


class Wordless(Good):
    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        return replace(super().measure(model, spec), detail="")


class DiesOfBadModels(Good):
    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        if not getattr(self, "alive", True):
            return Measurement(Verdict.DEVICE_LOST, "dead")
        measurement = super().measure(model, spec)
        self.alive = measurement.ok
        return measurement


class RunsNothing(Good):
    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        raise ModelError("times only")


class RunAcceptsAnything(Good):
    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        return [np.zeros((1, 32, 32, 32))]


class RunRaises(Good):
    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        raise NotImplementedError


class RunIsBroken(Good):
    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        super().run(model, inputs)
        raise DeviceUnavailableError("gone")


class OtherOutput(Good):
    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        return [super().run(model, inputs)[0][0]]


class NoNumbers(Good):
    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        return [super().run(model, inputs)[0] + np.nan]


def with_info(**changes: Any) -> type[Good]:
    class Changed(Good):
        def info(self) -> DeviceInfo:
            return replace(super().info(), **changes)

    return Changed


def with_measurement(change: Callable[[Measurement], Any]) -> type[Good]:
    class Changed(Good):
        def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
            measurement = super().measure(model, spec)
            return change(measurement) if measurement.ok else measurement  # type: ignore[no-any-return]

    return Changed


def changed_conditions(**changes: Any) -> type[Good]:
    return with_measurement(lambda m: replace(m, conditions=replace(m.conditions, **changes)))


@pytest.mark.parametrize("good", [Good, RunsNothing])
def test_an_agent_that_keeps_its_promises_passes(good: type[Good]) -> None:
    check_device_agent(good)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (lambda: 1 / 0, "opening the device: ZeroDivisionError"),
        (with_info(runtime=""), r"`info\(\).runtime` must be a text, received ''"),
        (with_info(cores=0), r"`info\(\).cores` must be 1 or more, received 0"),
        (OtherInfo, "`info` changes from one call to the next"),
        (OtherDevice, "opened twice, the device has another fingerprint"),
        (ClosedOnce, "opening the device: AttributeError"),
        (RaisesForBadModels, "an empty file is a verdict, not an exception: ValueError"),
        (MeasuresAnything, "an empty file was measured"),
        (Wordless, "an empty file got the verdict load_failed without a word why"),
        (DiesOfBadModels, "a good one is no longer measured: dead"),
        (RunAcceptsAnything, "`run` accepted 0 inputs"),
        (RunRaises, r"`run` with wrong inputs must raise ModelError, raised NotImplementedError"),
        (RunIsBroken, "`run` must give outputs or raise ModelError, raised DeviceUnavailableError"),
        (OtherOutput, r"one output \[1, 32, 32, 32\], received \[\(32, 32, 32\)\]"),
        (NoNumbers, "outputs that are not finite"),
        (with_measurement(lambda m: 1.0), "`measure` must give a Measurement, received float"),
        (with_measurement(lambda m: replace(m, samples_ms=())), "a good model was not timed"),
        (with_measurement(lambda m: replace(m, samples_ms=(0.0,))), "samples must be above 0 ms, received 0.0"),
        (with_measurement(lambda m: replace(m, busy_s=-1.0)), "`busy_s` must not be negative"),
        (with_measurement(lambda m: replace(m, samples_ms=[1.0])), "does not survive being written to a journal"),
        (with_measurement(lambda m: replace(m, conditions=None)), "must come with its `conditions`"),
        (changed_conditions(runtime="another"), "`conditions` must name the device and the runtime"),
        (changed_conditions(device_fingerprint="another"), "`conditions` must name the device and the runtime"),
        (changed_conditions(threads=4), "`conditions.threads`: 1 asked, 4 said"),
    ],
)
def test_a_broken_promise_is_named(broken: Callable[[], DeviceAgent], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_device_agent(broken)
