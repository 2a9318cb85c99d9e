"""Coral's Edge TPU, by `edgetpu_compiler` 16.0, the last there is (2021).

The compiler puts operators on the Edge TPU up to the first that it does not take; the rest of the network then runs
on the CPU. Its documentation lists operators and conditions; which versions of them it takes, it does not say. Listed
are those that int8 operators had in TFLite 2.5, of the compiler's time; of the resize operators, those of which no
report of "Operation version not supported" was found.
"""

from __future__ import annotations

import json

import numpy as np

from nas_edge.hardware.profile import Hardware, HardwareFiles, not_fused, versions
from nas_edge.networks.tflite_model import OperatorInfo

MOST_SOFTMAX_VALUES = 16_000

# In a bundle.
COMPILED_FILE = "model_int8_edgetpu.tflite"
MAPPING_FILE = "edgetpu_mapping.json"


def _three_dimensions(operator: OperatorInfo) -> str:
    for tensor in (*operator.inputs, *operator.outputs):
        if tensor.values is None and any(size > 1 for size in tensor.shape[:-3]):
            return f"{tensor.name} {list(tensor.shape)} is longer than 1 in more than the last three dimensions"
    return ""


def _constant_weights(operator: OperatorInfo) -> str:
    open_inputs = [tensor.name for tensor in operator.inputs[1:] if tensor.values is None]
    return f"its weights {open_inputs[0]} are no constant" if open_inputs else ""


def _constant_kernel(operator: OperatorInfo) -> str:
    # Output shape, kernel, image and perhaps a bias.
    open_inputs = [tensor.name for i, tensor in enumerate(operator.inputs) if i != 2 and tensor.values is None]
    return f"its weights {open_inputs[0]} are no constant" if open_inputs else ""


def _vector_output(operator: OperatorInfo) -> str:
    return "" if _is_vector(operator.output_shape) else f"its output {list(operator.output_shape)} is no vector"


def _short_softmax(operator: OperatorInfo) -> str:
    if not _is_vector(operator.output_shape):
        return f"its input {list(operator.output_shape)} is no vector"
    count = operator.output_shape[-1]
    return "" if count <= MOST_SOFTMAX_VALUES else f"it has {count} values, more than {MOST_SOFTMAX_VALUES}"


def _is_vector(shape: tuple[int, ...]) -> bool:
    return all(size == 1 for size in shape[:-1])


def _reduced_axes(operator: OperatorInfo) -> set[int]:
    """The axes over which an operator reduces; empty if they are no constant."""
    source, axes = operator.inputs
    if axes.values is None:
        return set()
    return {int(axis) % len(source.shape) for axis in axes.values.reshape(-1)}


def _reduces_no_batch(operator: OperatorInfo) -> str:
    source = operator.inputs[0]
    return "it reduces over the batch" if len(source.shape) == 4 and 0 in _reduced_axes(operator) else ""


def _mean_of_channels(operator: OperatorInfo) -> str:
    source = operator.inputs[0]
    if len(source.shape) - 1 in _reduced_axes(operator) and source.shape[-1] % 4:
        return f"it reduces over {source.shape[-1]} channels, which is no multiple of 4"
    return ""


def _pads_no_batch(operator: OperatorInfo) -> str:
    source, padding = operator.inputs[:2]
    if padding.values is None:
        return "its padding is no constant"
    return "it pads the batch" if len(source.shape) == 4 and padding.values.reshape(-1)[:2].any() else ""


def _zero_constants(operator: OperatorInfo) -> str:
    for tensor in operator.inputs:
        if tensor.values is not None and (len(operator.inputs) != 2 or (tensor.values != tensor.zero_point).any()):
            return f"it joins the constant {tensor.name}, which may only be zeros, with one other tensor"
    return ""


def _unit_strides(operator: OperatorInfo) -> str:
    strides = operator.inputs[-1].values
    return "" if strides is not None and np.all(strides == 1) else "its strides are not all 1"


def _slope_per_channel(operator: OperatorInfo) -> str:
    slopes = operator.inputs[1]
    return (
        "" if _is_vector(slopes.shape) else f"its slopes {list(slopes.shape)} are no vector (Keras: shared_axes=[1, 2])"
    )


def _gate(operator: OperatorInfo) -> str:
    """Squeeze-and-excitation: an image times one number per channel that depends on the image."""
    if operator.name != "MUL" or any(tensor.values is not None for tensor in operator.inputs):
        return ""
    shapes = {tensor.shape for tensor in operator.inputs}
    if len(shapes) == 1 or not any(_is_vector(shape) for shape in shapes):
        return ""
    return "gates an image by a vector, as squeeze-and-excitation does, which networks made for the Edge TPU leave out"


