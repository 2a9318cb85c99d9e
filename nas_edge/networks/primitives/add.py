"""The sum that ends a residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor, image_shape

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class Add(Primitive):
    """The sum of two inputs of the same shape. Appears in graphs; templates say `Residual`."""

    input_count = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        """That of both inputs."""
        first, second = inputs
        if second != image_shape(self, first):
            raise ValueError(f"cannot add {list(second)} to {list(first)}; a residual needs equal shapes")
        return first

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Add`."""
        import keras

        return keras.layers.Add(name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The sum."""
        return inputs[0] + inputs[1]

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`ADD`."""
        left, right = (graph.tensors[name] for name in node.inputs)
        if node.shape[:2] == (1, 1):
            # The converter drops leading ones of the second addend, as if it were a bias, and then broadcasts.
            shape = graph.constant(node.shape[-1])
            right = graph.add("RESHAPE", node, [right, shape], int8_version=1, int8_scale="input").output
            right.name, right.shape = f"{node.name}/flat", (node.shape[-1],)
        graph.add("ADD", node, [left, right], options=("AddOptions", {}), fuses_activation=True)
