"""What `edgetpu_compiler` prints, as data."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.edgetpu.compiler import EdgeTpuCompiler, MappingReport, OperatorRow, bytes_text, read_log
from tests.support.edgetpu import TRANSCRIPTS, install_compiler
from tests.support.models import conv_model


def report(name: str, exit_code: int = 0) -> MappingReport:
    return read_log((TRANSCRIPTS / f"{name}.txt").read_text(), exit_code)


def test_a_model_that_is_mapped_in_part() -> None:
    found = report("partial")
    assert found == MappingReport(
        version="16.0.384591198",
        on_chip_bytes=round(1.92 * 2**20),
        on_chip_left_bytes=1792,
        streamed_bytes=round(3.23 * 2**20),
        subgraphs=1,
        operators=18,
        rows=(
            OperatorRow("RESHAPE", 15, "Mapped to Edge TPU"),
            OperatorRow("DEQUANTIZE", 2, "Operation is working on an unsupported data type"),
            OperatorRow("CONCATENATION", 1, "More than one subgraph is not supported"),
        ),
    )
    assert not found.is_whole
    assert str(found) == (
        "3 of 18 operators stay on the CPU, 1 Edge TPU part(s): 2 DEQUANTIZE (Operation is working on an unsupported "
        "data type), 1 CONCATENATION (More than one subgraph is not supported)"
    )


def test_a_model_that_is_mapped_as_a_whole() -> None:
    found = report("whole")
    assert found.is_whole
    assert sum(row.count for row in found.rows) == found.operators == 31
    assert str(found) == "all operators run on the Edge TPU; parameters: 621.00 KiB on the chip, 0 B streamed"


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("large", "Compilation failed due to large activation tensors in model."),
        ("internal", "Internal compiler error. Aborting!"),
    ],
)
def test_a_model_that_is_not_compiled(name: str, failure: str) -> None:
    found = report(name, 1)
    assert found.failure == failure
    assert not found.is_whole
    assert str(found) == f"edgetpu_compiler: {failure}"


@pytest.mark.parametrize("name", ["large", "partial"])
def test_what_only_the_log_file_says_is_reported(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_compiler(monkeypatch, tmp_path, name, in_file=True)
    expected = report(name, int(name == "large"))
    for _ in range(2):  # the second is what was kept
        made = EdgeTpuCompiler(tmp_path / "cache").compiled(conv_model())
        assert (made.file, made.detail) == (None, str(expected))


def test_silence_is_a_failure() -> None:
    assert read_log("", 139).failure == "it said nothing (exit status 139)"
    assert read_log("Segmentation fault\n", 139).failure == "Segmentation fault (exit status 139)"


def test_several_parts_are_not_whole() -> None:
    text = (TRANSCRIPTS / "whole.txt").read_text().replace("subgraphs: 1", "subgraphs: 2")
    assert not read_log(text).is_whole


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert read_log(text, 1).failure
    assert str(read_log(f"Model compiled successfully\n{text}"))


def test_sizes_are_written_as_the_compiler_does() -> None:
    assert [bytes_text(size) for size in (0, 1536, 3 << 20)] == ["0 B", "1.50 KiB", "3.00 MiB"]
