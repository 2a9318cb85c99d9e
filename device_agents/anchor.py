"""The built-in anchor model: the same small network in every session.

A session measures it again and again; since the model never changes, a changed time means
a changed device. Written with the public TFLite schema, without TensorFlow.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from device_agents.errors import DeviceUnavailableError

_LAYERS = 4
_CHANNELS = 32
_SIDE = 32


@functools.cache
def builtin_anchor_model() -> bytes:
    """Returns a stack of float 3x3 convolutions, 38 million multiply-adds in all.

    Raises:
        DeviceUnavailableError: If ai-edge-litert, which ships the schema, is missing.
    """
    try:
        flatbuffers = importlib.import_module("flatbuffers")
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise DeviceUnavailableError(
            f"The built-in anchor model needs ai-edge-litert on this machine ({error})",
            fix="install it: pip install ai-edge-litert flatbuffers",
        ) from error
    model = schema.ModelT()
    model.version = 3
    model.description = b"nas_edge anchor model 1"
    model.operatorCodes = [_conv_code(schema)]
    model.buffers = [
        schema.BufferT(),
        _buffer(schema, 9 * _CHANNELS**2),
        _buffer(schema, _CHANNELS),
    ]
    model.subgraphs = [_graph(schema)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _graph(schema: Any) -> Any:
    activation = (1, _SIDE, _SIDE, _CHANNELS)
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(schema, "weights", (_CHANNELS, 3, 3, _CHANNELS), buffer=1),
        _tensor(schema, "bias", (_CHANNELS,), buffer=2),
        *(_tensor(schema, f"activation{i}", activation, buffer=0) for i in range(_LAYERS + 1)),
    ]
    first = 2
    graph.operators = [_conv(schema, first + layer) for layer in range(_LAYERS)]
    graph.inputs, graph.outputs = [first], [first + _LAYERS]
    return graph


def _conv_code(schema: Any) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    return code


def _conv(schema: Any, source: int) -> Any:
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME
    options.strideW = options.strideH = 1
    options.dilationWFactor = options.dilationHFactor = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = [source, 0, 1], [source + 1]
    operator.builtinOptions = options
    operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    return operator


def _tensor(schema: Any, name: str, shape: tuple[int, ...], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name = name.encode()
    tensor.shape = list(shape)
    tensor.type = schema.TensorType.FLOAT32
    tensor.buffer = buffer
    return tensor


def _buffer(schema: Any, count: int) -> Any:
    """Small positive weights, so that activations neither vanish nor grow without bound."""
    import numpy as np

    buffer = schema.BufferT()
    buffer.data = np.full(count, 1 / (9 * _CHANNELS), np.float32).view(np.uint8)
    return buffer
