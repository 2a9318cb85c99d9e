"""What a primitive layer says of itself: shapes, costs and weights, and what it is in Keras, supernet and TFLite file.

The methods that need TensorFlow import it themselves: search spaces, latency tables and `nas-edge benchmark` use
networks without it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from nas_edge.networks.open_values import Width

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph

Shape: TypeAlias = tuple[int, ...]  # [height, width, channels] or [channels]; the batch is left out

Tensor: TypeAlias = Any  # TensorFlow has no types

# Axes of a weight as long as the layer's input or output has channels.
Axis: TypeAlias = Literal["in", "out"]
IN: Final[Axis] = "in"
OUT: Final[Axis] = "out"


@dataclass(frozen=True)
class Weight:
    """One array of weights.

    Attributes:
        name: what Keras calls the variable, for example `kernel`.
        shape: lengths of the axes, `IN` and `OUT` standing for the channels that the layer reads and makes.
        initializer: a Keras initialiser, by name or as a function of the layer's seed.
        trainable: whether it is trained. What is not, such as the statistics of batch norm, the supernet leaves out.
        regularized: whether weight decay applies; the Keras layer must call it `kernel`.
    """

    name: str
    shape: tuple[int | Axis, ...]
    initializer: str | Callable[[int], Any] = "zeros"
    trainable: bool = True
    regularized: bool = False

    def shape_for(self, in_channels: int, out_channels: int) -> Shape:
        """The shape in a layer of these channels."""
        channels = {IN: in_channels, OUT: out_channels}
        return tuple(size if isinstance(size, int) else channels[size] for size in self.shape)


@dataclass(frozen=True)
class Primitive(ABC):
    """A layer that networks are made of: a frozen dataclass whose fields are its numbers.

    It reads `[height, width, channels]` and, unless `width_field` names another width, makes as many channels.

    Attributes:
        input_count: tensors that it reads. Templates say `Residual` or `Gate` for what reads two.
        in_place: whether its output takes no memory of its own at inference: it is fused into what comes before it, or
            overwrites it.
        width_field: the field with the number of output channels, which templates may leave open.
        masks_output: what masked execution (see `supernet/elastic.py`) sets to zero for inactive channels: the outputs,
            as TuNAS does after batch norm, or else the weights.
        float32_weights: whether its weights stay float32 where inputs are of a lower precision, instead of becoming it.
        training_only: fields that training alone reads; networks that differ only in them take equally long.
    """

    input_count: ClassVar[int] = 1
    in_place: ClassVar[bool] = False
    width_field: ClassVar[str | None] = None
    masks_output: ClassVar[bool] = False
    float32_weights: ClassVar[bool] = False
    training_only: ClassVar[frozenset[str]] = frozenset()

    # ------------------------------------------------------------ what it is

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of its output.

        Raises:
            ValueError: when the layer does not fit inputs of these shapes.
        """

    def macs(self, in_channels: int, output: Shape) -> int:
        """Multiply-accumulates for one image; only those of convolutions and dense layers are counted."""
        return 0

    def weights(self) -> tuple[Weight, ...]:
        """Its weights, in the order in which the Keras layer has them."""
        return ()

    # ------------------------------------------------------------ what it computes

    @abstractmethod
    def keras_layer(self, name: str, seed: int) -> Any:
        """The `keras.layers.Layer`, called `name`, its random weights drawn with `seed`."""

    @abstractmethod
    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Computes what the Keras layer does, from given weights: how the supernet trains it.

        Args:
            weights: its trainable weights.
            inputs: `[batch, height, width, channels]` each, as TensorFlow tensors of which only the rank and, under
                masked execution, the shape is known.

        Returns:
            The output. Batch norm uses the statistics of the batch, and dropout does nothing, as TuNAS does below 150
            epochs.
        """

    @abstractmethod
    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """Adds the operators to a TFLite file that TensorFlow's converter makes of the Keras layer.

        Raises:
            ValueError: when it has no place where it stands.
        """

    # ------------------------------------------------------------ what follows

    @property
    def width(self) -> Width | None:
        """Its output channels, perhaps still open; None when they are those of its input."""
        return None if self.width_field is None else getattr(self, self.width_field)

    def with_width(self, channels: int) -> Primitive:
        """The same layer with this number of output channels, where it has a width of its own."""
        return self if self.width_field is None else dataclasses.replace(self, **{self.width_field: channels})


def image_shape(layer: Primitive, shape: Shape) -> tuple[int, int, int]:
    """Height, width and channels of an input.

    Raises:
        ValueError: when it has other axes.
    """
    if len(shape) != 3:
        raise ValueError(f"{type(layer).__name__} needs [height, width, channels], received {list(shape)}")
    height, width, channels = shape
    return height, width, channels
