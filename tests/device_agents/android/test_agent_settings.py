"""What can be asked for: delegates, cores, a cool and charged phone; and how models get there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent, AndroidSettings
from device_agents.android.benchmark_model import BLOCKS
from device_agents.android.state import CoolSettings
from device_agents.android.transport import Completed
from device_agents.api import BenchmarkSpec, Verdict
from device_agents.errors import DeviceUnavailableError, SpecError
from tests.support import models
from tests.support.android.agents import Connect, connect, fast_spec
from tests.support.android.phone import BASE, Phone, files_of, start, write_overlay
from tests.support.android.phones import PIXEL, SAMSUNG, SILENT, PhoneTexts
from tests.support.android.result_file import result
from tests.support.android.tools import canned_script, transcript, write_tool

__all__ = ["connect", "fast_spec"]  # fixtures


def large_model(compressible: bool, mib: int = 1) -> bytes:
    """A model with as many bytes of weights."""
    size = mib << 20
    data = bytes(size) if compressible else random.Random(0).randbytes(size)
    return models.conv_model() + data  # what follows a flatbuffer is nobody's


# Packing


@pytest.mark.parametrize("compressible", [True, False])
def test_models_are_packed_for_slow_links_where_that_helps(
    connect: Connect, phone: Phone, fast_spec: BenchmarkSpec, compressible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send, run = AdbShellTransport.send, AdbShellTransport._run

    def sending(self: AdbShellTransport, data: bytes, path: str) -> None:
        sent.append(len(data))
        send(self, data, path)

    def running(
        self: AdbShellTransport, command_line: str, timeout_s: float, file: tuple[bytes, str] | None
    ) -> Completed:
        sent.extend([] if file is None else [len(file[0])])
        return run(self, command_line, timeout_s, file)

    seen = 'wc -c < "${1#--graph=}" >> /data/local/tmp/seen'
    agent = connect(script=canned_script(transcript("tf_2_14"), before=seen))
    agent.info()
    agent._bytes_per_s = 1e6  # as over a bad Wi-Fi
    monkeypatch.setattr(AdbShellTransport, "send", sending)
    monkeypatch.setattr(AdbShellTransport, "_run", running)
    model = large_model(compressible)
    assert agent.measure(model, fast_spec).ok
    (size,) = sent
    assert (size < len(model) // 4) is compressible
    assert (agent._bytes_per_s > 1e6) is not compressible  # what is large enough tells how fast the link really is
    # The tool saw the whole file either way.
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        assert link.run(["cat", "/data/local/tmp/seen"]).output.split()[-1] == str(len(model))
        link.run(["rm", "/data/local/tmp/seen"])
    agent.close()
    assert files_of(phone) == []


def test_models_measured_in_turns_are_sent_once_and_those_of_long_ago_are_removed(
    connect: Connect, phone: Phone, fast_spec: BenchmarkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agents.android.agent._KEPT_BYTES", 5 << 20)
    sent: list[int] = []
    send = AdbShellTransport.send

    def recording(self: AdbShellTransport, data: bytes, path: str) -> None:
        sent.append(len(data))
        send(self, data, path)

    agent = connect()
    agent.info()
    monkeypatch.setattr(AdbShellTransport, "send", recording)
    one, two, three = (large_model(compressible=False, mib=mib) for mib in (1, 2, 3))
    for model in (one, two, one, two, one):
        assert agent.measure(model, fast_spec).ok
    assert sent == [len(one), len(two)]
    assert agent.measure(three, fast_spec).ok  # too much with `two`, which was measured before `one`
    assert len([name for name in files_of(phone) if "model-" in name]) == 2
    assert agent.measure(one, fast_spec).ok
    assert sent == [len(one), len(two), len(three)]
    # What somebody has tampered with on the phone is not measured, and is sent again.
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.script('for f in "$1"/run-*/model-*; do echo x >> "$f"; done', BASE)
    with pytest.raises(DeviceUnavailableError, match="SHA-256 differs"):
        agent.measure(one, fast_spec)
    assert agent.measure(one, fast_spec).ok
    agent.close()
    assert files_of(phone) == []


def test_storage_that_is_full_is_said_and_nothing_is_left(
    overlay: Path, connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    phone = start(overlay, data_mib=8)
    try:
        agent = connect(port=phone.port)
        for compressible in (True, False):
            with pytest.raises(DeviceUnavailableError, match=r"No space left.*; free some storage"):
                agent.measure(large_model(compressible, mib=16), fast_spec)
        assert [name for name in files_of(phone) if "run-" in name and "model" in name] == []
        assert agent.measure(models.conv_model(), fast_spec).ok
        agent.close()
    finally:
        phone.close()


# Delegates


def test_a_delegate_the_build_lacks_is_refused_before_anything_is_measured(
    connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    with pytest.raises(SpecError, match="built without --use_gpu"):
        connect().measure(models.conv_model(), fast_spec.replace(delegate="gpu"))


def test_a_delegate_is_asked_for_and_what_it_took_is_recorded(connect: Connect, fast_spec: BenchmarkSpec) -> None:
    script = canned_script(transcript("gpu"), flags=["use_gpu"])
    measurement = connect(script=script).measure(models.conv_model(), fast_spec.replace(delegate="gpu"))
    assert measurement.verdict is Verdict.OK, measurement.detail
    assert measurement.conditions is not None
    assert measurement.conditions.delegate == "gpu"


def test_a_delegate_library_is_sent_along_and_removed(
    connect: Connect, phone: Phone, fast_spec: BenchmarkSpec, tmp_path: Path
) -> None:
    library = tmp_path / "libmine.so"
    library.write_bytes(b"\x7fELF")
    # Only with the library in place does this tool print anything.
    check = 'for a in "$@"; do case "$a" in --external_delegate_path=*) [ -x "${a#*=}" ] || exit 3;; esac; done'
    flags = ["external_delegate_path", "external_delegate_options"]
    script = canned_script(transcript("partial"), flags=flags, before=check)
    agent = connect(script=script)
    spec = fast_spec.replace(delegate=f"external+cpu:{library},level=2")
    measurement = agent.measure(models.conv_model(), spec)
    assert measurement.verdict is Verdict.OK, measurement.detail
    assert measurement.conditions is not None
    assert measurement.conditions.delegate_kernels == 2
    assert measurement.conditions.delegate == "external+cpu:libmine.so,level=2"
    assert any("delegate-" in name for name in files_of(phone))
    agent.close()
    assert files_of(phone) == []


def test_a_delegate_library_that_cannot_be_read_is_the_callers_mistake(
    connect: Connect, fast_spec: BenchmarkSpec
) -> None:
    with pytest.raises(SpecError, match="No such file"):
        connect().measure(models.conv_model(), fast_spec.replace(delegate="external:/nowhere/lib.so"))


# Cores


def test_kinds_of_cores_are_told_from_the_phones_files(connect: Connect) -> None:
    agent = connect()
    assert agent.cores("big") == (6, 7)
    assert agent.cores("little") == (0, 1, 2, 3)


def test_the_tool_runs_on_the_cores_that_were_asked_for(
    connect: Connect, phone: Phone, fast_spec: BenchmarkSpec
) -> None:
    look = "grep Cpus_allowed_list: /proc/self/status >> /data/local/tmp/where"
    agent = connect(script=canned_script(transcript("tf_2_14"), before=look))
    measurement = agent.measure(models.conv_model(), fast_spec.replace(cores=(0,)))
    assert measurement.ok, measurement.detail
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        where = link.script("cat /data/local/tmp/where; rm /data/local/tmp/where").output.split()
    assert where == ["Cpus_allowed_list:", "0"] * BLOCKS


# Samples


def test_a_sample_says_how_many_runs_it_stands_for(connect: Connect, fast_spec: BenchmarkSpec) -> None:
    agent = connect()
    measurement = agent.measure(models.conv_model(), fast_spec)
    agent.close()
    assert (measurement.runs_per_sample, measurement.runs) == (20, 20 * BLOCKS)
    assert connect("oldest").measure(models.conv_model(), fast_spec).runs_per_sample is None


def test_the_result_file_of_newer_builds_is_read(connect: Connect, fast_spec: BenchmarkSpec) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in result())
    write = f'for a in "$@"; do case "$a" in --result_file_path=*) printf \'{octal}\' > "${{a#*=}}";; esac; done'
    script = canned_script(transcript("tf_2_14"), flags=["result_file_path"], before=write)
    measurement = connect(script=script).measure(models.conv_model(), fast_spec)
    assert measurement.samples_ms == (7.375,) * BLOCKS
    assert measurement.init_ms == 10.5


def test_a_tool_that_hangs_once_is_run_again(connect: Connect, phone: Phone, fast_spec: BenchmarkSpec) -> None:
    once = "[ -e /data/local/tmp/hung ] || { touch /data/local/tmp/hung; sleep 63.5; }"
    script = canned_script(transcript("tf_2_14"), before=once)
    measurement = connect(script=script).measure(models.conv_model(), fast_spec.replace(timeout_s=1.0))
    assert (measurement.verdict, measurement.attempts) == (Verdict.OK, 2)
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.run(["rm", "/data/local/tmp/hung"])


# Heat and power


@pytest.fixture
def like(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AndroidAgent]:
    """An agent for a phone that prints certain texts."""
    texts: PhoneTexts = request.param
    phone = start(write_overlay(tmp_path / "overlay", {**SILENT.texts, **texts.texts}, texts.files))
    link = AdbShellTransport.tcp("127.0.0.1", phone.port)
    tool = write_tool(tmp_path, canned_script(transcript("tf_2_14")))
    with AndroidAgent(link, AndroidSettings(tool, CoolSettings(wait_s=0, max_status=1, max_skin_c=50))) as agent:
        yield agent
    phone.close()


def but(phone: PhoneTexts, **changes: str) -> PhoneTexts:
    return PhoneTexts(
        {**phone.texts, **{name.replace("_", "-", 1): text for name, text in changes.items()}}, phone.files
    )


BATTERY = PIXEL.texts["dumpsys-battery"]
UNPLUGGED = BATTERY.replace("USB powered: true", "USB powered: false")


@pytest.mark.parametrize(
    ("like", "why"),
    [
        (SAMSUNG, "battery saver is on"),
        (but(PIXEL, dumpsys_battery=UNPLUGGED.replace("level: 87", "level: 9")), "at 9% and it is not plugged in"),
    ],
    indirect=["like"],
)
def test_a_phone_without_power_is_refused(like: AndroidAgent, fast_spec: BenchmarkSpec, why: str) -> None:
    with pytest.raises(DeviceUnavailableError, match=why):
        like.measure(models.conv_model(), fast_spec)


@pytest.mark.parametrize(
    ("like", "why"),
    [
        (but(SAMSUNG, settings_low_power="0\n"), "set by hand"),
        (but(PIXEL, dumpsys_battery=UNPLUGGED), "not plugged in"),
        (but(PIXEL, dumpsys_battery=BATTERY.replace("level: 87", "level: 60")), "at 60%, below 80%"),
        (SILENT, "does not say how its battery is"),
    ],
    indirect=["like"],
)
def test_a_phone_that_must_be_charged_is_refused_if_it_is_not(
    like: AndroidAgent, fast_spec: BenchmarkSpec, why: str
) -> None:
    assert like.measure(models.conv_model(), fast_spec).ok
    like._looked_s = -1e9  # as if a minute had passed
    with pytest.raises(DeviceUnavailableError, match=why):
        like.measure(models.conv_model(), fast_spec.replace(require_charged=True))


@pytest.mark.parametrize("like", [SILENT], indirect=True)
def test_a_phone_that_must_be_cool_has_to_say_so(like: AndroidAgent, fast_spec: BenchmarkSpec) -> None:
    assert like.measure(models.conv_model(), fast_spec).ok
    measurement = like.measure(models.conv_model(), fast_spec.replace(require_cool=True))
    assert (measurement.verdict, "does not say how warm" in measurement.detail) == (Verdict.THROTTLED, True)


@pytest.mark.parametrize("like", [PIXEL], indirect=True)
def test_a_cool_and_charged_phone_is_measured(like: AndroidAgent, fast_spec: BenchmarkSpec) -> None:
    assert like.measure(models.conv_model(), fast_spec.replace(require_cool=True, require_charged=True)).ok
