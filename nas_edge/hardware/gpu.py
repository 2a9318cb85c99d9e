"""A phone's GPU, by TFLite's GPU delegate. It computes int8 files in float, from int8 weights."""

from __future__ import annotations

from nas_edge.hardware.profile import Hardware, versions
from nas_edge.networks.tflite_model import OperatorInfo


def _one_covers_the_other(operator: OperatorInfo) -> str:
    shapes = [tensor.shape for tensor in operator.inputs]
    if len(shapes) != 2 or len(shapes[0]) != len(shapes[1]):
        return ""
    pairs = list(zip(*shapes, strict=True))
    if any(a < b for a, b in pairs) and any(a > b for a, b in pairs):
        return "one operand has to be at least as long as the other in every dimension"
    return ""


GPU = Hardware(
    name="gpu",
    what="a phone's GPU, by TFLite's GPU delegate",
    sources=("TensorFlow, tensorflow/lite/delegates/gpu/common/model_builder.cc: IsSupported of each operator",),
    precisions=frozenset({"int8", "int8-float-io", "float16", "float32"}),
    operators=versions(
        {
            "ABS": 2,
            "ADD": 2,
            "AVERAGE_POOL_2D": 2,
            "BATCH_MATMUL": 2,
            "CONCATENATION": 2,
            "CONV_2D": 5,
            "DEPTHWISE_CONV_2D": 6,
            "DEQUANTIZE": 2,
            "DIV": 2,
            "ELU": 1,
            "EXP": 2,
            "FULLY_CONNECTED": 9,
            "HARD_SWISH": 1,
            "LEAKY_RELU": 2,
            "LOG": 2,
            "LOGISTIC": 2,
            "MAXIMUM": 2,
            "MAX_POOL_2D": 2,
            "MEAN": 2,
            "MINIMUM": 2,
            "MIRROR_PAD": 2,
            "MUL": 3,
            "NEG": 1,
            "PACK": 2,
            "PAD": 2,
            "POW": 1,
            "PRELU": 1,
            "QUANTIZE": 2,
            "REDUCE_MAX": 2,
            "REDUCE_MIN": 2,
            "RELU": 2,
            "RELU6": 2,
            "RESHAPE": 1,
            "RESIZE_BILINEAR": 3,
            "RESIZE_NEAREST_NEIGHBOR": 3,
            "RSQRT": 2,
            "SLICE": 2,
            "SOFTMAX": 2,
            "SPACE_TO_DEPTH": 2,
            "SPLIT_V": 2,
            "SQRT": 2,
            "SQUARE": 1,
            "SQUARED_DIFFERENCE": 2,
            "STRIDED_SLICE": 2,
            "SUB": 2,
            "SUM": 2,
            "TANH": 2,
            "TRANSPOSE": 2,
            "TRANSPOSE_CONV": 3,
        },
        {"MUL": (_one_covers_the_other,)},
    ),
)
