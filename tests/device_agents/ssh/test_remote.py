"""Devices of another host, over OpenSSH's real server on loopback: the host is this one, and so is its CPU; its phone
is AOSP's real daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from device_agents import remote_agent
from device_agents.api import BenchmarkSpec, DeviceInfo
from device_agents.devices import clean_device, open_device, set_up_device
from device_agents.doctor import examine
from device_agents.errors import DeviceAddressError, DeviceError, DeviceUnavailableError, SpecError
from device_agents.floors import FloorKey, FloorStore, default_floors
from device_agents.pool import PoolSettings
from device_agents.probe_models import PROBE_MODELS, compute_model
from device_agents.ssh import board, remote
from device_agents.ssh.address import read_address
from device_agents.ssh.remote import RemoteSshAgent
from device_agents.verdicts import blames_candidate
from nas_edge.cli import nas_edge
from nas_edge.latency import device as device_source
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.networks.graph import NetworkSpec
from nas_edge.testing import check_device_agent, check_device_scheme
from tests.support import models
from tests.support.android.phone import Phone, start, write_overlay
from tests.support.android.phones import PIXEL
from tests.support.android.tools import disturbed_script, write_tool
from tests.support.faults import Bench
from tests.support.ssh import SshServer, serving

PROBES = {make() for make in PROBE_MODELS.values()}
SPEC = BenchmarkSpec(
    min_runs=3,
    min_duration_s=0.0,
    max_duration_s=0.1,
    max_risk=1.0,
    patience_s=0.0,
    max_relative_half_width=100.0,
    max_wait_share=9,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[SshServer]:
    with serving(tmp_path_factory.mktemp("ssh"), home) as server:
        yield server


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory, server: SshServer) -> Iterator[Phone]:
    """A phone that the host reaches; its tool, which that host has, says 1 ms."""
    phone = start(write_overlay(tmp_path_factory.mktemp("pixel") / "overlay", PIXEL.texts, PIXEL.files))
    tool = write_tool(tmp_path_factory.mktemp("tool"), disturbed_script())
    server.variables["NAS_EDGE_BENCHMARK_MODEL"] = str(tool)
    server.restart()
    yield phone
    phone.close()


def on(server: SshServer, device: str) -> str:
    return f"{server.address}&device={device}"


def served(server: SshServer) -> list[int]:
    """Process ids of the programs that serve this server's devices."""
    return [pid for pid in server.workers() if b"/agents-" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_the_cpu_of_another_host_conforms(server: SshServer) -> None:
    address = on(server, "host:")
    check_device_agent(lambda: open_device(address))
    with open_device(address) as agent, open_device("host:") as here:
        found = agent.info()
        assert found == dataclasses.replace(here.info(), address=address)  # its host is this machine
        assert found.fingerprint == here.info().fingerprint
        assert Path(board.LOCK).exists()  # as a board: who measures on that CPU has it alone
    assert not Path(board.LOCK).exists()
    wait_until(lambda: not server.workers())


def test_a_phone_of_another_host_is_the_phone_that_it_is_here(
    server: SshServer, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", server.variables["NAS_EDGE_BENCHMARK_MODEL"])
    with open_device(phone.address) as agent:
        here = agent.info()
    address = on(server, phone.address)
    with open_device(address) as agent:
        assert agent.info() == dataclasses.replace(here, address=address)
        assert agent.rounds_at_once == 3
        first, second = agent.measure_all([(compute_model(), SPEC), (models.conv_model(layers=1), SPEC)])
        assert first.samples_ms == second.samples_ms == (1.0,)
        assert first.conditions is not None
        assert first.conditions.device_fingerprint == here.fingerprint
        assert agent.cores("big") == (6, 7)
        # The lock lies on the phone, so it holds wherever the other one asks from.
        with open_device(phone.address) as other, pytest.raises(DeviceUnavailableError, match="is being measured by"):
            other.info()
        with pytest.raises(SpecError, match="delegate library 'no such' cannot be read"):
            agent.measure(compute_model(), SPEC.replace(delegate="external:no such"))
    with open_device(phone.address) as agent:
        agent.info()


def test_a_phone_is_free_for_its_own_agent_after_a_link_was_lost_without_a_word(
    server: SshServer, phone: Phone
) -> None:
    """What serves it there does not know yet, and still has the phone."""
    with open_device(on(server, phone.address)) as agent:
        agent.info()
        (left,) = served(server)
        os.kill(left, signal.SIGSTOP)  # so that it does not notice
        server.cut()
        with contextlib.suppress(DeviceUnavailableError):  # if the loss is noticed only now
            agent.info()
        agent.info()
        assert left not in served(server)
    wait_until(lambda: not served(server))


def wait_until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def large_enough(network: NetworkSpec, precision: str) -> bytes:
    return models.conv_model(layers=2, channels=8, side=8 + int(network.fingerprint[:4], 16) % 16)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.mark.parametrize("fault", ["kill", "hang", "cut"])
def test_a_search_goes_on_whatever_happens_to_what_serves_its_device(
    bench: Bench, server: SshServer, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_agent, "PING_S", 0.2)
    monkeypatch.setattr(remote_agent, "ANSWER_S", 3.0 if fault == "hang" else 60.0)
    struck: list[int] = []

    class Struck(RemoteSshAgent):
        asked = 0

        def measure_all(self, requests):  # type: ignore[no-untyped-def]
            self.asked += any(model not in PROBES for model, _ in requests)
            if self.asked == 3 and not struck:
                struck.extend(served(server))
                if fault == "cut":
                    server.cut()
                else:
                    os.kill(struck[0], signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
            return super().measure_all(requests)

    agent = Struck(read_address(on(server, "host:").removeprefix("ssh:")))
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(device_source, "tflite_model", large_enough))
        pool = PoolSettings(quarantine_s=0.5, lost_after_s=60.0)
        source = RetryingSource(stack.enter_context(DeviceSource([agent], "int8", SPEC, pool)))
        recorded = bench.recorded(tmp_path, bench.loop(source, steps=4), checkpoint_steps=2)
        recorded.run()
        trials = list(recorded.trials)
    assert struck
    assert [trial.step for trial in trials] == [step for step in range(1, 4) for _ in range(2)]
    assert not [trial.latency for trial in trials if trial.verdict is None or blames_candidate(trial.verdict)]
    assert all(trial.latency is not None and trial.latency.measurement is not None for trial in trials)
    wait_until(lambda: not server.workers())


def test_another_version_there_is_refused_with_the_fix(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    program = board.agents_program()
    outdated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program.data)) as present, zipfile.ZipFile(outdated, "w") as changed:
        for name in present.namelist():
            changed.writestr(name, present.read(name).replace(b"PROTOCOL_VERSION = ", b"PROTOCOL_VERSION = 100 + "))
    other = dataclasses.replace(program, file="agents-of-another-version.pyz", data=outdated.getvalue())
    monkeypatch.setattr(remote, "agents_program", lambda: other)
    said = r"speaks another protocol; expected version \d+, received 10\d; nas-edge devices clean 'ssh://.*', so that"
    with pytest.raises(DeviceUnavailableError, match=said):
        open_device(on(server, "host:"))
    wait_until(lambda: not server.workers())


def test_what_is_wrong_there_is_told_as_it_is_there_and_what_to_do_as_it_is_here(
    server: SshServer, tmp_path: Path
) -> None:
    address = on(server, "adb:")
    with open_device(address) as agent, pytest.raises(DeviceUnavailableError) as caught:
        agent.info()  # there is no USB here
    with open_device("adb:") as agent, pytest.raises(DeviceUnavailableError) as expected:
        agent.info()
    assert (type(caught.value), caught.value.what) == (type(expected.value), expected.value.what)
    assert caught.value.fix is not None
    assert "pip install" not in caught.value.fix
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -c ] && echo \'' + OLD + "'\n")
    old.chmod(0o755)
    plain = server.address.partition("?")[0]
    with pytest.raises(
        DeviceUnavailableError, match=r"host of ssh.*too old; expected 3\.10 or later, received 3\.9\.2"
    ):
        open_device(f"{plain}?python={old}&device=host:")


