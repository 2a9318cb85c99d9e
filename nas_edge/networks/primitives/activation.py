"""Activations without parameters. A new one is one line in `ACTIVATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from nas_edge.networks.primitives.base import Primitive, Shape, Tensor

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph

ActivationName: TypeAlias = str  # a name in ACTIVATIONS


@dataclass(frozen=True)
class _Function:
    """An activation.

    Attributes:
        keras: gives Keras' function.
        operator: the name in TFLite's schema.
        fused: whether the operator before it can compute it as well.
        int8_version: version of the int8 operator.
        int8_scale: scale and zero point of the int8 output where the runtime accepts only these.
    """

    keras: Callable[[], Any]
    operator: str
    fused: bool = False
    int8_version: int = 2
    int8_scale: tuple[float, int] | None = None


def _named(name: str) -> Callable[[], Any]:
    def get() -> Any:
        import keras

        return keras.activations.get(name)

    return get


def _hard_swish() -> Any:
    from nas_edge.networks.keras_functions import hard_swish

    return hard_swish


ACTIVATIONS: dict[str, _Function] = {
    "relu": _Function(_named("relu"), "RELU", fused=True),
    "relu6": _Function(_named("relu6"), "RELU6", fused=True),
    "hard_swish": _Function(_hard_swish, "HARD_SWISH", int8_version=1),
    "sigmoid": _Function(_named("sigmoid"), "LOGISTIC", int8_scale=(1 / 256, -128)),
}


@dataclass(frozen=True)
class Activation(Primitive):
    """An activation; `hard_swish` is `x * relu6(x + 3) / 6`.

    Attributes:
        function: a name in `ACTIVATIONS`.

    Raises:
        ValueError: when it is not.
    """

    function: ActivationName

    in_place = True

    def __post_init__(self) -> None:
        if self.function not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.function!r}; supported: {', '.join(ACTIVATIONS)}")

    def output_shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.Activation`."""
        import keras

        return keras.layers.Activation(ACTIVATIONS[self.function].keras(), name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Applies the function."""
        return ACTIVATIONS[self.function].keras()(inputs[0])

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """Part of the operator before it where that can be, otherwise one of its own."""
        function = ACTIVATIONS[self.function]
        operator = graph.writer_to_fuse(node)
        if function.fused and operator is not None and operator.fuses_activation:
            operator.activation = function.operator
            graph.fuse(node, operator)
            return
        operator = graph.add(
            function.operator,
            node,
            [graph.tensors[node.inputs[0]]],
            int8_version=function.int8_version,
            int8_scale=function.int8_scale,
        )
        operator.activated = function.fused
