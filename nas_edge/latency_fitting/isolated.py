"""An operator on its own, as a network that can be timed.

CONV_2D 56x56x24 -> 56x56x144 k1x1 s1 RELU   ->   a network of one layer, whose file has just that operator
"""

from __future__ import annotations

from nas_edge.latency.models.subject import OperatorShape, operator_sequence
from nas_edge.networks.graph import INPUT, GraphBuilder, NetworkSpec
from nas_edge.networks.primitives.activation import Activation
from nas_edge.networks.primitives.add import Add
from nas_edge.networks.primitives.base import Primitive
from nas_edge.networks.primitives.conv import Conv2D
from nas_edge.networks.primitives.depthwise_conv import DepthwiseConv2D
from nas_edge.networks.primitives.pool import GlobalAveragePool


def isolated_network(operator: OperatorShape) -> NetworkSpec | None:
    """A network whose TFLite file has this operator alone; None for one that cannot stand alone."""
    layer = _layer_of(operator)
    if layer is None or len(operator.sources[0]) != 3:
        return None
    builder = GraphBuilder(operator.sources[0])
    last = builder.add("operator", layer, *[INPUT] * len(operator.sources))
    if operator.activation == "RELU":
        builder.add("activation", Activation("relu"), last)
    network = builder.build()
    return network if operator_sequence(network) == [operator] else None


def _layer_of(operator: OperatorShape) -> Primitive | None:
    kernel = operator.kernel[0] if operator.kernel else 0
    if operator.kind == "CONV_2D":
        return Conv2D(operator.output[-1], kernel, operator.stride, use_bias=True)
    if operator.kind == "DEPTHWISE_CONV_2D":
        return DepthwiseConv2D(kernel, operator.stride)
    if operator.kind == "ADD":
        return Add()
    if operator.kind == "HARD_SWISH":
        return Activation("hard_swish")
    return GlobalAveragePool() if operator.kind == "MEAN" else None
