"""The gate on files written for it, operator by operator."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from nas_edge.errors import ConfigError, ExportError
from nas_edge.hardware import HARDWARE, find_hardware
from nas_edge.hardware.gate import HardwareCheck, check_file, require_hardware
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces.reference import reference_network
from tests.support.models import OP, OPT, GraphWriter, T, binary_model, conv_model, unary_model

EDGETPU, CPU, NNAPI = HARDWARE["edgetpu"], HARDWARE["cpu"], HARDWARE["nnapi"]


def reasons(model: bytes, hardware: str = "edgetpu") -> str:
    return "; ".join(problem.why for problem in check_file(model, HARDWARE[hardware]).problems)


def reduction(code: int, axes: list[int], shape: tuple[int, ...] = (1, 4, 4, 6)) -> bytes:
    graph = GraphWriter()
    source = graph.tensor("image", shape, T.INT8)
    axis = graph.tensor("axes", (len(axes),), T.INT32, np.array(axes, np.int32))
    out = graph.tensor("reduced", shape, T.INT8)
    graph.op(code, (source, axis), (out,), schema.ReducerOptionsT(), OPT.ReducerOptions, version=2)
    return graph.pack((source,), (out,))


def with_constants(code: int, *constants: list[int], shape: tuple[int, ...] = (1, 4, 4, 8)) -> bytes:
    graph = GraphWriter()
    source = graph.tensor("image", shape, T.INT8)
    others = [graph.tensor(f"constant{i}", (len(v),), T.INT32, np.array(v, np.int32)) for i, v in enumerate(constants)]
    out = graph.tensor("out", shape, T.INT8)
    graph.op(code, (source, *others), (out,))
    return graph.pack((source,), (out,))


def test_a_file_within_the_profile_passes() -> None:
    check = check_file(tflite_model(reference_network("mobilenet-v2", 32, 0.25, 10), "int8"), EDGETPU)
    assert check.passed
    assert str(check) == f"checked for edgetpu: {check.operators} operators, all within its profile"


def test_a_gate_is_advised_against_for_the_edge_tpu_only() -> None:
    file = tflite_model(reference_network("mobilenet-v3-large", 32, 0.25, 10), "int8")
    check = check_file(file, EDGETPU)
    assert {problem.operator for problem in check.advice} == {"MUL"}
    assert {problem.operator for problem in check.problems} == {"HARD_SWISH"}
    assert str(check).startswith("not for edgetpu: ")
    for name in ("cpu", "gpu", "nnapi"):
        assert check_file(file, HARDWARE[name]).passed
        assert check_file(file, HARDWARE[name]).advice == ()


def test_float_files_run_where_the_profile_says_so() -> None:
    assert check_file(conv_model(), CPU, "float32").passed
    assert "a float operator (float32) in an int8 file" in reasons(conv_model(), "cpu")
    assert "only int8 files run there" in str(check_file(conv_model(), EDGETPU, "float32"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (reduction(OP.MEAN, [1, 2]), ""),
        (reduction(OP.MEAN, [0, 1]), "it reduces over the batch"),
        (reduction(OP.MEAN, [3]), "it reduces over 6 channels, which is no multiple of 4"),
        (reduction(OP.MEAN, [-1], (1, 4, 4, 8)), ""),
        (reduction(OP.REDUCE_MAX, [0]), "it reduces over the batch"),
        (with_constants(OP.PAD, [0, 0, 1, 1, 1, 1, 0, 0]), ""),
        (with_constants(OP.PAD, [1, 0, 1, 1, 1, 1, 0, 0]), "it pads the batch"),
        (with_constants(OP.STRIDED_SLICE, [0] * 4, [4] * 4, [1] * 4), ""),
        (with_constants(OP.STRIDED_SLICE, [0] * 4, [4] * 4, [1, 2, 2, 1]), "its strides are not all 1"),
        (unary_model(OP.SOFTMAX, (1, 16_000), T.INT8), ""),
        (unary_model(OP.SOFTMAX, (1, 16_001), T.INT8), "it has 16001 values, more than 16000"),
        (unary_model(OP.SOFTMAX, (1, 2, 10), T.INT8), "its input [1, 2, 10] is no vector"),
        (binary_model(dtype=T.INT8, shape=(2, 4, 4, 8)), "is longer than 1 in more than the last three dimensions"),
        (binary_model(dtype=T.INT8, shape=(1, 1, 4, 4, 8)), "has more than 4 dimensions"),
        (binary_model(dtype=T.INT16), "its type int16 is not supported"),
        (unary_model(OP.CUSTOM, dtype=T.INT8, custom_code=b"mine"), "the operator is not supported"),
        (unary_model(OP.RELU, (1, 4), T.INT8, signature=(-1, 4)), "has a dimension of any size"),
        (unary_model(OP.MEAN, (1, 4), T.INT8), "its operands are not those of such an operator"),
    ],
)  # fmt: skip
def test_conditions_of_the_edge_tpus_compiler(model: bytes, words: str) -> None:
    found = reasons(model)
    assert (words in found) if words else found == ""


def test_nnapi_takes_exact_versions_of_some() -> None:
    assert reasons(unary_model(OP.SOFTMAX, (1, 10), T.INT8), "nnapi") == "only version 2 is handed over"


def test_a_damaged_file_is_no_crash() -> None:
    with pytest.raises(ExportError, match="damaged or truncated"):
        require_hardware(conv_model()[:200], CPU)


def test_what_was_found_survives_json() -> None:
    check = check_file(tflite_model(reference_network("mobilenet-v3-large", 32, 0.25, 10), "int8"), EDGETPU)
    assert HardwareCheck.from_json(json.loads(json.dumps(check.to_json()))) == check
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        HardwareCheck.from_json({"hardware": "cpu"})


def test_unknown_hardware_is_told_what_there_is() -> None:
    with pytest.raises(ConfigError, match="unknown hardware 'edgetup'; did you mean edgetpu"):
        find_hardware("edgetup")


def test_profiles_name_operators_of_the_schema() -> None:
    for hardware in HARDWARE.values():
        assert hardware.sources
        assert [name for name in hardware.operators if not hasattr(schema.BuiltinOperator, name)] == []
