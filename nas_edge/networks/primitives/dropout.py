"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class Dropout(Primitive):
    """Dropout in training, nothing at inference."""

    rate: float

    in_place = True

    def output_shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Dropout`."""
        import keras

        return keras.layers.Dropout(self.rate, seed=seed, name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The input: the search trains without dropout, as TuNAS does below 150 epochs."""
        return inputs[0]

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """Nothing."""
        graph.alias(node)
