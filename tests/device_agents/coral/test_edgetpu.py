"""Edge TPUs by the real runtime and a library that stands in for theirs; no device is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.api import BenchmarkSpec, DeviceAgent, Verdict
from device_agents.coral.doctor import check_compiler
from device_agents.devices import clean_device, list_devices, open_device, parse_address, scheme_of
from device_agents.edgetpu.accelerator import EdgeTpuFacts, PluggedIn, describe_device, explain, is_usb2
from device_agents.errors import (
    BenchFailedError,
    DeviceAddressError,
    DeviceError,
    DeviceUnavailableError,
    ProtocolError,
)
from device_agents.probe_models import compute_model
from device_agents.worker.edgetpu import EdgeTpu, pci_devices, usb_devices
from tests.support.data import DATA
from tests.support.edgetpu import compiled_model, install_compiler, other_library, plug_in
from tests.support.models import conv_model

SPEC = BenchmarkSpec(
    min_runs=3, min_duration_s=0.0, max_duration_s=0.1, max_relative_half_width=100.0, max_wait_share=9
)
PLUGGED = PluggedIn("usb", 5000, True)
# All that the runtime says when the library makes no delegate.
REFUSED = ("ValueError", "Failed to load delegate from libedgetpu.so.1")


def facts(*devices: PluggedIn, failure: tuple[str, str] | tuple[()] = ()) -> EdgeTpuFacts:
    return EdgeTpuFacts("libedgetpu.so.1", "", devices, False, failure)


def answers(agent: DeviceAgent, model: bytes) -> Verdict:
    return agent.measure(model, SPEC).verdict


@pytest.mark.parametrize("rest", ["", "usb", "usb:0", "pci", "pci:1", ":0"])
def test_addresses(rest: str) -> None:
    assert parse_address(f"coral:{rest}") == ("coral", rest)


@pytest.mark.parametrize("rest", ["usb:", "usb:x", "wifi", "usb:0:1", "//host"])
def test_malformed_addresses(rest: str) -> None:
    with pytest.raises(DeviceAddressError, match=r"Bad device address.*coral:\[usb\|pci\]\[:N\]"):
        open_device(f"coral:{rest}")


@pytest.mark.needs("cc")
def test_a_compiled_model_is_measured_on_the_edge_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)
    with open_device("coral:usb:0") as agent:
        info = agent.info()
        assert (info.address, info.kind) == ("coral:usb:0", "coral")
        assert info.model.startswith("Coral Edge TPU on ")
        assert "RuntimeVersion(14)" in info.runtime_version
        assert info.measures_on_host
        measurement = agent.measure(compiled_model(), SPEC)
        assert measurement.samples_ms
        assert measurement.first_inference_ms is not None  # in which parameters travel
        assert measurement.conditions is not None
        assert measurement.conditions.delegate_kernels == 1
        visited = agent.measure_all([(compiled_model(), SPEC), (compute_model(), SPEC), (compiled_model(8), SPEC)])
        assert all(one.samples_ms for one in visited)
        (output,) = agent.run(compiled_model(), [np.zeros((1, 4), np.int8)])
        assert output.shape == (1, 4)


@pytest.mark.needs("cc", "data")
def test_a_model_that_corals_compiler_made_goes_through_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    model = (DATA / "coral" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite").read_bytes()
    plug_in(monkeypatch)
    with open_device("coral:") as agent:
        measurement = agent.measure(model, SPEC)
        assert measurement.samples_ms
        assert measurement.conditions is not None
        assert measurement.conditions.delegate_kernels == 1
        (output,) = agent.run(model, [np.zeros((1, 128, 128, 3), np.uint8)])
        assert output.shape == (1, 1001)
    with open_device("host:") as host:
        assert host.measure(model, SPEC).verdict is Verdict.LOAD_FAILED


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("library", "behaves", "words"),
    [
        ("/nowhere/libedgetpu.so.1", "", "cannot be loaded: .*No such file.*ai-edge-litert 2.2.0 with libedgetpu"),
        (None, "", "is no Edge TPU runtime: .*undefined symbol"),
        ("", "none", "No Edge TPU is plugged in: .*1a6e:089a or 18d1:9302"),
        ("", "crash", r"do not fit: .* ended the process \(SIGSEGV\); received ai_edge_litert .*a pair known"),
    ],
)  # fmt: skip
def test_each_failure_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, library: str | None, behaves: str, words: str
) -> None:
    plug_in(monkeypatch, behaves)
    if library != "":
        monkeypatch.setenv("NAS_EDGE_LIBEDGETPU", library or str(other_library()))
    with open_device("coral:") as agent, pytest.raises(DeviceUnavailableError, match=words):
        agent.info()


@pytest.mark.needs("cc")
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)  # which knows no eighth device
    with open_device("coral:usb:7") as agent, pytest.raises(DeviceUnavailableError, match="No Edge TPU is plugged in"):
        agent.measure(compiled_model(), SPEC)


@pytest.mark.needs("cc")
def test_without_a_compiler_only_compiled_models_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_device("coral:") as agent:
        with pytest.raises(BenchFailedError, match="edgetpu_compiler is not on PATH; install the package edgetpu-comp"):
            agent.measure(conv_model(), SPEC)
        assert agent.measure(compiled_model(), SPEC).samples_ms
    assert check_compiler().state == "warn"


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("log", "verdict", "words"),
    [
        ("whole", Verdict.OK, ""),
        ("partial", Verdict.FALLBACK, "3 of 18 operators stay on the CPU, 1 Edge TPU part.*2 DEQUANTIZE"),
        ("large", Verdict.COMPILE_FAILED, "due to large activation tensors in model"),
        ("internal", Verdict.COMPILE_FAILED, "Internal compiler error"),
    ],
)
def test_a_model_is_compiled_first_and_never_measured_in_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: str, verdict: Verdict, words: str
) -> None:
    plug_in(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = install_compiler(monkeypatch, tmp_path, log)
    with open_device("coral:") as agent:
        first, probe, again = agent.measure_all([(conv_model(), SPEC), (compute_model(), SPEC), (conv_model(), SPEC)])
    assert probe.samples_ms
    for measurement in (first, again):
        assert bool(measurement.samples_ms) == (verdict is Verdict.OK)
        if verdict is not Verdict.OK:
            assert measurement.verdict is verdict
            assert re.search(words, measurement.detail)
    assert calls.read_text() == "compiled\n"
    with open_device("coral:") as agent:  # what was made is kept
        agent.measure(conv_model(), SPEC)
    assert calls.read_text() == "compiled\n"
    (line,) = clean_device("coral:") or ()
    assert "compiled files" in line
    assert clean_device("coral:") == []


@pytest.mark.needs("cc")
def test_the_doctor_of_an_edge_tpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    doctor = scheme_of("coral:")[0].doctor
    assert doctor is not None
    plug_in(monkeypatch)
    install_compiler(monkeypatch, tmp_path, "whole")
    assert [(check.name, check.state) for check in doctor("")] == [
        ("edge tpu", "pass"), ("system", "pass"), ("compiler", "pass")
    ]  # fmt: skip
    plug_in(monkeypatch, "crash")
    first, _ = doctor("")
    assert (first.name, first.state) == ("edge tpu", "fail")
    assert "16.0TF2.19.1-1" in first.fix


def plugged(root: Path, speed: str = "5000") -> None:
    """An accelerator at USB, as the system describes it."""
    folder = root / "sys/bus/usb/devices/2-1"
    folder.mkdir(parents=True)
    for name, text in {"idVendor": "18d1", "idProduct": "9302", "speed": speed, "busnum": "2", "devnum": "3"}.items():
        (folder / name).write_text(f"{text}\n")
    node = root / "dev/bus/usb/002/003"
    node.parent.mkdir(parents=True)
    node.write_text("")


def test_what_is_plugged_in_is_read_from_the_system(tmp_path: Path) -> None:
    assert usb_devices(tmp_path) == pci_devices(tmp_path) == []
    plugged(tmp_path)
    assert usb_devices(tmp_path) == [{"kind": "usb", "speed_mbps": 5000, "may_open": True}]
    (tmp_path / "dev/apex_0").write_text("")
    assert pci_devices(tmp_path) == [{"kind": "pci", "speed_mbps": 0, "may_open": True}]
    (tmp_path / "dev/bus/usb/002/003").unlink()
    assert usb_devices(tmp_path)[0]["may_open"] is False


@pytest.mark.parametrize(
    ("found", "device", "words"),
    [
        (facts(PluggedIn("usb", 5000, False), failure=REFUSED), "", "may not be opened by.*udev rule .*1a6e.*plugdev"),
        (facts(PluggedIn("pci", 0, False), failure=("ValueError", "")), "pci", "may not be opened.*apex"),
        (facts(PLUGGED, failure=REFUSED), "", r"is busy; end the other program"),
        (facts(PLUGGED, failure=REFUSED), "usb:1", r"no Edge TPU 'usb:1'; received 1 plugged in: usb"),
        (facts(PLUGGED, failure=REFUSED), "pci", r"no Edge TPU 'pci'"),
        (facts(failure=("RuntimeError", "no")), "", "delegate does not work: no"),
    ],
)  # fmt: skip
def test_permission_busy_and_absent_are_told_apart(found: EdgeTpuFacts, device: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        raise explain(found, device) or AssertionError


def test_ports_and_clocks_make_other_devices() -> None:
    usb2 = PluggedIn("usb", 480, True)
    assert is_usb2(usb2)
    models = {
        describe_device(facts(usb2), ""),
        describe_device(facts(PLUGGED), ""),
        describe_device(facts(PluggedIn("pci", 0, True)), ""),
        describe_device(EdgeTpuFacts("", "", (PLUGGED,), True, ()), ""),
    }
    assert models == {
        "Coral Edge TPU, USB 2", "Coral Edge TPU, USB 3", "Coral Edge TPU, PCIe", "Coral Edge TPU, USB 3, maximum clock"
    }  # fmt: skip


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "device_agents.coral.scheme.usb_devices", lambda: [{"kind": "usb", "speed_mbps": 480, "may_open": False}]
    )
    monkeypatch.setattr("device_agents.coral.scheme.pci_devices", list)
    (row,) = [row for row in list_devices() if row.kind == "coral"]
    assert (row.address, row.state, row.detail) == ("coral:usb:0", "no permission", "480 Mbit/s")
    assert "doctor coral:usb:0" in row.fix


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"library": 1}, {"library": "", "version": "", "devices": None, "max_clock": 0, "failure": None},
        {"library": "", "version": "", "devices": [{"kind": "usb"}], "max_clock": 0, "failure": None},
        {"library": "", "version": "", "devices": [], "max_clock": 0, "failure": "all of it"},
    ],
)  # fmt: skip
def test_what_a_worker_says_is_not_trusted(answer: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="makes no sense"):
        EdgeTpuFacts.read(answer)


def test_a_compiled_model_is_told_by_its_operator() -> None:
    assert EdgeTpu("").takes(compiled_model())
    assert not EdgeTpu("").takes(conv_model())
