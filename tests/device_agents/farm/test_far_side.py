"""An agent and its far side, without Ray: what crosses, what is kept there, and what happens when that is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_agents.api import BenchmarkSpec, DeviceInfo, Measurement, Verdict
from device_agents.devices import list_devices, open_device
from device_agents.errors import DeviceAddressError, DeviceUnavailableError, ModelError, SpecError, WorkerError
from device_agents.far_side import FarSide
from device_agents.farm.address import FarmAddress, address_problem, read_address
from device_agents.farm.agent import FarmAgent
from device_agents.farm.link import FarmLink
from device_agents.farm.messages import (
    SPEC_FIELDS,
    describe_error,
    pack,
    read_error,
    read_measurement,
    spec_to_json,
    unpack_answer,
)
from device_agents.host import HostAgent
from device_agents.worker.frames import Frame
from nas_edge.testing import check_device_agent
from tests.support.agents import FunctionAgent, fake_info, steady

ADDRESS = FarmAddress("bench-1", "fake:1")


class NearLink(FarmLink):
    """A link whose far side is in this process."""

    def __init__(self, far_side: FarSide) -> None:
        super().__init__()
        self.far_side = far_side
        self.asked: list[tuple[str, int]] = []  # what was asked, with how many bytes

    def open(self, address: FarmAddress) -> None:
        pass

    def ask(self, header: Mapping[str, Any], blobs: Sequence[bytes], limit_s: float) -> Frame:
        request = pack(header, blobs)
        self.asked.append((str(header["do"]), len(request)))
        return unpack_answer(self.far_side.answer(request))


class Device(FunctionAgent):
    """Says how often it was given examples."""

    examples_taken = 0

    def take_examples(self, examples: np.ndarray) -> str:
        self.examples_taken += 1
        return f"{int(examples.sum()):016x}"


def test_a_real_device_conforms_through_it() -> None:
    check_device_agent(lambda: FarmAgent(ADDRESS, NearLink(FarSide("host:", lambda _: HostAgent()))))


def far_side_of(agent: FunctionAgent) -> FarSide:
    return FarSide("fake:1", lambda _: agent)


def test_answers_come_in_the_order_asked_and_models_travel_once() -> None:
    link = NearLink(far_side_of(FunctionAgent(lambda model, spec: steady(float(len(model)) * spec.threads))))
    agent = FarmAgent(ADDRESS, link)
    large, small, one, two = b"x" * 100_000, b"y" * 10, BenchmarkSpec(), BenchmarkSpec(threads=2)
    requests = [(large, one), (small, two), (large, two), (small, one), (large, one)]
    assert [m.latency_ms for m in agent.measure_all(requests)] == [100_000, 20, 200_000, 10, 100_000]
    first_bytes = link.asked[-1][1]
    assert [m.latency_ms for m in agent.measure_all(requests)] == [100_000, 20, 200_000, 10, 100_000]
    assert first_bytes > 100_000 > link.asked[-1][1]


def test_only_the_models_of_late_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.farm.agent._KEPT_BYTES", 250)
    far_side = far_side_of(FunctionAgent(lambda model, spec: steady(float(model[0]))))
    agent = FarmAgent(ADDRESS, NearLink(far_side))
    models = [bytes([value]) * 100 for value in (1, 2, 3, 1, 2)]
    assert [agent.measure(model, BenchmarkSpec()).latency_ms for model in models] == [1, 2, 3, 1, 2]
    assert sum(map(len, far_side._models.values())) <= 250


def test_a_far_side_that_was_started_again_is_given_what_the_first_one_had() -> None:
    devices = [Device(lambda model, spec: steady(float(len(model)))) for _ in range(2)]
    link = NearLink(far_side_of(devices[0]))
    agent = FarmAgent(ADDRESS, link)
    digest = agent.take_examples(np.ones(7, np.float32))
    assert agent.measure(b"model", BenchmarkSpec(inputs=digest)).latency_ms == 5
    link.far_side = far_side_of(devices[1])
    assert agent.measure(b"model", BenchmarkSpec(inputs=digest)).latency_ms == 5
    assert (devices[1].examples_taken, digest) == (1, f"{7:016x}")


def test_another_device_at_the_same_address_is_refused() -> None:
    link = NearLink(far_side_of(FunctionAgent(lambda model, spec: steady(1.0))))
    agent = FarmAgent(ADDRESS, link)
    link.far_side = far_side_of(FunctionAgent(lambda model, spec: steady(1.0), fake_info(model="tablet")))
    with pytest.raises(DeviceUnavailableError, match=r"Another device .* expected phone .* received tablet"):
        agent.info()


def test_what_goes_wrong_there_is_the_same_error_here() -> None:
    for error in (
        ModelError("no kernel", "out_of_memory", expected="less"),
        SpecError("no such core", received="7", fix="name another"),
        DeviceUnavailableError("unplugged"),
    ):

        def fail(model: bytes, spec: BenchmarkSpec, error: Exception = error) -> Measurement:
            raise error

        with pytest.raises(type(error)) as found:
            FarmAgent(ADDRESS, NearLink(far_side_of(FunctionAgent(fail)))).measure(b"", BenchmarkSpec())
        assert vars(found.value) == vars(error)
        assert str(found.value) == str(error)


def test_a_bug_there_is_a_device_error_here() -> None:
    def fail(model: bytes, spec: BenchmarkSpec) -> Measurement:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(WorkerError, match="What serves fake:1 failed: division by zero"):
        FarmAgent(ADDRESS, NearLink(far_side_of(FunctionAgent(fail)))).measure(b"", BenchmarkSpec())


@pytest.mark.parametrize("request_", [b"", b"junk", pack({"do": "what?"}), pack({"do": "measure"})])
def test_a_malformed_request_is_answered(request_: bytes) -> None:
    answer = far_side_of(FunctionAgent(lambda model, spec: steady(1.0))).answer(request_)
    with pytest.raises(WorkerError):
        unpack_answer(answer)


def test_a_host_is_this_machine_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    info: DeviceInfo = replace(fake_info(), measures_on_host=True)
    link = NearLink(far_side_of(FunctionAgent(lambda model, spec: steady(1.0), info)))
    assert FarmAgent(ADDRESS, link).info().measures_on_host
    monkeypatch.setattr("device_agents.far_side.running_machine", lambda: "another")
    assert not FarmAgent(ADDRESS, link).info().measures_on_host


# Other versions of this package at the other end.


def test_an_older_far_side_is_not_told_settings_it_does_not_know() -> None:
    older = [name for name in SPEC_FIELDS if name != "max_risk"]
    data = spec_to_json(BenchmarkSpec(threads=2), older, "bench-1")
    assert (data["threads"], "max_risk" in data) == (2, False)
    assert BenchmarkSpec.from_json(data) == BenchmarkSpec(threads=2)
    with pytest.raises(SpecError, match=r"bench-1 is older .* max_risk.*update it there"):
        spec_to_json(BenchmarkSpec(max_risk=0.5), older, "bench-1")


def test_a_newer_far_side_may_say_more() -> None:
    measurement = steady(2.0)
    assert read_measurement({**measurement.to_json(), "joules": 3}) == measurement
    error = read_error({**describe_error(ModelError("odd", "run_failed")), "error": "OddModelError", "since": "3.0"})
    assert str(error) == "odd"


def test_nothing_is_made_up_for_what_is_missing() -> None:
    data = steady(2.0).to_json()
    del data["samples_ms"]
    with pytest.raises(WorkerError, match="samples_ms"):
        read_measurement(data)
    assert steady(2.0).verdict is Verdict.OK


# Addresses.


@pytest.mark.parametrize(
    ("rest", "address"),
    [
        ("bench-1/adb:R58M", FarmAddress("bench-1", "adb:R58M")),
        ("10.0.0.7/host:", FarmAddress("10.0.0.7", "host:")),
        ("b/ssh://pi@board:22?python=/usr/bin/python3", FarmAddress("b", "ssh://pi@board:22?python=/usr/bin/python3")),
        ("//10.0.0.1/b/adb://10.0.0.9:5555", FarmAddress("b", "adb://10.0.0.9:5555", "10.0.0.1:6379")),
        ("//[fd00::1]:7000/b/host:", FarmAddress("b", "host:", "[fd00::1]:7000")),
    ],
)
def test_addresses(rest: str, address: FarmAddress) -> None:
    assert read_address(rest) == address
    assert read_address(address.rest) == address


@pytest.mark.parametrize(
    "rest", ["", "host:", "bench-1", "bench-1/", "/host:", "a b/host:", "//", "//x", "b/farm:c/host:"]
)
def test_malformed_addresses(rest: str) -> None:
    assert address_problem(rest)


def test_without_ray_there_is_no_farm_and_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.farm.scheme.find_spec", lambda name: None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert [row for row in list_devices() if row.kind == "farm"] == []
    with pytest.raises(DeviceAddressError, match=r"Ray, .* is not installed; run: pip install 'nas-edge\[farm\]'"):
        open_device("farm:bench-1/host:")
