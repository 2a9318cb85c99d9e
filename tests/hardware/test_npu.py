"""Compiling for NPUs: what is not installed is said, and what fails is no error."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas_edge.config import load_config
from nas_edge.errors import ConfigError
from nas_edge.hardware import npu
from nas_edge.hardware.npu import VENDORS, Vendor, compile_for_npus
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.testing.trainings import small_network

FILE = tflite_model(small_network(), "int8")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vendor, "installed", True)


def test_without_the_vendors_package_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vendor, "installed", False)
    made = compile_for_npus(FILE, "model_int8", ["qualcomm:SM8750", "google:Tensor_G5"])
    assert made.files == {}
    assert made.says == {
        "qualcomm:SM8750": "not compiled: ai-edge-litert-sdk-qualcomm is not installed",
        "google:Tensor_G5": "not compiled: ai-edge-litert-sdk-google-tensor is not installed",
    }


def test_a_package_is_looked_for_by_its_module() -> None:
    assert not Vendor("none", "no-such-vendor").installed
    assert Vendor("none", "ai-edge-litert").installed


def test_litert_itself_says_which_socs_there_are(installed: None) -> None:
    made = compile_for_npus(FILE, "model_int8", ["qualcomm:SM1"])
    assert made.files == {}
    assert made.says["qualcomm:SM1"].startswith("not compiled: unknown SoC; supported: ")
    assert "SM8750" in made.says["qualcomm:SM1"]
    assert "ALL" not in made.says["qualcomm:SM1"]


@pytest.mark.skipif(VENDORS["mediatek"].installed, reason="the vendor's package is installed: it may compile")
def test_a_compiler_that_fails_is_no_error(installed: None) -> None:
    made = compile_for_npus(FILE, "model_int8", ["mediatek:MT6991"])
    assert made.files == {}
    assert made.says["mediatek:MT6991"].startswith("not compiled: ")


def test_what_a_compiler_makes_is_named_after_the_target(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> Any:
        """Stands in for the process with a vendor's compiler."""
        folder = Path(command[-1])
        assert (folder / "model.tflite").read_bytes() == FILE
        assert command[-3:-1] == ["qualcomm", "SM8750"]
        (folder / "made.tflite").write_bytes(b"compiled")
        (folder / "answer.json").write_text('{"made": true, "says": "12 of 12 operators"}')
        return subprocess.CompletedProcess(command, 0, "", "")

    stand_in = ModuleType("subprocess")
    vars(stand_in).update(vars(subprocess), run=run)
    monkeypatch.setattr(npu, "subprocess", stand_in)
    made = compile_for_npus(FILE, "model_int8", ["qualcomm:SM8750"])
    assert made.files == {"model_int8_qualcomm_SM8750.tflite": b"compiled"}
    assert made.says == {"qualcomm:SM8750": "compiled: 12 of 12 operators"}


@pytest.mark.parametrize("target", ["qualcomm", "nobody:SM1", "qualcomm:", "qualcomm:../x"])
def test_a_target_names_vendor_and_soc(target: str) -> None:
    with pytest.raises(ConfigError, match="expected VENDOR:SOC with a vendor of google, intel"):
        load_config(flags={"export.npu": [target]})
