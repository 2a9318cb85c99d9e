"""TFLite files written directly from a `NetworkSpec`, in milliseconds and without TensorFlow.

A search measures thousands of candidates, and the converter needs seconds for each. This writer emits what the
TensorFlow 2.21 converter emits for `keras_model` at batch 1: the same operators in the same order with the same fused
activations, shapes and versions, so that a file times like the one that is finally shipped. It works in four steps:

1. *lower*: every node becomes TFLite operators on float tensors, batch norm folded and activations fused
   (`Primitive.lower`);
2. *parameters*: kernels and biases are filled in, real ones or a probe's;
3. *quantise* (all but float32): smaller kernels and, where activations are integers, scales and zero points for every
   tensor, by the TFLite quantisation specification
   (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec);
4. *pack*: the flatbuffer, by the public schema that ai-edge-litert ships.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.formatting import reason
from nas_edge.networks.analysis import weight_shapes
from nas_edge.networks.flatbuffer import IDENTIFIER, AlignedBuffer, pack
from nas_edge.networks.graph import NetworkSpec, Node, Shape, Weights, ranges_of
from nas_edge.networks.precisions import PRECISIONS, NumberTypes, Precision
from nas_edge.networks.primitives.batch_norm import BATCH_NORM_EPSILON
from nas_edge.networks.tflite_graph import Operator, Tensor, TFLiteGraph

_Range: TypeAlias = tuple[float, float]

# Length of the random block that a probe's kernels repeat: short enough that general-purpose compression finds the
# repeats in its window, and prime, so that neighbouring filters differ.
_BLOCK = 1021

# What a probe's tensors are assumed to hold, as they would after batch norm.
_PROBE_INPUT_RANGE = (-1.0, 1.0)
_PROBE_RANGE = (-4.0, 4.0)
_PROBE_ACTIVATED_RANGE = (0.0, 4.0)


def tflite_model(
    spec: NetworkSpec,
    precision: Precision,
    weights: Weights | None = None,
    activation_ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
) -> bytes:
    """Writes a network as a TFLite file with batch 1.

    Without weights the file is a *probe*: it times like the real network and computes nothing of use. Its kernels are
    a repeated random block, so that it compresses well for slow links. With weights it is *faithful*: it computes what
    `keras_model` computes from them, batch norm folded.

    Args:
        spec: the network.
        precision: a name in `PRECISIONS`. In `int8`, activations are asymmetric per tensor, weights symmetric per
            output channel.
        weights: arrays by node name, as `keras_model.get_weights` returns them; None for a probe.
        activation_ranges: where activations are integers, the smallest and largest value of each node's output
            (`input` for the network's input). A node that is fused into a later one, or that moves values only, needs
            none. None: those that the weights keep, see `graph.with_ranges`.
        seed: of the probe's random block.

    Returns:
        The file's bytes.

    Raises:
        ValueError: for a layer this writer does not know, weights that do not fit, or missing activation ranges.

    Source: the operators are those TensorFlow 2.21's converter emits; the tests compare the two.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, received {precision!r}")
    types = PRECISIONS[precision]
    if weights is not None and activation_ranges is None:
        activation_ranges = ranges_of(weights) or None
    if types.calibrated and weights is not None and activation_ranges is None:
        raise ValueError(
            f"an {precision} file with real weights needs activation_ranges, measured on representative inputs"
        )
    graph = TFLiteGraph(spec)
    if weights is None:
        _fill_with_probe(graph, types, np.random.default_rng(seed))
    else:
        _fill_with_weights(graph, spec, weights)
    if types.calibrated:
        _quantize(graph, types, activation_ranges)
    else:
        _shrink_kernels(graph, types)
    return _pack(graph)


# ---------------------------------------------------------------- step 2: parameters


def _fill_with_probe(graph: TFLiteGraph, types: NumberTypes, rng: np.random.Generator) -> None:
    """Gives every convolution kernels made of one random block, and small biases."""
    block = rng.uniform(-1.0, 1.0, _BLOCK).astype(np.float32)
    block -= block.mean()  # every filter repeats the same mean, so a large one would grow from layer to layer
    integers = np.rint(block / np.abs(block).max() * 127).astype(np.int8)
    for operator in graph.operators:
        if operator.kernel_axes is None:
            continue
        _, kernel, bias = operator.inputs
        channels = kernel.shape[kernel.channel_axis]
        fan_in = math.prod(kernel.shape) // channels
        largest = math.sqrt(3.0 / fan_in)  # of a uniform distribution of variance 1 / fan_in
        bias.data = np.resize(block * np.float32(0.1), bias.shape)
        if _is_int8(kernel, types):
            kernel.dtype = "int8"
            kernel.scale = np.full(channels, largest / 127)
            kernel.data = np.resize(integers, kernel.shape)
        else:
            kernel.data = np.resize(block * np.float32(largest), kernel.shape)


def _is_int8(kernel: Tensor, types: NumberTypes) -> bool:
    return types.weights == "int8" and math.prod(kernel.shape) >= types.least_kernel


def _fill_with_weights(graph: TFLiteGraph, spec: NetworkSpec, weights: Weights) -> None:
    """Gives every convolution its real kernel and bias, with the batch norm that follows folded in."""
    for operator in graph.operators:
        if operator.kernel_axes is None:
            continue
        _, kernel, bias = operator.inputs
        arrays = _weights_of(spec, operator.nodes[0], weights)
        values = arrays[0].transpose(operator.kernel_axes)
        offset = arrays[1] if len(arrays) > 1 else np.zeros(bias.shape, np.float32)
        if operator.normalization is not None:
            gamma, beta, mean, variance = _weights_of(spec, operator.normalization, weights)
            factor = gamma / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
            values = values * factor.reshape(_along_channels(kernel))
            offset = offset * factor + (beta - mean * factor)
        kernel.data, bias.data = values, offset


def _along_channels(kernel: Tensor) -> Shape:
    """The shape that makes one value per output channel broadcast over a kernel."""
    return tuple(-1 if axis == kernel.channel_axis else 1 for axis in range(len(kernel.shape)))


def _weights_of(spec: NetworkSpec, node: Node, weights: Weights) -> list[NDArray[np.float32]]:
    shapes = weight_shapes(spec, node)
    if node.name not in weights:
        raise ValueError(f"{node.name}: its weights are missing")
    arrays = [np.asarray(array, np.float32) for array in weights[node.name]]
    received = [array.shape for array in arrays]
    if received != shapes:
        raise ValueError(f"{node.name}: expected weights of shapes {shapes}, received {received}")
    return arrays


# ---------------------------------------------------------------- step 3: quantise


# Limits of the converter: ranges below the first count as zero, and a bias uses half of int32.
_NEAR_ZERO = 1e-6
_LARGEST_BIAS = 2**30
_LARGEST_WIDE_BIAS = 2**38  # the runtime's int16 kernels take biases of 40 bits

# The schema's number of int64, and the operators whose options name the type of an integer bias.
_INT64 = 4
_NAMES_BIAS_TYPE = frozenset({"CONV_2D", "FULLY_CONNECTED"})


def _quantize(graph: TFLiteGraph, types: NumberTypes, ranges: Mapping[str, tuple[float, float]] | None) -> None:
    """Turns a float graph into one whose activations are integers."""
    to_integers = _to_int8 if types.activations == "int8" else _to_int16
    to_integers(graph.input, _range_of(graph.input.name, ranges, _PROBE_INPUT_RANGE))
    for operator in graph.operators:
        source, output = operator.inputs[0], operator.output
        if operator.int8_scale == "input":
            output.dtype, output.scale, output.zero_point = source.dtype, source.scale, source.zero_point
        elif operator.int8_scale is not None:
            scale, zero_point = operator.int8_scale
            if types.activations == "int16":  # such operators write 0 to 1 there, too
                scale, zero_point = scale / 128, 0
            output.dtype, output.scale, output.zero_point = types.activations, np.array([scale]), zero_point
        else:
            activated = operator.activated or operator.activation != "NONE"
            default = _PROBE_ACTIVATED_RANGE if activated else _PROBE_RANGE
            to_integers(output, _range_of(graph.range_of(output), ranges, default))
        if operator.kernel_axes is not None:
            _, kernel, bias = operator.inputs
            _quantize_convolution(source, kernel, bias, types)
            if types.bias == "int64" and operator.options is not None and operator.kind in _NAMES_BIAS_TYPE:
                operator.options[1]["quantizedBiasType"] = _INT64
    if types.io != types.activations:
        _add_casts(graph, types)


def _add_casts(graph: TFLiteGraph, types: NumberTypes) -> None:
    """Gives the network an input and an output of another type than its activations have."""
    inside, result = graph.input, graph.output
    graph.input = Tensor(inside.name, inside.shape, types.io)
    inside.name = f"{inside.name}/quantized"
    graph.operators.insert(0, Operator("QUANTIZE", [graph.input], inside, [], int8_version=1))
    graph.output = Tensor(result.name, result.shape, types.io)
    result.name = f"{result.name}/quantized"
    graph.operators.append(Operator("DEQUANTIZE", [result], graph.output, [], float_version=2))


# Versions of operators that read int8 kernels and float activations; all of a kind have the latest that one needs.
_HYBRID_VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6}


