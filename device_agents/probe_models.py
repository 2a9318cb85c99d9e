"""The built-in probes: the same small networks in every session.

A session visits them again and again; since they never change, a changed time means a changed device, and what each
of them depends on says what has changed. Written with the public TFLite schema, without TensorFlow.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from device_agents.errors import DeviceUnavailableError

_SIDE, _CHANNELS, _CONVOLUTIONS = 32, 32, 4
# Values of the tensors that are read and written: 16 MiB each, more than the caches of a phone or a laptop hold; and
# 0.5 MiB each, the size of a core's own cache.
_MEMORY_VALUES, _CACHE_VALUES = 4 << 20, 128 << 10
_MEMORY_ADDITIONS, _CACHE_ADDITIONS = 1, 8


@functools.cache
def compute_model() -> bytes:
    """Returns a stack of float 3x3 convolutions, 38 million multiply-adds in all, that stays in a core's own cache.

    Raises:
        DeviceUnavailableError: If ai-edge-litert, which ships the schema, is missing.
    """
    flatbuffers, schema = _writers()
    shape = (1, _SIDE, _SIDE, _CHANNELS)
    constants = [
        _tensor(schema, "weights", (_CHANNELS, 3, 3, _CHANNELS), buffer=1),
        _tensor(schema, "bias", (_CHANNELS,), buffer=2),
    ]
    buffers = [_buffer(schema, 9 * _CHANNELS**2), _buffer(schema, _CHANNELS)]
    chain = _Chain("CONV_2D", shape, _CONVOLUTIONS, (0, 1), _conv_options(schema))
    return _write(flatbuffers, schema, "compute", constants, buffers, chain)


@functools.cache
def memory_model() -> bytes:
    """Returns an addition of 16 MiB of floats, bound by the memory's bandwidth; errors as `compute_model`."""
    return _additions("memory", _MEMORY_VALUES, _MEMORY_ADDITIONS)


@functools.cache
def cache_model() -> bytes:
    """Returns additions of tensors that together fill a core's own cache, 1 MiB; errors as `compute_model`."""
    return _additions("cache", _CACHE_VALUES, _CACHE_ADDITIONS)


PROBE_MODELS: dict[str, Callable[[], bytes]] = {
    "compute": compute_model,
    "cache": cache_model,
    "memory": memory_model,
}


@dataclass(frozen=True)
class _Chain:
    """Operators of one kind, one after another, on activations of one shape.

    Attributes:
        op: Name of the operator.
        shape: Of the activations.
        length: How many operators.
        constants: Positions of the constant tensors that each takes besides the activation; without any, it takes the
            activation twice.
        options: Name of the options' type and the options.
    """

    op: str
    shape: tuple[int, ...]
    length: int
    constants: tuple[int, ...]
    options: tuple[str, Any]


def _additions(name: str, values: int, length: int) -> bytes:
    flatbuffers, schema = _writers()
    options = schema.AddOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.NONE
    return _write(flatbuffers, schema, name, [], [], _Chain("ADD", (1, values), length, (), ("AddOptions", options)))


def _writers() -> tuple[Any, Any]:
    try:
        flatbuffers = importlib.import_module("flatbuffers")
        return flatbuffers, importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise DeviceUnavailableError(
            f"The built-in probe models need ai-edge-litert on this machine ({error})",
            fix="install it: pip install ai-edge-litert flatbuffers",
        ) from error


def _write(
    flatbuffers: Any, schema: Any, name: str, constants: Sequence[Any], buffers: Sequence[Any], chain: _Chain
) -> bytes:
    first = len(constants)
    graph = schema.SubGraphT()
    graph.tensors = [
        *constants,
        *(_tensor(schema, f"activation{i}", chain.shape, buffer=0) for i in range(chain.length + 1)),
    ]
    graph.operators = [_operator(schema, first + position, chain) for position in range(chain.length)]
    graph.inputs, graph.outputs = [first], [first + chain.length]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, chain.op)
    code.version = 1
    model = schema.ModelT()
    model.version = 3
    model.description = f"nas_edge {name} probe 1".encode()
    model.operatorCodes = [code]
    model.buffers = [schema.BufferT(), *buffers]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _operator(schema: Any, source: int, chain: _Chain) -> Any:
    kind, options = chain.options
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = [source, *(chain.constants or [source])], [source + 1]
    operator.builtinOptions = options
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    return operator


def _conv_options(schema: Any) -> tuple[str, Any]:
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME
    options.strideW = options.strideH = 1
    options.dilationWFactor = options.dilationHFactor = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return "Conv2DOptions", options


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
