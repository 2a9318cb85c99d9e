"""Boards over OpenSSH's real server on loopback: runtime, worker and link are real, the board is this host."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from device_agents import ssh_connection
from device_agents.api import BenchmarkSpec, Verdict
from device_agents.devices import clean_device, open_device, set_up_device
from device_agents.errors import DeviceUnavailableError, SpecError
from device_agents.floors import FloorKey, FloorStore, default_floors
from device_agents.pool import DevicePool, PoolSettings
from device_agents.ssh import board as board_module
from device_agents.ssh import board_side, doctor
from device_agents.ssh.address import read_address
from device_agents.ssh.agent import SshAgent
from device_agents.ssh.board import Board, worker_program
from device_agents.ssh.channel import SshChannel
from tests.support import models
from tests.support.ssh import SshServer, serving

SPEC = BenchmarkSpec(
    min_runs=3, min_duration_s=0.0, max_duration_s=0.1, max_relative_half_width=100.0, max_wait_share=9
)
MODEL = models.conv_model(layers=2, channels=8, side=16)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[SshServer]:
    with serving(tmp_path_factory.mktemp("ssh"), home) as server:
        yield server


@pytest.fixture
def agent(server: SshServer) -> Iterator[SshAgent]:
    with open_device(server.address) as agent:
        assert isinstance(agent, SshAgent)
        yield agent


def test_a_board_says_what_it_is_and_measures(agent: SshAgent, server: SshServer) -> None:
    info = agent.info()
    assert (info.kind, info.address) == ("ssh", server.address)
    assert info.cores == len(os.sched_getaffinity(0))
    measurement = agent.measure(MODEL, SPEC)
    assert measurement.samples_ms
    assert measurement.verdict in (Verdict.OK, Verdict.UNSTEADY)
    first, second = agent.measure_all([(MODEL, SPEC), (models.conv_model(layers=1, channels=4, side=8), SPEC)])
    assert first.samples_ms
    assert second.samples_ms


def test_models_are_packed_on_their_way_and_visited_side_by_side(
    agent: SshAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    write = SshChannel.write
    monkeypatch.setattr(SshChannel, "write", lambda self, data: (sent.append(len(data)), write(self, data))[1])
    # What cannot be visited would be measured on its own.
    monkeypatch.setattr(agent, "measure", lambda model, spec: pytest.fail("not visited"))
    large = models.conv_model(layers=4, channels=64, side=8)
    first, second = agent.measure_all([(large, SPEC), (MODEL, SPEC)])
    assert first.samples_ms
    assert second.samples_ms
    assert agent.packs_models
    assert max(sent) < len(large)


def test_outputs_come_back_whole(agent: SshAgent) -> None:
    data = np.random.default_rng(0).random((1, 16, 16, 8), np.float32)
    inputs = [data]
    with open_device("host:") as host:
        (expected,) = host.run(MODEL, inputs)
    (found,) = agent.run(MODEL, inputs)
    np.testing.assert_array_equal(found, expected)


def test_what_is_broken_is_the_models_fault(agent: SshAgent) -> None:
    found = agent.measure(b"no model", SPEC)
    assert found.verdict is Verdict.LOAD_FAILED


def test_the_worker_is_copied_once_and_older_ones_are_removed(server: SshServer) -> None:
    name, data = worker_program().file, worker_program().data
    server.cache.mkdir(parents=True, exist_ok=True)
    (server.cache / "worker-0123456789abcdef.pyz").write_bytes(b"an older one")
    (server.cache / name).write_bytes(data[:-1])  # of a copy that was broken off in some way
    with open_device(server.address) as agent:
        agent.info()
        assert (server.cache / name).read_bytes() == data
        assert [path.name for path in server.cache.glob("worker-*")] == [name]
        written = (server.cache / name).stat().st_mtime_ns
    assert stat.S_IMODE(server.cache.parent.stat().st_mode) & 0o022 == 0
    with open_device(server.address) as agent:
        agent.info()
    assert (server.cache / name).stat().st_mtime_ns == written


def test_the_workers_file_is_the_same_each_time_it_is_made() -> None:
    again = subprocess.run(
        [sys.executable, "-c", "from device_agents.ssh.board import worker_program; print(worker_program().file)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout.strip() == worker_program().file


def test_nothing_runs_on_when_the_agent_is_closed(server: SshServer) -> None:
    with open_device(server.address) as agent:
        agent.info()
        assert len(server.workers()) == 1
    wait_until(lambda: not server.workers())
    assert not Path(board_module.LOCK).exists()


def test_a_board_in_use_is_refused_and_its_user_named(agent: SshAgent, server: SshServer) -> None:
    agent.info()
    program = (
        "import sys; from device_agents.ssh import board; board.LOCK = sys.argv[2]\n"
        "from device_agents.devices import open_device\n"
        "open_device(sys.argv[1]).info()"
    )
    command = [sys.executable, "-c", program, server.address, board_module.LOCK]
    other = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert other.returncode == 1
    assert f"process {os.getpid()}" in other.stderr


def test_a_worker_that_an_earlier_session_left_is_ended(server: SshServer) -> None:
    with open_device(server.address) as agent:
        agent.info()
        name = worker_program().file
        # As after a cable was pulled out: its input never ends.
        left = subprocess.Popen([sys.executable, str(server.cache / name)], stdin=subprocess.PIPE)
        (server.cache / "pid").write_text(str(left.pid))
        agent._worker.close()  # type: ignore[union-attr]
        agent.info()
        assert left.wait(10) == -signal.SIGKILL
        assert left.stdin is not None
        left.stdin.close()


def test_a_process_that_has_the_number_of_an_old_worker_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = tmp_path / "pid"
    record.write_text(str(other.pid))
    assert not board_side.end_leftover(record)
    assert other.poll() is None
    other.communicate(b"\n")


@pytest.mark.parametrize(
    ("disturb", "mend", "said"),
    [
        (SshServer.distrust, SshServer.trust, "host key of .* is not known.*compare the fingerprint"),
        (SshServer.change_key, SshServer.trust, "is not the one in known_hosts.*ssh-keygen -R '\\[127.0.0.1\\]"),
        (SshServer.revoke, SshServer.allow, "refuses the login.*ssh-copy-id"),
        (SshServer.stop, SshServer.start, "does not answer.*see whether `ssh -p"),
    ],
)
def test_what_keeps_from_connecting_is_told_with_the_fix(
    server: SshServer, disturb: Callable[[SshServer], None], mend: Callable[[SshServer], None], said: str
) -> None:
    disturb(server)
    try:
        with open_device(server.address) as agent, pytest.raises(DeviceUnavailableError, match=said):
            agent.info()
    finally:
        mend(server)
    with open_device(server.address) as agent:
        agent.info()


def refused(address: str, said: str) -> None:
    """Opening the device fails and says so."""
    with open_device(address) as agent, pytest.raises(DeviceUnavailableError, match=said):
        agent.info()


def test_a_python_that_is_missing_or_lacks_a_runtime_is_told(server: SshServer, tmp_path: Path) -> None:
    plain = server.address.partition("?")[0]
    refused(f"{plain}?python=no-such-python", "has no Python 'no-such-python'")
    refused(f"{plain}?python={bare_python(tmp_path)}", r"no NumPy and no TFLite runtime.*devices setup 'ssh")
    old = tmp_path / "old"
    old.write_text(f"#!/bin/sh\nshift\nshift\nprintf '%s' '{json.dumps(OLD)}'\n")
    old.chmod(0o755)
    refused(f"{plain}?python={old}", r"too old.*3\.7 or later.*3\.5\.3")


OLD = {
    "python": "/usr/bin/python3",
    "version": [3, 5, 3],
    "machine": "armv7l",
    "numpy": True,
    "runtime": "tflite_runtime",
    "missing": [],
    "free_bytes": 1,
    "file": "/x",
    "has_program": True,
}


def test_a_board_that_talks_nonsense_is_not_believed(server: SshServer, tmp_path: Path) -> None:
    plain = server.address.partition("?")[0]
    for number, said in enumerate(("Welcome!", "[1]", json.dumps({**OLD, "file": "a\nb"}), "{" * 100_000)):
        liar = tmp_path / f"liar{number}"
        (tmp_path / f"said{number}").write_text(said)
        liar.write_text(f"#!/bin/sh\ncat {tmp_path}/said{number}\n")
        liar.chmod(0o755)
        refused(f"{plain}?python={liar}", r"failed|makes no sense")


def test_a_disk_that_is_full_is_told(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        (Path(board_side.__file__)).read_text().replace("os.fsync(file.fileno())", "raise OSError(28, 'No space left')")
    )
    monkeypatch.setattr(board_module, "_board_side", lambda: text)
    name = worker_program().file
    (server.cache / name).unlink(missing_ok=True)
    refused(server.address, r"No space left.*free some storage")
    assert not list(server.cache.glob("worker-*"))  # nothing half-written


@pytest.mark.parametrize("fault", ["kill", "cut", "restart"])
def test_a_candidate_is_answered_once_whatever_happens_to_the_link(server: SshServer, fault: str) -> None:
    def strike() -> None:
        if fault == "kill":
            for pid in server.workers():
                os.kill(pid, signal.SIGKILL)
        else:
            getattr(server, fault)()

    spec = SPEC.replace(min_duration_s=0.3, max_duration_s=0.3)
    settings = PoolSettings(quarantine_s=0.2, lost_after_s=20.0)
    with DevicePool([open_device(server.address)], settings) as pool:
        pool.submit(MODEL, SPEC).result(60)
        futures = [pool.submit(models.conv_model(layers=1, channels=4, side=side), spec) for side in (8, 9, 10, 11)]
        timer = threading.Timer(0.2, strike)
        timer.start()
        found = [future.result(60) for future in futures]
        timer.join()
    assert [bool(measurement.samples_ms) for measurement in found] == [True] * 4, found
    wait_until(lambda: not server.workers())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a link that confirms nothing")
def test_a_link_that_confirms_nothing_is_ended_by_the_system(agent: SshAgent) -> None:
    agent.info()
    connection = agent._board.connection._connection
    assert connection is not None
    link = connection.get_extra_info("socket")
    assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == ssh_connection.LINK_LOST_S * 1e3


def test_a_link_that_the_system_gave_up_is_not_taken_for_one_that_took_too_long() -> None:
    async def fails() -> None:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    with pytest.raises(OSError, match="Connection timed out"):
        ssh_connection.run_in_loop(fails(), 60.0)


def test_a_board_that_is_gone_for_good_is_an_error_and_not_the_models_fault(server: SshServer) -> None:
    with DevicePool([open_device(server.address)], PoolSettings(quarantine_s=0.2, lost_after_s=0.5)) as pool:
        pool.submit(MODEL, SPEC).result(60)
        server.stop()
        try:
            with pytest.raises(DeviceUnavailableError, match="answers any more: The board at ssh:"):
                pool.submit(MODEL, SPEC).result(60)
        finally:
            server.start()


def test_doctor_looks_at_everything(server: SshServer) -> None:
    checks = {check.name: check for check in doctor.examine_board(read_address(server.address[4:]))}
    assert list(checks)[:4] == ["connection", "python", "storage", "worker"]
    assert {"kept on the board", "system", "measuring"} <= set(checks)
    assert not [check for name, check in checks.items() if check.state == "fail"]
    assert "devices clean" in checks["kept on the board"].found


def test_doctor_ends_with_what_is_missing(server: SshServer, tmp_path: Path) -> None:
    plain = server.address.partition("?")[0]
    checks = doctor.examine_board(read_address(f"{plain[4:]}?python={bare_python(tmp_path)}"))
    assert [check.name for check in checks if check.state == "fail"] == ["python"]
    assert checks[1].fix.startswith("nas-edge devices setup")


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("0", "pass", "neither"),
        ("50005", "fail", "its voltage is too low, it is throttled"),
        ("50000", "warn", "at times its voltage is too low"),
    ],
)
def test_what_a_raspberry_pi_says_of_its_power(text: str, state: str, words: str) -> None:
    class Said(Board):
        def ask(self, what: str, *arguments: str, data: bytes = b"", timeout_s: float = 30.0) -> dict[str, str]:
            return {"throttled": text}

    (check,) = doctor._check_power(Said(read_address("//pi")))
    assert (check.state, words in check.found) == (state, True)


def test_clean_removes_all_of_it(server: SshServer) -> None:
    with open_device(server.address) as agent:
        info = agent.info()
    FloorStore(default_floors()).keep(FloorKey.of(info, SPEC), {"compute": 1.0})
    lines = clean_device(server.address)
    assert lines is not None
    assert any(str(server.cache) in line for line in lines)
    assert any("floor" in line for line in lines)
    assert not server.cache.exists()
    assert clean_device(server.address) == []


def test_setup_refuses_what_it_cannot_do(server: SshServer, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="ai-edge-litert or tflite-runtime"):
        set_up_device(server.address, {"runtime": "pytorch"})
    with pytest.raises(SpecError, match=r"a folder with \.whl files"):
        set_up_device(server.address, {"wheels": str(tmp_path)})


def test_setup_says_so_where_nothing_is_missing(server: SshServer) -> None:
    facts = dict(set_up_device(server.address))
    assert facts["runtime"] == "ai_edge_litert"
    assert worker_program().file in facts["worker"]


@pytest.mark.slow
def test_setup_installs_wheels_that_it_sends(server: SshServer, tmp_path: Path) -> None:
    """Stand-ins for the runtime and NumPy, so that it takes a second; what installs them is pip."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("numpy", "ai_edge_litert"):
        write_wheel(wheels, name)
    plain = server.address.partition("?")[0]
    facts = dict(set_up_device(plain, {"wheels": str(wheels)}))
    try:
        assert facts["runtime"] == "ai_edge_litert"
        assert str(server.kept / "data") in facts["python"]
        assert not (server.cache / "wheels").exists()
    finally:
        lines = clean_device(f"{server.address}") or []
    assert any("venv" in line for line in lines)


@pytest.mark.slow
def test_setup_says_why_installing_failed(server: SshServer, tmp_path: Path) -> None:
    write_wheel(tmp_path, "numpy")
    plain = server.address.partition("?")[0]
    with pytest.raises(DeviceUnavailableError, match=r"installing ai-edge-litert failed.*pass --wheels"):
        set_up_device(plain, {"wheels": str(tmp_path)})
    clean_device(server.address)


def write_wheel(folder: Path, name: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def bare_python(folder: Path) -> Path:
    """A Python without NumPy and without a runtime."""
    file = folder / "bare-python"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    file.chmod(0o755)
    return file


def wait_until(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
