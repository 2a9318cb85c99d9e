"""An Edge TPU at a board: the same worker, started there, and the compiler here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec, Verdict
from device_agents.coral.doctor import check_compiler
from device_agents.devices import open_device
from device_agents.edgetpu.compiler import EdgeTpuCompiler
from device_agents.edgetpu.program import COMPILER_VARIABLE, PROGRAM
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


def test_models_are_compiled_by_another_machine(
    server: SshServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The stand-in for the compiler is on the PATH of that machine's sessions alone."""
    monkeypatch.setenv(COMPILER_VARIABLE, server.address.partition("?")[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    server.variables |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(temporary)}
    with pytest.MonkeyPatch.context() as patch:
        calls = install_compiler(patch, tmp_path, "whole")
    server.restart()
    try:
        file, report = EdgeTpuCompiler().compile(conv_model())
        assert file == compiled_model()
        assert (report.is_whole, report.version) == (True, "16.0.384591198")
        assert check_compiler().state == "pass"
        assert str(server.port) in check_compiler().found
        assert EdgeTpuCompiler().compile(conv_model()) == (file, report)
        assert calls.read_text() == "compiled\n"  # the second was kept here
        for layers, in_file in ((2, False), (6, True)):  # in its log file, too
            with pytest.MonkeyPatch.context() as patch:
                install_compiler(patch, tmp_path, "large", in_file)
            made = EdgeTpuCompiler().compiled(conv_model(layers=layers))
            assert (made.file, made.verdict) == (None, Verdict.COMPILE_FAILED)
            assert "large activation tensors" in made.detail
        assert not list(temporary.iterdir())

        compiler = EdgeTpuCompiler()
        compiler.compile(conv_model(layers=2))
        server.cut()
        # A link that was lost is made again, at the latest when it is asked for again.
        with contextlib.suppress(DeviceUnavailableError):
            compiler.compile(conv_model(layers=3))
        assert compiler.compile(conv_model(layers=3))[1].failure
        (tmp_path / PROGRAM).unlink()
        with pytest.raises(BenchFailedError, match=r"edgetpu_compiler is not on PATH at ssh://.*; install the package"):
            print(compiler.compile(conv_model(layers=5)))
        server.stop()
        with pytest.raises(DeviceUnavailableError, match=r"host ssh://127.* does not answer.*see whether `ssh -p"):
            compiler.compile(conv_model(layers=5))
        assert not list(temporary.iterdir())
    finally:
        for name in ("PATH", "TMPDIR"):
            del server.variables[name]
        server.restart()


@pytest.mark.parametrize("named", ["ssh:build", "ssh://", "ssh://build?python=x", "ssh://build/x"])
def test_a_machine_that_can_be_none_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPILER_VARIABLE, named)
    with pytest.raises(DeviceAddressError, match="Bad address of a host"):
        EdgeTpuCompiler().compile(conv_model())
    assert check_compiler().state == "warn"


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
