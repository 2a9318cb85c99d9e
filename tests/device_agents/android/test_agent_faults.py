"""What happens between an agent and a phone that others use, too, or that loses what was put there."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from device_agents.android import agent as agent_module
from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.claim import computer_tag
from device_agents.android.setup import set_up
from device_agents.android.state import read_identity
from device_agents.android.tool import TOOLS, run_folders
from device_agents.android.transport import Completed, RemoteTimeoutError
from device_agents.api import BenchmarkSpec, Verdict
from device_agents.errors import DeviceUnavailableError, ProtocolError
from device_agents.pool import DevicePool
from tests.support import models
from tests.support.android.agents import Connect, connect, fast_spec
from tests.support.android.phone import Phone, files_of
from tests.support.android.tools import canned_script, transcript, write_tool

__all__ = ["connect", "fast_spec"]  # fixtures

HOLDS_A_PHONE = """
import sys, time
from device_agents.devices import open_device
agent = open_device(sys.argv[1])
agent.info()
print("ready", flush=True)
time.sleep(60)
"""


def on_phone(phone: Phone, script: str) -> str:
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        return link.script(script, timeout_s=5.0).output


# Two agents on one phone


def test_a_second_agent_is_refused_and_does_the_first_no_harm(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec, tmp_path: Path
) -> None:
    first, second = connect(seconds=0.1), connect()
    results = []
    thread = threading.Thread(target=lambda: results.append(first.measure(models.conv_model(), fast_spec)))
    thread.start()
    while thread.is_alive() and not any("model-" in name for name in files_of(phone)):
        time.sleep(0.02)
    busy = rf"is being measured by \S+@\S+, process {os.getpid()} since 20"
    for refused in (second.info, lambda: second.measure(models.conv_model(), fast_spec), lambda: DevicePool([second])):
        with pytest.raises(DeviceUnavailableError, match=busy):
            refused()
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        with pytest.raises(DeviceUnavailableError, match=busy):
            set_up(link, str(write_tool(tmp_path, canned_script("x"))))
        assert read_identity(link).model == "Google Pixel 6 Pro"
    thread.join(30)
    assert [result.verdict for result in results] == [Verdict.OK]
    first.close()
    assert second.measure(models.conv_model(), fast_spec).ok


def test_a_phone_stays_the_agents_own_while_its_link_is_down(phone: Phone, connect: Connect) -> None:
    first = connect()
    first.info()
    first._transport.close()
    first._phone = None
    with pytest.raises(DeviceUnavailableError, match="is being measured"):
        connect().info()
    first.info()


def test_a_killed_process_frees_its_phone(
    phone: Phone, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = write_tool(tmp_path, canned_script(transcript("tf_2_14")))
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(tool))
    command = [sys.executable, "-c", HOLDS_A_PHONE, phone.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(DeviceUnavailableError, match=f", process {other.pid} since"):
            connect().info()
        other.send_signal(signal.SIGKILL)
    assert connect().info()


def test_each_settings_folder_has_a_mark_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = []
    for name in ("one", "other", "one"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))
        tags.append(computer_tag())
    assert tags[0] == tags[2] != tags[1]
    (file,) = (tmp_path / "one").rglob("computer_id")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("../..\n")
    assert computer_tag() not in ("../..", tags[0])
    monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null")
    with pytest.raises(DeviceUnavailableError, match="XDG_CONFIG_HOME"):
        computer_tag()


SECOND_COMPUTER = """
import sys
from device_agents.devices import open_device
from device_agents.errors import DeviceUnavailableError
with open_device(sys.argv[1]) as agent:
    try:
        agent.info()
    except DeviceUnavailableError as error:
        print(error)
