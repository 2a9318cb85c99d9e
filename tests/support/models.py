"""Small TFLite files written with the public schema, so that tests need no TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

T = schema.TensorType
OP = schema.BuiltinOperator
OPT = schema.BuiltinOptions


class GraphWriter:
    """Collects tensors and operators of one subgraph and packs them."""

    def __init__(self) -> None:
        self._subgraph = schema.SubGraphT()
        self._subgraph.tensors = []
        self._subgraph.operators = []
        self._codes: list[Any] = []
        self._buffers = [schema.BufferT()]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: int = T.FLOAT32,
        data: np.ndarray | None = None,
        signature: Sequence[int] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = dtype
        tensor.buffer = 0
        if signature is not None:
            tensor.shapeSignature = np.asarray(signature, np.int32)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self._buffers.append(buffer)
            tensor.buffer = len(self._buffers) - 1
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def op(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        options_type: int = OPT.NONE,
        version: int = 1,
        custom_code: bytes | None = None,
    ) -> None:
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode = code
        operator_code.deprecatedBuiltinCode = min(code, 127)
        operator_code.version = version
        operator_code.customCode = custom_code
        self._codes.append(operator_code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._codes) - 1
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray(outputs, np.int32)
        operator.builtinOptions = options
        operator.builtinOptionsType = options_type
        self._subgraph.operators.append(operator)

    def pack(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self._subgraph.inputs = np.asarray(inputs, np.int32)
        self._subgraph.outputs = np.asarray(outputs, np.int32)
        model = schema.ModelT()
        model.version = 3
        model.description = b"test"
        model.operatorCodes = self._codes
        model.subgraphs = [self._subgraph]
        model.buffers = self._buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _conv_options() -> Any:
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME
    options.strideW = options.strideH = 1
    options.dilationWFactor = options.dilationHFactor = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return options


@functools.cache
def conv_model(layers: int = 4, channels: int = 32, side: int = 32) -> bytes:
    """A stack of 3x3 convolutions: float32 [1, side, side, channels] to the same."""
    graph = GraphWriter()
    rng = np.random.default_rng(0)
    first = current = graph.tensor("input", (1, side, side, channels))
    for layer in range(layers):
        weights = rng.normal(0, 0.05, (channels, 3, 3, channels)).astype(np.float32)
        w = graph.tensor(f"w{layer}", weights.shape, data=weights)
        b = graph.tensor(f"b{layer}", (channels,), data=np.zeros(channels, np.float32))
        out = graph.tensor(f"out{layer}", (1, side, side, channels))
        graph.op(OP.CONV_2D, (current, w, b), (out,), _conv_options(), OPT.Conv2DOptions)
        current = out
    return graph.pack((first,), (current,))


def binary_model(
    code: int = OP.ADD,
    options: Any = None,
    options_type: int = OPT.AddOptions,
    shape: Sequence[int] = (1, 4),
    dtype: int = T.FLOAT32,
    signature: Sequence[int] | None = None,
) -> bytes:
    """A model of two inputs, `a` and `b`, and one operator."""
    graph = GraphWriter()
    a = graph.tensor("a", shape, dtype, signature=signature)
    b = graph.tensor("b", shape, dtype, signature=signature)
    out = graph.tensor("out", shape, dtype, signature=signature)
    graph.op(code, (a, b), (out,), options or schema.AddOptionsT(), options_type)
    return graph.pack((a, b), (out,))


def unary_model(
    code: int,
    shape: Sequence[int] = (1, 4),
    dtype: int = T.FLOAT32,
    out_shape: Sequence[int] | None = None,
    out_dtype: int | None = None,
    options: Any = None,
    options_type: int = OPT.NONE,
    signature: Sequence[int] | None = None,
    custom_code: bytes | None = None,
) -> bytes:
    """A model of one input `x` and one operator."""
    graph = GraphWriter()
    x = graph.tensor("x", shape, dtype, signature=signature)
    out = graph.tensor("out", out_shape or shape, dtype if out_dtype is None else out_dtype)
    graph.op(code, (x,), (out,), options, options_type, custom_code=custom_code)
    return graph.pack((x,), (out,))


def empty_model() -> bytes:
    """A model whose output is its input: no operator at all."""
    graph = GraphWriter()
    x = graph.tensor("x", (1, 4))
    return graph.pack((x,), (x,))


def huge_model(gib: float = 64) -> bytes:
    """A model of a few hundred bytes whose tensors need so many GiB."""
    side = int((gib * 2**30 / 4) ** 0.5)
    return unary_model(OP.NEG, (side, side), options=schema.NegOptionsT(), options_type=OPT.NegOptions)


def string_model() -> bytes:
    """Gathers rows of a string input: string [3] and int32 [2] to string [2]."""
    graph = GraphWriter()
    words = graph.tensor("words", (3,), T.STRING)
    rows = graph.tensor("rows", (2,), T.INT32)
    out = graph.tensor("out", (2,), T.STRING)
    graph.op(OP.GATHER, (words, rows), (out,), schema.GatherOptionsT(), OPT.GatherOptions)
    return graph.pack((words, rows), (out,))
