from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nas_edge.errors import DataError, ExportError
from nas_edge.export.verify import (
    TensorInfo,
    check_precision,
    file_quality,
    max_difference,
    operator_histogram,
    run_tflite,
)
from tests.support.exported import Exported
from tests.support.tasks import CLASSIFICATION


def test_float_file_is_refused_as_int8_and_its_operators_are_named(exported: Exported) -> None:
    with pytest.raises(ExportError, match=r"0:CONV_2D \(float32\)") as caught:
        check_precision(exported.float32, "int8")
    assert "deliver float32" in str(caught.value)


def test_mixed_file_is_refused_and_the_float_parts_are_named(exported: Exported) -> None:
    assert operator_histogram(exported.mixed)["CONV_2D int8"] == 5
    with pytest.raises(ExportError) as caught:
        check_precision(exported.mixed, "int8")
    message = str(caught.value)
    assert "0:QUANTIZE (float32)" in message
    assert "DEQUANTIZE (float32)" in message
    assert "CONV_2D" not in message
    assert "input" in message


@pytest.mark.parametrize("damage", [b"", b"not a model at all", None])
def test_damaged_file_is_an_export_error(exported: Exported, damage: bytes | None) -> None:
    model = exported.int8[:300] if damage is None else damage
    with pytest.raises(ExportError):
        check_precision(model, "int8")
    with pytest.raises(ExportError):
        run_tflite(model, exported.images)


def test_quality_is_the_tasks_metric_of_the_files_outputs(exported: Exported) -> None:
    labels = run_tflite(exported.int8, exported.images).argmax(-1)
    assert file_quality(exported.int8, [(exported.images, labels)], CLASSIFICATION).value == 1.0
    labels[:16] = (labels[:16] + 1) % 3
    found = file_quality(exported.int8, [(exported.images, labels)], CLASSIFICATION)
    assert found.value == 0.75
    assert found.example_scores is not None
    assert found.example_scores.tolist() == [False] * 16 + [True] * 48
    halves = [(exported.images[part], labels[part]) for part in (slice(24), slice(24, None))]
    again = file_quality(exported.int8, iter(halves), CLASSIFICATION)
    assert again.value == found.value
    assert again.example_scores is not None
    assert again.example_scores.tolist() == found.example_scores.tolist()


def test_images_must_fit_the_file(exported: Exported) -> None:
    with pytest.raises(DataError, match=r"expected \[n, 12, 12, 1\], received \[2, 8, 8, 1\]"):
        run_tflite(exported.int8, np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(DataError, match="as many targets"):
        file_quality(exported.int8, [(exported.images, np.zeros(3))], CLASSIFICATION)


def test_quantisation_rounds_and_saturates() -> None:
    tensor = TensorInfo("x", (1, 3), "int8", 0.5, -3)
    stored = tensor.quantize(np.float32([0.0, 1.3, 1e9]))
    assert stored.tolist() == [-3, 0, 127]
    assert stored.dtype == np.int8
    assert tensor.dequantize(stored).tolist() == [0.0, 1.5, 65.0]
    np.testing.assert_array_equal(tensor.quantize(tensor.dequantize(stored)), stored)


def test_the_largest_difference_and_the_same_answers_of_outputs() -> None:
    first, second = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.5], [0.0, 1.0]])
    assert max_difference(first, second) == 1.0
    assert CLASSIFICATION.same_answer(first, second) == 0.5


def test_checking_a_file_needs_no_tensorflow() -> None:
    code = "import sys, nas_edge.export.verify, nas_edge.export.bundle; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
