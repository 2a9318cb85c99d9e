from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from nas_edge.errors import DataError, ExportError
from nas_edge.export.convert import float32_tflite
from nas_edge.export.quantize import quantized_tflite
from nas_edge.export.verify import check_precision, input_output, max_difference, operator_histogram, run_tflite
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.quiet import held_stderr
from tests.support.exported import Exported
from tests.support.tasks import CLASSIFICATION


def test_float_file_computes_what_the_keras_model_computes(exported: Exported) -> None:
    expected = exported.model(exported.images, training=False).numpy()
    outputs = run_tflite(exported.float32, exported.images)
    assert max_difference(outputs, expected) < 1e-4
    assert CLASSIFICATION.same_answer(outputs, expected) == 1.0


def test_int8_file_is_close_to_the_float_file(exported: Exported) -> None:
    floats, integers = (run_tflite(m, exported.images) for m in (exported.float32, exported.int8))
    assert max_difference(floats, integers) < 0.1 * np.abs(floats).max()


def test_int8_file_has_batch_one_and_int8_input_and_output(exported: Exported) -> None:
    check_precision(exported.int8, "int8")
    source, result = input_output(exported.int8)
    assert (source.dtype, source.shape) == ("int8", (1, 12, 12, 1))
    assert (result.dtype, result.shape) == ("int8", (1, 3))
    assert source.scale
    assert result.scale


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_file_has_one_operator_per_hard_swish_and_no_shape_arithmetic(exported: Exported, precision: Any) -> None:
    histogram = operator_histogram(exported.int8 if precision == "int8" else exported.float32)
    assert histogram[f"HARD_SWISH {precision}"] == 2
    assert not {"SHAPE int32", "PACK int32", "STRIDED_SLICE int32"} & set(histogram)
    directly_written = [op.name for op in operators(tflite_model(exported.spec, precision))]
    assert [op.name for op in operators(exported.int8)] == directly_written


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_file_has_a_named_signature(exported: Exported, precision: str) -> None:
    with held_stderr():
        interpreter = Interpreter(model_content=getattr(exported, precision))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["input"], "outputs": ["output_0"]}}


def test_conversion_prints_nothing(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    quantized_tflite(exported.model, "int8", lambda: [exported.images[:4]])
    assert capfd.readouterr() == ("", "")


def test_model_that_cannot_be_quantised_is_one_clear_error() -> None:
    source = keras.Input((4, 4, 1))
    model = keras.Model(source, keras.ops.erf(keras.layers.Flatten()(source)))
    with pytest.raises(ExportError, match="converter failed"):
        quantized_tflite(model, "int8", lambda: [np.zeros((2, 4, 4, 1), np.float32)])
    # The same model is no problem where floats are allowed... provided that the operator exists there.
    with pytest.raises(ExportError, match="Erf"):
        float32_tflite(model)


@pytest.mark.parametrize("shape", [(0, 12, 12, 1), (4, 12, 12, 3), (12, 12, 1)])
def test_representative_images_must_fit(exported: Exported, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected \[n, 12, 12, 1\]"):
        quantized_tflite(exported.model, "int8", lambda: [np.zeros(shape, np.float32)])


def test_representative_images_must_be_numbers(exported: Exported) -> None:
    with pytest.raises(DataError, match="NaN or infinity"):
        quantized_tflite(exported.model, "int8", lambda: [np.full((1, 12, 12, 1), np.nan, np.float32)])


def test_held_stderr_catches_native_output_and_gives_it_back(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with held_stderr() as printed:
            os.write(2, b"from C++")
            raise RuntimeError(printed())

    with pytest.raises(RuntimeError, match=r"^from C\+\+$"):
        fail()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"
