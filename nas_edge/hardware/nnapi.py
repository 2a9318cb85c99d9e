"""Android's Neural Networks API (1.3, Android 11), which Android 15 deprecates.

What is listed is what TFLite's delegate hands to NNAPI; whether a phone's driver takes it, only the phone can tell.
"""

from __future__ import annotations

from nas_edge.hardware.profile import Hardware, Rule, not_fused, versions
from nas_edge.networks.tflite_model import OperatorInfo


def exactly(version: int) -> Rule:
    """The condition that an operator has this version, and none before it."""

    def check(operator: OperatorInfo) -> str:
        return "" if operator.version == version else f"only version {version} is handed over"

    return check


def _has_bias(operator: OperatorInfo) -> str:
    return "" if len(operator.inputs) == 3 else "it has to have a bias"


NNAPI = Hardware(
    name="nnapi",
    what="what Android's NNAPI drives",
    sources=("TensorFlow, tensorflow/lite/delegates/nnapi/nnapi_delegate.cc: NNAPIDelegateKernel::Validate",),
    precisions=frozenset({"int8", "int8-float-io", "float16", "float32"}),
    operators=versions(
        {
            "ADD": 2,
            "ARG_MAX": 2,
            "ARG_MIN": 2,
            "AVERAGE_POOL_2D": 2,
            "CONCATENATION": 2,
            "CONV_2D": 5,
            "DEPTHWISE_CONV_2D": 3,
            "DEPTH_TO_SPACE": 2,
            "DEQUANTIZE": 2,
            "EXPAND_DIMS": 1,
            "FULLY_CONNECTED": 5,
            "GATHER": 2,
            "HARD_SWISH": 1,
            "L2_NORMALIZATION": 2,
            "LEAKY_RELU": 1,
            "LOGISTIC": 2,
            "MAXIMUM": 3,
            "MAX_POOL_2D": 2,
            "MEAN": 2,
            "MINIMUM": 3,
            # A third version only where an accelerator is named.
            "MUL": 2,
            "PAD": 2,
            "PACK": 2,
            "PADV2": 2,
            "PRELU": 1,
            "QUANTIZE": 2,
            "REDUCE_MAX": 2,
            "REDUCE_MIN": 2,
            "RELU": 2,
            "RELU6": 2,
            "RELU_N1_TO_1": 2,
            "RESHAPE": 1,
            "RESIZE_BILINEAR": 3,
            "RESIZE_NEAREST_NEIGHBOR": 3,
            "SLICE": 2,
            "SOFTMAX": 2,
            "SPACE_TO_BATCH_ND": 2,
            "SPACE_TO_DEPTH": 2,
            "SPLIT": 3,
            "SQUARED_DIFFERENCE": 2,
            "SQUEEZE": 1,
            "STRIDED_SLICE": 2,
            "SUB": 3,
            "TANH": 2,
            "TILE": 1,
            "TRANSPOSE": 2,
            "TRANSPOSE_CONV": 3,
        },
        {
            "CONCATENATION": (not_fused,),
            "CONV_2D": (_has_bias,),
            "GATHER": (exactly(2),),
            "L2_NORMALIZATION": (not_fused,),
            "PACK": (exactly(2),),
            "SOFTMAX": (exactly(2),),
            "SPLIT": (exactly(3),),
            "SQUARED_DIFFERENCE": (exactly(2),),
        },
    ),
)