OLD = (
    '{"python": "/usr/bin/python3", "version": [3, 9, 2], "machine": "aarch64", "numpy": true, "runtime": "", '
    '"missing": [], "free_bytes": 1, "file": "/x", "has_program": true}'
)


@pytest.mark.slow
def test_devices_of_a_host_are_listed_looked_at_set_up_and_cleaned(
    server: SshServer, phone: Phone, tmp_path: Path
) -> None:
    listed = CliRunner().invoke(nas_edge, ["devices", "--at", server.address])
    assert listed.exit_code == 0, listed.output
    assert on(server, "host:") in listed.output
    assert f"devices setup '{on(server, 'adb:')}'" in " ".join(listed.output.split())

    address = on(server, phone.address)
    checks = {check.name: check for check in examine(address, watch_s=0.0)}
    assert list(checks)[:4] == ["host connection", "host python", "host storage", "host program"]
    assert {"host kept there", "connection", "battery", "measuring"} <= set(checks)
    assert not [check for check in checks.values() if check.state == "fail"]
    assert f"devices clean '{address}'" in checks["kept on it"].found

    with pytest.raises(SpecError, match="--benchmark-model is not an option"):
        set_up_device(on(server, "host:"), {"benchmark-model": "x"})
    with pytest.raises(SpecError, match="no-such-file cannot be read"):
        set_up_device(address, {"benchmark-model": "no-such-file"})
    tool = tmp_path / "no-tool"
    tool.write_text("a text")
    # It is sent, and refused by the host that would put it on the phone.
    with pytest.raises(DeviceUnavailableError, match="no-tool is not a benchmark_model for this phone"):
        set_up_device(address, {"benchmark-model": str(tool)})
    assert dict(set_up_device(on(server, "host:")))["host"] == server.address

    with open_device(address) as agent:
        info = agent.info()
    FloorStore(default_floors()).keep(FloorKey.of(info, SPEC), {"compute": 1.0})
    lines = clean_device(address)
    assert lines is not None
    assert any("floor" in line for line in lines)
    assert any(f"of {server.address}" in line for line in lines)
    assert clean_device(address) == []