"""


def test_another_settings_folder_does_not_measure_at_the_same_time(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec, tmp_path: Path
) -> None:
    agent = connect()
    agent.info()
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "other")}
    done = subprocess.run(
        [sys.executable, "-c", SECOND_COMPUTER, phone.address], env=environment, capture_output=True, text=True
    )
    assert f"process {os.getpid()} since" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert agent.measure(models.conv_model(), fast_spec).ok


def test_a_lock_that_is_lost_is_noticed_and_taken_again(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    agent = connect()
    assert agent.measure(models.conv_model(), fast_spec).ok
    on_phone(phone, "rm -rf /data/local/tmp/nas_edge/lock")
    with pytest.raises(DeviceUnavailableError, match=r"lock of the phone at .* was removed"):
        agent.measure(models.conv_model(), fast_spec)
    assert agent.measure(models.conv_model(), fast_spec).ok
    # Another computer has it meanwhile, seen by the phone's clock a moment ago.
    other = '{"user": "eve", "host": "lab2", "computer": "f00", "pid": 7, "started": "", "since_utc": "2026-01-01"}'
    on_phone(phone, f"cd /data/local/tmp/nas_edge/lock && rm owner-* && echo '{other}' > owner-eve")
    with pytest.raises(DeviceUnavailableError, match=r"by eve@lab2, process 7 since 2026-01-01"):
        agent.measure(models.conv_model(), fast_spec)
    # It falls silent.
    on_phone(phone, "touch -d @$(($(date +%s) - 601)) /data/local/tmp/nas_edge/lock/owner-eve")
    assert agent.measure(models.conv_model(), fast_spec).ok
    assert "owner-eve" not in " ".join(files_of(phone))


# What was put there is gone


REPLACED_TOOL = "head -c 5000 /dev/urandom\nexit 0\n"


@pytest.mark.parametrize("put_back", [False, True])
def test_a_tool_that_is_replaced_is_no_models_fault(
    phone: Phone, tmp_path: Path, fast_spec: BenchmarkSpec, put_back: bool
) -> None:
    struck = []

    class Link(AdbShellTransport):
        """Replaces the tool before the first errand after `struck` was filled, and may put it back after."""

        def _run(self, command_line: str, timeout_s: float, file: tuple[bytes, str] | None) -> Completed:
            swap = bool(struck) and "quick_state" in command_line
            if swap:
                tool = struck.pop()
                on_phone(
                    phone,
                    f"cp {tool} {tool}.aside; printf '#!/system/bin/sh\n{REPLACED_TOOL}' > {tool}.new; "
                    f"chmod 755 {tool}.new; mv {tool}.new {tool}",
                )
            done = super()._run(command_line, timeout_s, file)
            if swap and put_back:
                on_phone(phone, f"mv {tool}.aside {tool}")
            return done

    script = write_tool(tmp_path, canned_script(transcript("tf_2_14")))
    with AndroidAgent(Link.tcp("127.0.0.1", phone.port), AndroidSettings(tool=script)) as agent:
        assert agent.measure(models.conv_model(), fast_spec).ok
        assert agent._phone is not None
        struck.append(agent._phone.tool.path)
        measurement = agent.measure(models.conv_model(layers=2), fast_spec)
        assert measurement.ok, measurement.detail
        assert measurement.attempts == 2
        assert struck == []
    on_phone(phone, f"rm -f {TOOLS}/*/*.aside")


def test_a_model_that_is_deleted_while_it_is_measured_is_sent_again(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    # The first block of the first errand finds its model removed.
    gone = "[ -f /data/local/tmp/once ] && rm /data/local/tmp/once ${1#--graph=} && echo ERROR && exit 1"
    agent = connect(script=canned_script(transcript("tf_2_14"), before=gone))
    assert agent.measure(models.conv_model(), fast_spec).ok
    on_phone(phone, "touch /data/local/tmp/once")
    measurement = agent.measure(models.conv_model(layers=2), fast_spec)
    assert (measurement.verdict, measurement.attempts) == (Verdict.OK, 2), measurement.detail


def test_a_tool_that_is_gone_is_no_models_fault_and_is_installed_again(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    agent = connect()
    assert agent.measure(models.conv_model(), fast_spec).ok
    on_phone(phone, f"rm -rf {TOOLS}/*/")
    with pytest.raises(DeviceUnavailableError, match="benchmark_model on the phone is gone or cannot be started"):
        agent.measure(models.conv_model(), fast_spec)
    assert agent.measure(models.conv_model(), fast_spec).ok


@pytest.mark.parametrize(
    "fault", ['rm "$f"', 'echo x >> "$f"', 'rm "$f"; mkdir "$f"; touch "$f/x"'], ids=["gone", "changed", "a folder"]
)
def test_a_kept_model_that_is_spoilt_is_said_to_be_and_sent_again(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec, fault: str
) -> None:
    agent = connect()
    assert agent.measure(models.conv_model(), fast_spec).ok
    on_phone(phone, f"for f in {run_folders()}*/model-*; do {fault}; done")
    with pytest.raises(DeviceUnavailableError, match="changed or removed on the phone") as caught:
        agent.measure(models.conv_model(), fast_spec)
    assert "cable" not in str(caught.value)
    assert agent.measure(models.conv_model(), fast_spec).ok


class RuiningLink(AdbShellTransport):
    """Changes one byte of what is sent to the phone while `ruins` is set."""

    ruins = False

    def _run(self, command_line: str, timeout_s: float, file: tuple[bytes, str] | None) -> Completed:
        return super()._run(command_line, timeout_s, file and (self._ruined(file[0]), file[1]))

    def _send(self, data: bytes, path: str) -> None:
        super()._send(self._ruined(data), path)

    def _ruined(self, data: bytes) -> bytes:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if self.ruins else data


@pytest.mark.parametrize("channels", [8, 200], ids=["with its command", "on its own"])
def test_a_ruined_push_names_the_model_that_was_ruined_and_runs_none(
    phone: Phone, tmp_path: Path, fast_spec: BenchmarkSpec, channels: int
) -> None:
    tool = write_tool(tmp_path, canned_script(transcript("tf_2_14")))
    kept, ruined = models.conv_model(), models.conv_model(layers=1, channels=channels, side=4)
    names = [f"model-{hashlib.sha256(model).hexdigest()[:16]}.tflite" for model in (kept, ruined)]
    link = RuiningLink.tcp("127.0.0.1", phone.port)
    assert isinstance(link, RuiningLink)
    with AndroidAgent(link, AndroidSettings(tool=tool)) as agent:
        assert agent.measure(kept, fast_spec).ok
        link.ruins = True
        with pytest.raises(DeviceUnavailableError) as caught:
            agent.measure(ruined, fast_spec)
        assert f"{names[1]} cannot be put in place" in caught.value.what
        assert caught.value.what.endswith(": its SHA-256 differs from what was sent")
        assert caught.value.fix == "try another cable or a nearer access point"
        assert names[0] not in str(caught.value)
        link.ruins = False
        assert agent.measure(ruined, fast_spec).ok


def test_so_many_models_are_kept_and_no_more(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "_KEPT_MODELS", 2)
    agent = connect()
    for channels in (4, 8, 12):
        assert agent.measure(models.conv_model(channels=channels), fast_spec).ok
    assert len([name for name in files_of(phone) if "model-" in name]) == 2


# What is not the model's fault


def test_an_answer_that_makes_no_sense_leaves_no_model_to_be_relied_on(
    phone: Phone, connect: Connect, fast_spec: BenchmarkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = connect()
    assert agent.measure(models.conv_model(), fast_spec).ok

    def fail(*_: object) -> None:
        raise ProtocolError("no end")

    with monkeypatch.context() as patch:
        patch.setattr(agent_module, "read_errand", fail)
        with pytest.raises(ProtocolError):
            agent.measure(models.conv_model(), fast_spec)
    assert [name for name in files_of(phone) if "model-" in name] == []
    assert agent.measure(models.conv_model(), fast_spec).ok


def test_a_phone_that_is_slow_to_tell_its_state_is_no_slow_model(
    connect: Connect, fast_spec: BenchmarkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = connect()
    agent.info()

    def fail(*_: object) -> None:
        raise RemoteTimeoutError("the state took too long")

    with monkeypatch.context() as patch:
        patch.setattr(agent_module, "read_quick_state", fail)
        agent._seen = None
        with pytest.raises(DeviceUnavailableError, match="the state took too long"):
            agent.measure(models.conv_model(), fast_spec)
    assert agent.measure(models.conv_model(), fast_spec).ok
