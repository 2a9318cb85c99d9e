"""Dropout of a whole branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph


@dataclass(frozen=True)
class PathDropout(Primitive):
    """In training the input divided by `1 - rate`, or nothing of it for the whole batch; unchanged at inference.

    Attributes:
        rate: probability of nothing.

    Source: TuNAS reference code, `mobile_model_v3.py`: the mask of an operator times Bernoulli(keep) / keep.
    """

    rate: float

    in_place = True

    def output_shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Dropout` with one draw for the whole batch."""
        import keras

        return keras.layers.Dropout(self.rate, noise_shape=(1, 1, 1, 1), seed=seed, name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """The input: the search trains without dropout."""
        return inputs[0]

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """Nothing."""
        graph.alias(node)