@pytest.mark.slow
def test_the_scheme_conforms_with_a_device_of_another_host(server: SshServer) -> None:
    from device_agents.schemes import find_scheme

    check_device_scheme(
        find_scheme("ssh"),
        on(server, "host:").removeprefix("ssh:"),
        malformed=["//h?device=", "//h?device=nothing:", "//h?device=host:x", "//h?device=ssh://i", "//h?device=adb"],
    )


def test_what_it_says_of_itself_is_not_believed_blindly(server: SshServer) -> None:
    with open_device(on(server, "host:")) as agent:
        assert isinstance(agent, RemoteSshAgent)
        first = agent.info()
        agent._first = dataclasses.replace(first, model="another")
        with pytest.raises(DeviceUnavailableError, match=r"Another device answers at .*expected another, received"):
            agent.info()
    assert isinstance(first, DeviceInfo)


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ("", "device= must be an address"),
        ("adb", "device= must be an address"),
        ("abd:", "did you mean adb:"),
        ("coral:9x", "device=coral:9x: 'usb', 'pci' or nothing"),
        ("ssh://other", "ProxyJump"),
        ("host:&accelerator=edgetpu", "only one may be given"),
    ],
)
def test_what_is_wrong_with_the_address_of_a_device_there_is_told(device: str, problem: str) -> None:
    with pytest.raises(DeviceAddressError, match="Bad device address") as caught:
        open_device(f"ssh://lab?device={device}")
    assert problem in str(caught.value)
    assert isinstance(caught.value, DeviceError)
