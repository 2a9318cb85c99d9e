"""The suite for device agents notices every promise that is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_agents.api import BenchmarkSpec, Conditions, DeviceAgent, DeviceInfo, Measurement, Verdict
from device_agents.checks import Check
from device_agents.errors import DeviceUnavailableError, ModelError
from device_agents.probe_models import compute_model
from device_agents.scheme import DeviceRow, Scheme, Setup, SetupOption
from nas_edge.testing import check_device_agent, check_device_scheme
from tests.support.agents import fake_info


class Good(DeviceAgent):
    """A device that keeps every promise, without being one."""

    opened = 0

    def __init__(self) -> None:
        type(self).opened += 1

    def info(self) -> DeviceInfo:
        return fake_info()

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        if model != compute_model():
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
        return super().measure(compute_model(), spec)


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


def make_scheme(**changes: Any) -> Scheme:
    """A scheme that keeps every promise, with changes."""

    def run(rest: str, options: Mapping[str, str]) -> list[tuple[str, str]]:
        raise AssertionError("the suite sets nothing up")

    good = Scheme(
        name="toy",
        form="toy:NUMBER",
        what="a toy",
        open=lambda rest: Good(),
        problem=lambda rest: "" if rest.isdecimal() else "a number must follow toy:",
        list=lambda: [
            DeviceRow("toy:1", "toy", "Toy", "ready", "2 cores"),
            DeviceRow("toy:", "toy", "", "unavailable", "no other", present=False),
        ],
        doctor=lambda rest: [Check("battery", "warn", "low", "charge it")],
        setup=Setup(run, (SetupOption("tool", "FILE", "The tool."),), "toy:1 --tool hammer"),
        complete=lambda rest: ["1", "12"],
        check_host=lambda: [Check("toys", "pass", "all there")],
        clean=lambda rest, kept=["tool"]: [kept.pop()] if kept else [],  # type: ignore[misc]
    )
    return replace(good, **changes)


def failing(*_: Any) -> Any:
    raise DeviceUnavailableError("gone")


def row(address: str = "toy:1", state: str = "ready", detail: str = "2 cores") -> Callable[[], list[DeviceRow]]:
    return lambda: [DeviceRow(address, "toy", "", state, detail)]


def option(name: str = "tool", metavar: str = "FILE") -> Setup:
    return Setup(failing, (SetupOption(name, metavar, "The tool."),))


def test_a_scheme_that_keeps_its_promises_passes() -> None:
    check_device_scheme(make_scheme(), "1", ["", "x", "1:2"])
    nothing_else = Scheme("toy", "toy:", "a toy", lambda rest: Good())
    check_device_scheme(nothing_else, "")


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"name": "Toy"}, "`name` must be small letters, digits and dashes, received 'Toy'"),
        ({"form": "NUMBER"}, "`form` must begin with toy:, received 'NUMBER'"),
        ({"what": ""}, "`what` must be a few words, received ''"),
        ({"problem": lambda rest: "no"}, "`problem` refuses '1', the address of a device: no"),
        ({"problem": lambda rest: ""}, "`problem` finds nothing wrong with 'x'"),
        ({"problem": lambda rest: "" if rest == "1" else "a\nb"}, "`problem` must be one line"),
        ({"problem": lambda rest: "" if rest == "1" else 1 / 0}, "`problem` of 'x': ZeroDivisionError"),
        ({"list": failing}, "`list` says in a row what is wrong, and raises nothing: DeviceUnavailableError: gone"),
        ({"list": lambda: ["toy:1"]}, "`list` must give DeviceRows, received str"),
        ({"list": row("host:")}, "`list` gives 'host:', which is of another scheme"),
        ({"list": row("toy:x")}, "`list` gives 'toy:x', which `problem` refuses: a number must follow"),
        ({"list": row(state="")}, "`list` gives 'toy:1' without a `state`"),
        ({"list": row(state="offline", detail="")}, "`list` does not say why 'toy:1' is offline"),
        ({"complete": lambda rest: "12"}, "`complete` must give texts, received '12'"),
        ({"complete": lambda rest: [1]}, r"`complete` must give texts, received \[1\]"),
        ({"complete": lambda rest: ["toy:1"]}, "`complete` offers 'toy:1', which `problem` refuses"),
        ({"setup": option("Tool")}, "an option of `setup` must be small letters, digits and dashes"),
        ({"setup": option("help")}, "none of address, debug, help, received 'help'"),
        ({"setup": option(metavar="")}, "the option --tool of `setup` must say what it takes"),
        ({"setup": Setup(failing, (), "--tool x")}, "`setup.example` must begin with an address"),
        ({"open": failing}, "opening the device: DeviceUnavailableError: gone"),
        ({"open": lambda rest: nullcontext(1)}, "`open` must give a DeviceAgent, received int"),
        ({"open": lambda rest: with_info(kind="")()}, "says nothing of its kind"),
        ({"doctor": failing}, "`doctor` says in a check what is wrong, and raises nothing"),
        ({"doctor": lambda rest: []}, "`doctor` found nothing at all"),
        ({"doctor": lambda rest: ["ill"]}, "`doctor` must give Checks, received str"),
        ({"doctor": lambda rest: [Check("heat", "pass", "")]}, "`doctor` gives a check without a name"),
        ({"doctor": lambda rest: [Check("heat", "fail", "hot")]}, "`doctor` says of 'heat' that it is fail, not what"),
        ({"check_host": failing}, "`check_host` says in a check what is wrong, and raises nothing"),
        ({"check_host": lambda: [Check("usb", "warn", "missing")]}, "`check_host` says of 'usb' that it is warn"),
        ({"clean": failing}, "`clean` of a device that is there: DeviceUnavailableError: gone"),
        ({"clean": lambda rest: None}, "`clean` must give a line for each thing that was removed, received None"),
        ({"clean": lambda rest: "tool"}, "`clean` must give a line for each thing that was removed, received 'tool'"),
        ({"clean": lambda rest: ["a\nb"]}, "`clean` must give single lines, received"),
        ({"clean": lambda rest: ["tool"]}, "`clean` removes again what it has removed: tool"),
    ],
)
def test_a_promise_that_a_scheme_breaks_is_named(changes: dict[str, Any], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_device_scheme(make_scheme(**changes), "1", ["x"])


def test_what_is_no_scheme_is_named() -> None:
    with pytest.raises(AssertionError, match="a scheme must be a Scheme, received function"):
        check_device_scheme(lambda rest: Good(), "1")  # type: ignore[arg-type]
