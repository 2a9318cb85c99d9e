"""Files written in every precision of the table compute the network, and are of the types that the table says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from nas_edge.errors import ExportError
from nas_edge.export.quantize import quantized_tflite
from nas_edge.export.verify import check_precision, input_output, run_tflite
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.gate import check_file
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec, with_ranges
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.networks.precisions import PRECISIONS
from nas_edge.networks.template import decode
from nas_edge.networks.tflite_model import operators, tflite_model

CPU = HARDWARE["cpu"]
IMAGES = np.random.default_rng(0).normal(size=(8, 12, 12, 1)).astype(np.float32)


def network() -> NetworkSpec:
    """One of each operator that has kernels in all precisions; some kernels are large, some small."""
    gate = L.sequential(
        pool=L.GlobalAveragePool(),
        reduce=L.Conv2D(4, use_bias=True),
        act=L.Activation("relu"),
        expand=L.Conv2D(32, use_bias=True),
        gate=L.Activation("sigmoid"),
    )
    return decode(
        L.sequential(
            conv=L.Conv2D(32, 6, 2),
            norm=L.BatchNorm(),
            act=L.Activation("relu6"),
            residual=L.Residual(L.sequential(depthwise=L.DepthwiseConv2D(3), norm=L.BatchNorm())),
            gate=L.Gate(gate),
            head=L.Conv2D(40, use_bias=True),
            pool=L.GlobalAveragePool(),
            logits=L.Conv2D(3, use_bias=True),
            flatten=L.Flatten(),
        ),
        (12, 12, 1),
        {},
    )


@pytest.fixture(scope="module")
def made() -> tuple[NetworkSpec, Any, Any]:
    """The network, its Keras model, its weights with ranges: all biases differ, so that no two are stored as one."""
    from nas_edge.networks.fake_quant import fake_quant_model, learned, observe_ranges

    spec, rng = network(), np.random.default_rng(1)
    drawn = get_weights(keras_model(spec, seed=1), spec)
    weights = {
        name: tuple(array + rng.uniform(0.05, 0.1, array.shape).astype("f") for array in group)
        for name, group in drawn.items()
    }
    model = fake_quant_model(spec, weights)
    observe_ranges(model, [IMAGES])
    return spec, keras_model(spec, weights), with_ranges(*learned(model, spec))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_has_the_converters_operators_and_computes_the_network(made: Any, precision: str) -> None:
    spec, model, weights = made
    written = tflite_model(spec, precision, weights)
    converted = quantized_tflite(model, precision, lambda: [IMAGES])  # checks the types
    check_precision(written, precision)
    assert Counter(map(str, operators(written))) == Counter(map(str, operators(converted)))
    assert input_output(written)[0].dtype == PRECISIONS[precision].io
    expected = model(IMAGES, training=False).numpy()
    for file in (written, converted):
        error = np.abs(run_tflite(file, IMAGES) - expected).mean() / np.ptp(expected)
        assert error < {"float32": 1e-5, "float16": 2e-3, "int16x8": 0.01}.get(precision, 0.03)
    assert check_file(written, CPU, precision).passed
    probe = tflite_model(spec, precision)
    assert Counter(map(str, operators(probe))) == Counter(map(str, operators(written)))
    assert abs(len(probe) - len(written)) < 200
    assert np.isfinite(run_tflite(probe, IMAGES)).all()


def test_kernels_take_the_bytes_that_the_table_says(made: Any) -> None:
    spec, _, weights = made
    kernels = [group[0].size for name, group in weights.items() if not name.endswith(("norm", "/range"))]
    for precision, types in PRECISIONS.items():
        found = operators(tflite_model(spec, precision, weights))
        constants = {t.name: t for operator in found for t in operator.inputs if t.values is not None}
        stored = sum(t.values.nbytes for t in constants.values() if t.dtype == types.weights.upper())
        smallest = sum(size for size in kernels if size >= types.least_kernel) * types.weight_bytes
        biases = 0 if types.weights == "int8" else (32 + 32 + 4 + 32 + 40 + 3) * types.weight_bytes
        assert stored == smallest + biases


def test_hard_swish_has_no_int16_kernel_and_the_gate_says_so_before_a_search() -> None:
    spec = decode(L.sequential(conv=L.Conv2D(8, 3), swish=L.Activation("hard_swish")), (12, 12, 1), {})
    check = check_file(tflite_model(spec, "int16x8"), CPU, "int16x8")
    assert [(p.layer, p.operator, p.why) for p in check.problems] == [("swish", "HARD_SWISH", "it has no int16 kernel")]
    with pytest.raises(ExportError, match="HARD_SWISH"):  # which is true
        quantized_tflite(keras_model(spec), "int16x8", lambda: [IMAGES])


def test_the_gate_refuses_what_hardware_does_not_run(made: Any) -> None:
    spec, _, _ = made
    for name in ("edgetpu", "gpu"):
        assert not check_file(tflite_model(spec, "int16x8"), HARDWARE[name], "int16x8").passed
    assert check_file(tflite_model(spec, "float16"), HARDWARE["gpu"], "float16").passed
    assert not check_file(tflite_model(spec, "float32"), CPU, "int8-float-io").passed
    int16 = tflite_model(spec, "int16x8")
    assert {p.why for p in check_file(int16, CPU, "int8").problems} >= {"its type int16, int64 is not supported"}
