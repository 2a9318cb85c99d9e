"""Normalisation to unit length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class L2Normalize(Primitive):
    """Each vector of channels divided by its Euclidean length."""

    def output_shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Activation`, of a function that the converter recognises."""
        import keras

        from nas_edge.networks.keras_functions import l2_normalize

        return keras.layers.Activation(l2_normalize, name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Normalises."""
        from nas_edge.networks.keras_functions import l2_normalize

        return l2_normalize(inputs[0])

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """`L2_NORMALIZATION`, whose int8 kernel writes -1 to 1 only."""
        source = graph.tensors[node.inputs[0]]
        graph.add("L2_NORMALIZATION", node, [source], options=("L2NormOptions", {}), int8_scale=(1 / 128, 0))
