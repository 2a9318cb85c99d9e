"""An Edge TPU at a board: the same worker, started there, and the compiler here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec, Verdict
from device_agents.devices import open_device
from device_agents.errors import BenchFailedError, DeviceAddressError, DeviceUnavailableError
from device_agents.ssh.address import read_address
from device_agents.worker.edgetpu import LIBRARY_VARIABLE
from tests.support.edgetpu import compiled_model, install_compiler, stand_in_library
from tests.support.models import conv_model
from tests.support.ssh import SshServer, serving

SPEC = BenchmarkSpec(
    min_runs=3, min_duration_s=0.0, max_duration_s=0.1, max_relative_half_width=100.0, max_wait_share=9
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[SshServer]:
    with serving(tmp_path_factory.mktemp("ssh"), home) as server:
        yield server


def behave(server: SshServer, how: str = "") -> str:
    """Gives the board an Edge TPU; returns its address."""
    server.variables |= {LIBRARY_VARIABLE: str(stand_in_library()), "EDGETPU_STAND_IN": how}
    server.restart()
    return f"{server.address}&accelerator=edgetpu"


@pytest.mark.parametrize("accelerator", ["edgetpu", "edgetpu:usb:0", "edgetpu:pci"])
def test_an_address_names_an_accelerator(accelerator: str) -> None:
    address = read_address(f"//pi@board?accelerator={accelerator}&python=python3.9")
    assert (address.accelerator, address.python) == (accelerator, "python3.9")
    assert read_address(str(address).removeprefix("ssh:")) == address


@pytest.mark.parametrize(
    ("accelerator", "words"),
    [
        ("gpu", "unknown accelerator 'gpu'; supported: edgetpu"),
        ("edgetpu:x", "called 'x'"),
        ("", "unknown accelerator"),
    ],
)
def test_another_accelerator_is_refused(accelerator: str, words: str) -> None:
    with pytest.raises(DeviceAddressError, match=words):
        read_address(f"//board?accelerator={accelerator}")


@pytest.mark.needs("cc")
def test_an_edge_tpu_at_a_board_is_measured(server: SshServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install_compiler(monkeypatch, tmp_path, "whole")
    with open_device(behave(server)) as agent:
        info = agent.info()
        assert info.kind == "ssh"
        assert info.model.startswith("Coral Edge TPU on ")
        assert info.address.endswith("&accelerator=edgetpu")
        for model in (compiled_model(), conv_model()):
            measurement = agent.measure(model, SPEC)
            assert measurement.samples_ms
            assert measurement.conditions is not None
            assert measurement.conditions.delegate_kernels == 1
    install_compiler(monkeypatch, tmp_path, "partial")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    with open_device(behave(server)) as agent:
        assert agent.measure(conv_model(), SPEC).verdict is Verdict.FALLBACK


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("none", DeviceUnavailableError, "No Edge TPU is plugged in"),
        ("crash", BenchFailedError, r"do not fit: .*\(SIGSEGV\)"),
    ],
)
def test_what_is_wrong_at_a_board_is_told(
    server: SshServer, how: str, error: type[DeviceUnavailableError], words: str
) -> None:
    with open_device(behave(server, how)) as agent, pytest.raises(error, match=words):
        agent.info()
