"""The product that ends a gate, or a swish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import Operator, TFLiteGraph


@dataclass(frozen=True)
class Multiply(Primitive):
    """The product of an input and a gate, `[1, 1, channels]` or of the input's shape. Templates say `Gate`."""

    input_count = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        """That of the first input."""
        channels = image_shape(self, inputs[0])[-1]
        if inputs[1] not in ((1, 1, channels), inputs[0]):
            raise ValueError(
                f"a gate must be [1, 1, {channels}] or have the shape of its input, received {list(inputs[1])}"
            )
        return inputs[0]

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Multiply`."""
        import keras

        return keras.layers.Multiply(name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The product."""
        return inputs[0] * inputs[1]

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`MUL`."""
        inputs = [graph.tensors[name] for name in node.inputs]
        graph.add("MUL", node, inputs, options=("MulOptions", {}), fuses_activation=True, int8_version=_int8_version)


def _int8_version(operator: Operator) -> int:
    left, right, product = (tensor.scale for tensor in (*operator.inputs, operator.output))
    assert left is not None
    assert right is not None
    assert product is not None
    return 3 if left[0] * right[0] >= product[0] else 2
