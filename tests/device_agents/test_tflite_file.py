from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ModelError, ModelFileError
from device_agents.probe_models import compute_model
from device_agents.tflite_file import ModelSummary, inspect_model, open_inputs
from tests.support import models

SMALL = models.conv_model(layers=2, channels=1, side=2)


def check(data: bytes) -> None:
    try:
        summary = inspect_model(data)
        assert all(isinstance(name, str) for name in open_inputs(data))
    except ModelFileError:
        return
    assert isinstance(summary, ModelSummary)


def test_summary_counts_what_is_in_the_file() -> None:
    assert inspect_model(SMALL) == ModelSummary(len(SMALL), 1, 1, 1, 2)
    assert inspect_model(models.binary_model()).inputs == 2
    assert inspect_model(models.empty_model()).operators == 0
    assert inspect_model(compute_model()).operators == 4


def test_inputs_with_open_dimensions_are_named() -> None:
    assert open_inputs(SMALL) == ()
    assert len(open_inputs(models.binary_model(shape=(1, 4), signature=(-1, 4)))) == 2
    assert open_inputs(models.empty_model()) == ()


def test_real_files_are_accepted(coral: Path) -> None:
    for name in ("mobilenet_v1_0.25_128_quant", "model_invoking_error"):
        assert inspect_model((coral / f"{name}.tflite").read_bytes()).operators >= 1


def test_a_file_truncated_at_any_byte_raises_nothing_but_model_errors() -> None:
    for end in range(len(SMALL)):
        check(SMALL[:end])


@given(st.binary(max_size=300))
def test_rubbish_raises_nothing_but_model_errors(data: bytes) -> None:
    check(data)
    check(data[:4] + b"TFL3" + data[4:])


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=8))
def test_changed_bytes_raise_nothing_but_model_errors(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    check(bytes(data))


@pytest.mark.parametrize("data", [b"", b"x", b"\x08\0\0\0ONNX" + b"\0" * 50])
def test_other_files_get_a_message_that_says_what_was_received(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="received"):
        inspect_model(data)
    assert issubclass(ModelFileError, ModelError)