def _pools_all_pixels(operator: OperatorInfo) -> str:
    """Pooling that keeps the image's size."""
    pools = operator.name in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
    if not pools or operator.inputs[0].shape[1:3] != operator.output_shape[1:3]:
        return ""
    return "pools at stride 1, which networks made for the Edge TPU leave out"


def _compiled(model: bytes) -> HardwareFiles:
    """The file that an Edge TPU runs, and where each operator went, by the compiler if there is one."""
    from device_agents.edgetpu.compiler import EdgeTpuCompiler
    from device_agents.errors import DeviceError

    try:
        file, report = EdgeTpuCompiler().compile(model)
    except DeviceError as error:
        return HardwareFiles({}, f"no compiled file: {error}")
    files = {MAPPING_FILE: json.dumps(report.to_json(), indent=2).encode()}
    return HardwareFiles(files if file is None else {**files, COMPILED_FILE: file}, str(report))


EDGETPU = Hardware(
    name="edgetpu",
    what="Coral's Edge TPU, by edgetpu_compiler 16.0",
    sources=(
        "https://coral.ai/docs/edgetpu/models-intro: operators, conditions, dimensions of tensors, memory",
        "https://github.com/google-coral/edgetpu/issues/396 and 420: version 3 of the resize operators is not mapped",
        "https://github.com/google-coral/edgetpu/issues/272: neither are HARD_SWISH and LEAKY_RELU",
        "arXiv:2003.02838 (MobileNet-EdgeTPU): without squeeze-and-excitation and h-swish",
    ),
    operators=versions(
        {
            "ADD": 2,
            "AVERAGE_POOL_2D": 2,
            "CONCATENATION": 2,
            "CONV_2D": 3,
            "DEPTHWISE_CONV_2D": 3,
            "EXPAND_DIMS": 1,
            "FULLY_CONNECTED": 4,
            "L2_NORMALIZATION": 2,
            "LOGISTIC": 2,
            "MAXIMUM": 2,
            "MAX_POOL_2D": 2,
            "MEAN": 2,
            "MINIMUM": 2,
            "MUL": 3,
            "PACK": 2,
            "PAD": 2,
            "PRELU": 1,
            "QUANTIZE": 2,
            "REDUCE_MAX": 2,
            "REDUCE_MIN": 2,
            "RELU": 2,
            "RELU6": 2,
            "RELU_N1_TO_1": 1,
            "RESHAPE": 1,
            "RESIZE_BILINEAR": 2,
            "RESIZE_NEAREST_NEIGHBOR": 2,
            "RSQRT": 2,
            "SLICE": 2,
            "SOFTMAX": 2,
            "SPACE_TO_DEPTH": 2,
            "SPLIT": 2,
            "SQUARED_DIFFERENCE": 2,
            "SQUEEZE": 1,
            "STRIDED_SLICE": 2,
            "SUB": 3,
            "SUM": 2,
            "TANH": 2,
            "TRANSPOSE": 2,
            "TRANSPOSE_CONV": 3,
        },
        {
            "AVERAGE_POOL_2D": (not_fused,),
            "CONCATENATION": (not_fused, _zero_constants),
            "CONV_2D": (_constant_weights,),
            "DEPTHWISE_CONV_2D": (_constant_weights,),
            "FULLY_CONNECTED": (_constant_weights, _vector_output),
            "MAX_POOL_2D": (not_fused,),
            "MEAN": (_reduces_no_batch, _mean_of_channels),
            "PAD": (_pads_no_batch,),
            "PRELU": (_slope_per_channel,),
            "REDUCE_MAX": (_reduces_no_batch,),
            "REDUCE_MIN": (_reduces_no_batch,),
            "SOFTMAX": (_short_softmax,),
            "STRIDED_SLICE": (_unit_strides,),
            "SUM": (_reduces_no_batch,),
            "TRANSPOSE_CONV": (_constant_kernel,),
        },
    ),
    int8_dtypes=frozenset({"INT8", "UINT8", "INT32"}),
    precisions=frozenset({"int8"}),
    rules=(_three_dimensions,),
    # The program takes a part of it: in public logs the compiler has 6.1 to 7.5 MiB for parameters.
    on_chip_bytes=8 * 10**6,
    slow=(_gate, _pools_all_pixels),
    substitutes={"hard_swish": "relu"},
    keeps_gates=False,
    finish=_compiled,
)
