"""The agent end to end: the real daemon, and the real benchmark_model where it is at hand, else a stand-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.benchmark_model import BLOCKS
from device_agents.android.state import CoolSettings
from device_agents.api import BenchmarkSpec, Verdict
from device_agents.devices import open_device
from device_agents.errors import BenchFailedError, DeviceAddressError, DeviceUnavailableError, ModelError, SpecError
from device_agents.host import HostAgent
from device_agents.pool import DevicePool, PoolSettings
from nas_edge.testing import check_device_agent
from tests.support import models
from tests.support.android.agents import Connect, connect, fast_spec
from tests.support.android.phone import Phone, PhoneFactory, files_of, start, write_overlay
from tests.support.android.phones import PIXEL, TWO_CORES
from tests.support.android.proxy import Proxy
from tests.support.android.tools import (
    NO_BUNDLE,
    canned_script,
    install_real_bundle,
    picky_script,
    real_bundle,
    stand_in_script,
    transcript,
    write_tool,
)
from tests.support.data import CACHE
from tests.support.requirements import missing

__all__ = ["connect", "fast_spec"]  # fixtures


def custom_op_model() -> bytes:
    writer = models.GraphWriter()
    one, other = writer.tensor("x", (1, 8)), writer.tensor("y", (1, 8))
    writer.op(models.OP.CUSTOM, [one], [other], custom_code=b"edgetpu-custom-op")
    return writer.pack([one], [other])


# With a tool that runs models


@pytest.fixture(scope="module", params=["real", "stand-in"])
def measuring(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AndroidAgent]:
    folder = tmp_path_factory.mktemp("measuring")
    overlay = write_overlay(folder / "overlay", PIXEL.texts, {**TWO_CORES, "sys/devices/system/cpu/possible": "0-1\n"})
    bundle = real_bundle(CACHE)
    if request.param == "real" and bundle is None:
        missing("benchmark_model", NO_BUNDLE)
    if request.param == "real" and bundle:
        tool = install_real_bundle(bundle, overlay)
    else:
        tool = write_tool(folder, stand_in_script())
    phone = start(overlay, host=request.param == "stand-in")
    with AndroidAgent(AdbShellTransport.tcp("127.0.0.1", phone.port), AndroidSettings(tool=tool)) as agent:
        yield agent
    phone.close()


def test_a_model_is_measured(measuring: AndroidAgent, fast_spec: BenchmarkSpec) -> None:
    measurement = measuring.measure(models.conv_model(), fast_spec)
    assert measurement.verdict is Verdict.OK, measurement.detail
    assert len(measurement.samples_ms) >= 6
    assert min(measurement.samples_ms) > 0
    assert measurement.init_ms
    assert measurement.first_inference_ms
    assert measurement.warmup_runs == fast_spec.warmup_min_runs - 1
    assert measurement.peak_memory_bytes
    assert measurement.busy_s > 0
    conditions = measurement.conditions
    assert conditions is not None
    assert (conditions.device_model, conditions.runtime) == ("Google Pixel 6 Pro", "benchmark_model")
    assert conditions.temperature_c_before == 44.800003


def test_the_agent_conforms(new_phone: PhoneFactory, connect: Connect, fast_spec: BenchmarkSpec) -> None:
    phone = new_phone(host=True)
    check_device_agent(lambda: connect(port=phone.port, script=stand_in_script()), spec=fast_spec)


def test_outputs_are_those_of_the_host(measuring: AndroidAgent, agent: HostAgent) -> None:
    model = models.conv_model()
    inputs = [np.random.default_rng(0).random((1, 32, 32, 32), dtype=np.float32)]
    for ours, theirs in zip(measuring.run(model, inputs), agent.run(model, inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="Wrong number of inputs; expected 1, received 0"):
        measuring.run(model, [])
    with pytest.raises(ModelError, match="Wrong input"):
        measuring.run(model, [np.zeros((2, 2), np.float32)])


def test_a_model_that_does_not_load_is_a_verdict(measuring: AndroidAgent, fast_spec: BenchmarkSpec) -> None:
    measurement = measuring.measure(custom_op_model(), fast_spec)
    assert measurement.verdict is Verdict.LOAD_FAILED
    assert "custom" in measurement.detail


def test_operators_are_profiled_or_it_is_said_why_not(measuring: AndroidAgent, fast_spec: BenchmarkSpec) -> None:
    measurement = measuring.measure(models.conv_model(), fast_spec.replace(profile_ops=True))
    assert measurement.profile or measurement.profile_note
    if measurement.profile:
        assert sum(row.share for row in measurement.profile) == pytest.approx(1, abs=0.02)


# Around the tool


def test_nothing_but_the_tool_is_left_on_the_phone(connect: Connect, phone: Phone, fast_spec: BenchmarkSpec) -> None:
    agent = connect()
    assert agent.measure(models.conv_model(), fast_spec).ok
    assert [name for name in files_of(phone) if "run-" not in name and "/lock/" not in name] == []
    agent.close()
    assert files_of(phone) == []


def test_the_tool_is_pushed_once(connect: Connect, phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect() as agent:
        agent.info()
    pushed: list[str] = []
    push = AdbShellTransport.push
    monkeypatch.setattr(AdbShellTransport, "push", lambda self, data, path, mode=0: pushed.append(path))
    connect().info()
    assert pushed == []
    monkeypatch.setattr(AdbShellTransport, "push", push)


def test_samples_are_the_blocks_and_conditions_say_where(connect: Connect, fast_spec: BenchmarkSpec) -> None:
    measurement = connect("quantiles").measure(models.conv_model(), fast_spec.replace(cores=(0,)))
    assert measurement.samples_ms == (0.853,) * BLOCKS
    assert measurement.conditions is not None
    assert measurement.conditions.cores == (0,)
    assert measurement.conditions.governor == "schedutil"
    assert measurement.conditions.inputs == "random values"


def test_cores_that_do_not_exist_are_the_callers_mistake(connect: Connect, fast_spec: BenchmarkSpec) -> None:
    with pytest.raises(SpecError, match="; choose others"):
        connect().measure(models.conv_model(), fast_spec.replace(cores=(4000,)))


@pytest.mark.parametrize(
    ("printed", "exit_code", "verdict"),
    [
        ("x", 139, Verdict.LOAD_FAILED),
        ("INFO: count=1 curr=3", 0, Verdict.RUN_FAILED),
        ("WARN: Unconsumed cmdline flags: --num_runs=1", 0, Verdict.FALLBACK),
    ],
)
def test_what_the_tool_did_not_do_is_no_number(
    connect: Connect, fast_spec: BenchmarkSpec, printed: str, exit_code: int, verdict: Verdict
) -> None:
    agent = connect(script=picky_script(printed, transcript("tf_2_14"), exit_code=exit_code))
    measurement = agent.measure(models.conv_model(), fast_spec)
    assert measurement.verdict is verdict
    assert measurement.latency_ms is None
    assert measurement.attempts == 2
    # A tool that does no better with a model that is known to work is the bench's fault.
    agent.close()
    broken = connect(script=canned_script(printed, exit_code=exit_code))
    with pytest.raises(BenchFailedError, match=r"benchmark_model .* does not run the anchor model"):
        broken.measure(models.conv_model(), fast_spec)
    with pytest.raises(BenchFailedError, match="benchmark_model"):
        broken.info()


def test_a_tool_that_hangs_is_a_timeout_and_is_ended(connect: Connect, phone: Phone, fast_spec: BenchmarkSpec) -> None:
    agent = connect(script=picky_script("x", transcript("tf_2_14"), seconds=64.25))
    measurement = agent.measure(models.conv_model(), fast_spec.replace(timeout_s=0.5))
    assert measurement.verdict is Verdict.TIMEOUT
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        assert "64.25" not in link.run(["ps", "-A", "-o", "ARGS"]).output


def test_files_that_are_no_models_are_not_sent(connect: Connect, fast_spec: BenchmarkSpec) -> None:
    assert connect().measure(b"nonsense" * 10, fast_spec).verdict is Verdict.LOAD_FAILED


def test_something_else_than_the_tool_is_refused(connect: Connect) -> None:
    with pytest.raises(
        DeviceUnavailableError, match=r"not a benchmark_model for this phone.*nas-edge devices setup adb:"
    ):
        connect(script="#!/system/bin/sh\necho hello\n").info()


def test_without_a_tool_it_is_said_how_to_get_one(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_EDGE_BENCHMARK_MODEL", raising=False)
    with open_device(phone.address) as agent, pytest.raises(DeviceUnavailableError, match="ABI arm64-v8a"):
        agent.info()


def test_a_hot_phone_is_waited_for_and_then_given_up(
    tmp_path: Path, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    texts = dict(PIXEL.texts)
    texts["dumpsys-thermalservice"] = texts["dumpsys-thermalservice"].replace("Status: 0", "Status: 3")
    phone = start(write_overlay(tmp_path / "hot", texts, PIXEL.files))
    try:
        agent = connect(port=phone.port, cool=CoolSettings(wait_s=0.2, poll_s=0.01))
        measurement = agent.measure(models.conv_model(), fast_spec)
        assert (measurement.verdict, "severe" in measurement.detail) == (Verdict.THROTTLED, True)
        with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
            link.run(["sed", "-i", "s/Status: 3/Status: 0/", "/phone/dumpsys-thermalservice"])
        assert agent.measure(models.conv_model(), fast_spec).ok
        agent.close()
    finally:
        phone.close()


def test_heat_during_the_measurement_is_throttling(tmp_path: Path, connect: Connect, fast_spec: BenchmarkSpec) -> None:
    phone = start(write_overlay(tmp_path / "warming", PIXEL.texts, PIXEL.files))
    try:
        heat = "sed -i 's/Thermal Status: 0/Thermal Status: 2/' /phone/dumpsys-thermalservice\n"
        script = canned_script(transcript("tf_2_14")).replace("exit 0\n", f"{heat}exit 0\n")
        agent = connect(port=phone.port, script=script)
        measurement = agent.measure(models.conv_model(), fast_spec)
        assert (measurement.verdict, "rose to moderate" in measurement.detail) == (Verdict.THROTTLED, True)
        agent.close()
    finally:
        phone.close()


def test_what_a_crashed_run_left_is_removed_at_the_next_connect(
    new_phone: PhoneFactory, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    phone = new_phone()
    crashed = connect(port=phone.port, seconds=65.25)
    thread = threading.Thread(target=lambda: crashed.measure(models.conv_model(), fast_spec), daemon=True)
    thread.start()
    while not any("model-" in name for name in files_of(phone)):
        time.sleep(0.02)
    phone.order("cut")
    thread.join(60)
    assert files_of(phone)
    crashed.close()
    with connect(port=phone.port) as agent:
        assert agent.measure(models.conv_model(), fast_spec).ok
    assert files_of(phone) == []


def test_a_candidate_costs_few_round_trips(connect: Connect, phone: Phone, fast_spec: BenchmarkSpec) -> None:
    # Weights that do not pack, and as much as a packet takes.
    model = models.conv_model(layers=1, channels=84, side=4)
    assert 248 << 10 < len(model) <= 256 << 10
    with Proxy(phone.port, delay_s=0.02) as proxy:
        agent = connect(port=proxy.port)
        agent.info()
        trips = []
        for seen in (time.monotonic(), 0.0):  # just now; so long ago that the state has to be read again
            agent._seen = agent._seen and (seen, agent._seen[1])
            before = proxy.round_trips
            assert agent.measure(model + bytes(len(trips)), fast_spec).ok
            time.sleep(0.05)  # what ends the stream is on its way
            trips.append(proxy.round_trips - before)
        agent.close()
    assert max(trips) <= 5, trips


# Addresses


@pytest.mark.parametrize(
    "address", ["adb://", "adb://host:99999", "adb://h/x", "adb:a b", "adb://h:0", "adb:;id", "adb://u@h"]
)
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(DeviceAddressError, match="an Android phone"):
        open_device(address)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("adb://10.0.0.7", "adb://10.0.0.7:5555"),
        ("adb://[::1]:7", "adb://[::1]:7"),
        ("adb:", "adb:"),
        ("adb:0A1B2C", "adb:0A1B2C"),
    ],
)
def test_addresses_open_phones(address: str, shown: str) -> None:
    with open_device(address) as agent:
        assert isinstance(agent, AndroidAgent)
        assert agent._transport.address == shown


# In a pool


def test_a_killed_daemon_costs_a_retry_and_no_candidate(
    new_phone: PhoneFactory, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    phone = new_phone()
    agent = connect(port=phone.port, seconds=0.2)
    settings = PoolSettings(quarantine_s=0.2, lost_after_s=30.0, max_faults=2)
    with DevicePool([agent], settings) as pool:
        futures = [pool.submit(models.conv_model(), fast_spec) for _ in range(6)]
        while not any("/model-" in name for name in files_of(phone)):
            time.sleep(0.02)
        phone.order("kill")
        time.sleep(0.5)
        phone.order("start")
        measurements = [future.result(60) for future in futures]
        assert [m.verdict for m in measurements] == [Verdict.OK] * 6, [m.detail for m in measurements]
        (status,) = pool.status()
        assert status.measured == 6
        assert status.faults >= 1
    assert files_of(phone) == []


def test_a_lost_phone_hands_its_candidate_to_another_of_its_kind(
    new_phone: PhoneFactory, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    one, other = new_phone(), new_phone()
    script = canned_script(transcript("tf_2_14"), 0.02)
    agents = [connect(port=phone.port, script=script) for phone in (one, other)]
    with DevicePool(agents, PoolSettings(quarantine_s=30.0, max_faults=1)) as pool:
        assert len(pool.kinds) == 1
        futures = [pool.submit(models.conv_model(), fast_spec) for _ in range(6)]
        one.order("kill")
        assert [future.result(60).verdict for future in futures] == [Verdict.OK] * 6
        assert sum(status.measured for status in pool.status()) == 6
        assert "quarantined" in {status.state for status in pool.status()}


def test_another_phone_at_the_same_address_is_not_taken_for_the_first(
    new_phone: PhoneFactory, connect: Connect
) -> None:
    phone = new_phone()
    agent = connect(port=phone.port)
    agent.info()
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.run(["sed", "-i", "s/Pixel 6 Pro/Pixel 7/", "/phone/getprop"])
    phone.order("cut")
    with pytest.raises(DeviceUnavailableError, match="Another phone"):
        agent.info()