def _shrink_kernels(graph: TFLiteGraph, types: NumberTypes) -> None:
    """Stores the kernels of a float graph smaller, if `types` say so."""
    with_kernel = [operator for operator in graph.operators if operator.kernel_axes is not None]
    if types.weights == "int8":
        shrunk = [operator for operator in with_kernel if _is_int8(operator.inputs[1], types)]
        for operator in shrunk:
            _quantize_kernel(operator.inputs[1])
        kinds = {operator.kind for operator in shrunk}
        for operator in with_kernel:
            if operator.kind in kinds:
                operator.float_version = _HYBRID_VERSIONS.get(operator.kind, 1)
    elif types.weights != "float32":
        for operator in with_kernel:
            for position in (1, 2):
                stored = operator.inputs[position]
                assert stored.data is not None
                operator.inputs[position] = Tensor(stored.name, stored.shape)
                stored.name, stored.dtype = f"{stored.name}/{types.weights}", types.weights
                stored.data = stored.data.astype(types.weights)
                cast = Operator("DEQUANTIZE", [stored], operator.inputs[position], [], float_version=3)
                graph.operators.insert(0, cast)


def _range_of(name: str, ranges: Mapping[str, tuple[float, float]] | None, default: _Range) -> _Range:
    if ranges is None:
        return default
    if name not in ranges:
        raise ValueError(f"{name}: activation_ranges has no range for its output")
    return ranges[name]


def _with_zero(tensor: Tensor, limits: _Range) -> _Range:
    """A range that contains zero, and something else."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if not math.isfinite(high - low):
        raise ValueError(f"{tensor.name}: expected a finite activation range, received {limits}")
    return (-_NEAR_ZERO, _NEAR_ZERO) if low == high else (low, high)


def _to_int16(tensor: Tensor, limits: _Range) -> None:
    """Symmetric, per tensor."""
    low, high = _with_zero(tensor, limits)
    tensor.dtype, tensor.scale, tensor.zero_point = "int16", np.array([max(-low, high) / 32767]), 0


def _to_int8(tensor: Tensor, limits: _Range) -> None:
    """Asymmetric, per tensor; zero is always exactly representable."""
    low, high = _with_zero(tensor, limits)
    scale = (high - low) / 255
    tensor.dtype, tensor.scale = "int8", np.array([scale])
    tensor.zero_point = round(-128 - low / scale)


def _quantize_convolution(source: Tensor, kernel: Tensor, bias: Tensor, types: NumberTypes) -> None:
    """Kernel symmetric in -127..127 with a scale per output channel; bias in units of the accumulator."""
    assert bias.data is not None
    assert source.scale is not None
    # A channel's scale grows until its bias fits: kernels of nearly dead channels would not matter beside it.
    largest_bias = _LARGEST_BIAS if types.bias == "int32" else _LARGEST_WIDE_BIAS
    _quantize_kernel(kernel, np.abs(bias.data) / (source.scale * largest_bias))
    assert kernel.scale is not None
    bias.scale = source.scale * kernel.scale
    bias.data = np.clip(np.rint(bias.data / bias.scale), -largest_bias, largest_bias).astype(types.bias)
    bias.dtype = types.bias


def _quantize_kernel(kernel: Tensor, least_scale: Any = 0.0) -> None:
    assert kernel.data is not None
    if kernel.scale is not None:  # of a probe
        return
    others = tuple(i for i in range(kernel.data.ndim) if i != kernel.channel_axis)
    largest = np.abs(kernel.data).max(axis=others).astype(np.float64)
    kernel.scale = np.maximum(np.maximum(largest, _NEAR_ZERO / 2) / 127, least_scale)
    kernel.data = np.rint(kernel.data / kernel.scale.reshape(_along_channels(kernel))).astype(np.int8)
    kernel.dtype = "int8"


# ---------------------------------------------------------------- step 4: pack

_SCHEMA_VERSION = 3


def _pack(graph: TFLiteGraph) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    constants: dict[Tensor, None] = {
        tensor: None for operator in graph.operators for tensor in operator.inputs if tensor.data is not None
    }
    tensors = [graph.input, *constants, *(operator.output for operator in graph.operators)]
    index = {tensor: i for i, tensor in enumerate(tensors)}
    values = [tensor.data.astype(tensor.dtype, copy=False) for tensor in constants if tensor.data is not None]
    size = sum(array.nbytes for array in values)

    codes: dict[tuple[str, int], int] = {}
    operators = [_operator(schema, operator, index, codes) for operator in graph.operators]
    # Buffer 0 is empty by convention and serves every activation.
    buffers = {tensor: i for i, tensor in enumerate(constants, start=1)}

    model = schema.ModelT()
    model.version = _SCHEMA_VERSION
    model.description = b"nas_edge"
    model.operatorCodes = [_operator_code(schema, kind, version) for kind, version in codes]
    model.buffers = [schema.BufferT(), *map(AlignedBuffer, values)]
    subgraph = schema.SubGraphT()
    subgraph.name = b"main"
    subgraph.tensors = [_tensor(schema, tensor, buffers.get(tensor, 0)) for tensor in tensors]
    subgraph.inputs, subgraph.outputs = np.array([0], np.int32), np.array([index[graph.output]], np.int32)
    subgraph.operators = operators
    model.subgraphs = [subgraph]
    model.signatureDefs = [_signature(schema, index[graph.output])]
    return pack(model, size + 1024 * (len(tensors) + len(graph.operators)))


def _operator_code(schema: Any, kind: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = version
    return code


def _operator(schema: Any, operator: Operator, index: Mapping[Tensor, int], codes: dict[tuple[str, int], int]) -> Any:
    packed = schema.OperatorT()
    packed.opcodeIndex = codes.setdefault((operator.kind, operator.version), len(codes))
    packed.inputs = np.array([index[tensor] for tensor in operator.inputs], np.int32)
    packed.outputs = np.array([index[operator.output]], np.int32)
    if operator.options is not None:
        name, fields = operator.options
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        packed.builtinOptions = options = getattr(schema, f"{name}T")()
        for key, value in fields.items():
            setattr(options, key, value)
        if operator.fuses_activation:
            options.fusedActivationFunction = getattr(schema.ActivationFunctionType, operator.activation)
    return packed


def _tensor(schema: Any, tensor: Tensor, buffer: int) -> Any:
    packed = schema.TensorT()
    packed.name = tensor.name.encode()
    packed.shape = np.array(tensor.shape, np.int32)
    packed.type = getattr(schema.TensorType, tensor.dtype.upper())
    packed.buffer = buffer
    packed.hasRank = True
    packed.quantization = quantization = schema.QuantizationParametersT()
    if tensor.scale is not None:
        quantization.scale = tensor.scale.astype(np.float32)
        quantization.zeroPoint = np.full(len(tensor.scale), tensor.zero_point, np.int64)
        quantization.quantizedDimension = tensor.channel_axis
    return packed


def _signature(schema: Any, output: int) -> Any:
    def named(name: bytes, index: int) -> Any:
        tensor = schema.TensorMapT()
        tensor.name, tensor.tensorIndex = name, index
        return tensor

    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    signature.inputs, signature.outputs = [named(b"input", 0)], [named(b"output_0", output)]
    return signature


# ---------------------------------------------------------------- reading files back


@dataclass(frozen=True)
class FileTensor:
    """A tensor that an operator of a TFLite file reads or writes.

    Attributes:
        name: in the file.
        shape: batch included.
        dtype: the schema's name, for example `INT8`.
        dynamic: whether a dimension may have any size.
        values: of a constant, as stored; None for an activation.
        zero_point: the stored value of zero; None without quantisation.
    """

    name: str
    shape: Shape
    dtype: str
    dynamic: bool
    values: NDArray[Any] | None
    zero_point: int | None


@dataclass(frozen=True)
class OperatorInfo:
    """One operator of a TFLite file. Equal for operators that compute alike, whatever their tensors are called.

    Attributes:
        name: as in the schema, for example `CONV_2D`; `CUSTOM:name` for a custom operator.
        version: the operator version.
        fused_activation: `NONE`, `RELU`, `RELU6`, ...
        output_shape: shape of the first output, batch included.
        input_dtypes: the schema's names of the inputs' types, for example `INT8`; absent optional inputs are left out.
        output_dtypes: the same of the outputs.
        inputs: what it reads, constants included.
        outputs: what it writes.
    """

    name: str
    version: int
    fused_activation: str
    output_shape: Shape
    input_dtypes: tuple[str, ...]
    output_dtypes: tuple[str, ...]
    inputs: tuple[FileTensor, ...] = field(default=(), compare=False, repr=False)
    outputs: tuple[FileTensor, ...] = field(default=(), compare=False, repr=False)


def operators(model: bytes) -> list[OperatorInfo]:
    """Lists the operators of a TFLite file, over all subgraphs, in the order of execution.

    Raises:
        ValueError: when the bytes are not a whole TFLite file.
    """
    if len(model) < 8 or model[4:8] != IDENTIFIER:
        raise ValueError(f"not a TFLite file: expected the identifier {IDENTIFIER!r}, received {model[4:8]!r}")
    try:
        return list(_read_operators(model))
    except (struct.error, LookupError, TypeError, ValueError, OverflowError) as e:
        raise ValueError(f"the TFLite file is damaged or truncated ({reason(e)})") from None


def _read_operators(data: bytes) -> Iterator[OperatorInfo]:
    from ai_edge_litert import schema_py_generated as schema

    kinds, options, activations, types = (
        {value: name for name, value in vars(enum).items() if isinstance(value, int)}
        for enum in (
            schema.BuiltinOperator,
            schema.BuiltinOptions,
            schema.ActivationFunctionType,
            schema.TensorType,
        )
    )
    unread = len(data)

    def entries(length: int) -> range:
        # Every entry of a real file takes bytes of its own, so a damaged length cannot ask for endless loops.
        nonlocal unread
        unread -= length
        if unread < 0:
            raise ValueError("more entries than bytes")
        return range(length)

    def checked(index: int, length: int) -> int:
        if not 0 <= index < length:
            raise ValueError(f"index {index} of {length} entries")
        return index

    model = schema.Model.GetRootAs(data, 0)
    for s in entries(model.SubgraphsLength()):
        subgraph = model.Subgraphs(s)

        known: dict[int, FileTensor] = {}

        def tensor(index: int, subgraph: Any = subgraph, known: dict[int, FileTensor] = known) -> FileTensor:
            if index not in known:
                found = subgraph.Tensors(checked(index, subgraph.TensorsLength()))
                buffer = model.Buffers(checked(found.Buffer(), model.BuffersLength()))
                known[index] = _file_tensor(found, types[found.Type()], buffer, entries)
            return known[index]

        for o in entries(subgraph.OperatorsLength()):
            operator = subgraph.Operators(o)
            code = model.OperatorCodes(checked(operator.OpcodeIndex(), model.OperatorCodesLength()))
            # Files from before 2020 keep the code in a one-byte field; the runtime too takes the larger of the two.
            name = kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            if name == "CUSTOM":
                name = f"CUSTOM:{(code.CustomCode() or b'').decode()}"
            read = [operator.Inputs(i) for i in entries(operator.InputsLength())]
            inputs = tuple(tensor(index) for index in read if index != -1)
            outputs = tuple(tensor(operator.Outputs(i)) for i in entries(operator.OutputsLength()))
            yield OperatorInfo(
                name,
                code.Version(),
                activations[_fused_activation(operator, getattr(schema, options[operator.BuiltinOptionsType()], None))],
                outputs[0].shape if outputs else (),
                tuple(one.dtype for one in inputs),
                tuple(one.dtype for one in outputs),
                inputs,
                outputs,
            )


def _fused_activation(operator: Any, table: Any) -> int:
    """The activation in an operator's options, whose table in the schema is given; None has none."""
    if table is None or not hasattr(table, "FusedActivationFunction") or not operator.BuiltinOptions():
        return 0
    parsed = table()
    parsed.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
    return int(parsed.FusedActivationFunction())


# NumPy's types of those whose values are looked at.
_NUMPY_TYPES = {"INT8": "<i1", "INT32": "<i4", "FLOAT32": "<f4"}


def _file_tensor(tensor: Any, dtype: str, buffer: Any, entries: Callable[[int], range]) -> FileTensor:
    """Reads a tensor.

    Args:
        tensor: in the file.
        dtype: its type in the schema.
        buffer: its values, if it has any.
        entries: counts what is read, see `_read_operators`.
    """
    shape = tuple(tensor.Shape(i) for i in entries(tensor.ShapeLength()))
    signature = tuple(tensor.ShapeSignature(i) for i in entries(tensor.ShapeSignatureLength()))
    quantization = tensor.Quantization()
    quantized = quantization is not None and quantization.ZeroPointLength() > 0
    return FileTensor(
        name=(tensor.Name() or b"").decode(errors="replace"),
        shape=shape,
        dtype=dtype,
        dynamic=any(size < 0 for size in (*shape, *signature)),
        values=buffer.DataAsNumpy().view(_NUMPY_TYPES.get(dtype, "u1")) if buffer.DataLength() else None,
        zero_point=int(quantization.ZeroPoint(0)) if quantized else None,
    )
