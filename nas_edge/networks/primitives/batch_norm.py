"""Batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.primitives.base import OUT, Primitive, Shape, Tensor, Weight

if TYPE_CHECKING:
    from nas_edge.networks.graph import Node
    from nas_edge.networks.tflite_graph import TFLiteGraph

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.99


@dataclass(frozen=True)
class BatchNorm(Primitive):
    """Batch normalisation, epsilon 1e-3. Weights: gamma, beta, moving mean, moving variance, each `[channels]`."""

    in_place = True
    masks_output = True
    float32_weights = True

    def output_shape(self, *inputs: Shape) -> Shape:
        """That of the input."""
        return inputs[0]

    def weights(self) -> tuple[Weight, ...]:
        """Gamma and beta, then the statistics, which are not trained."""
        return (
            Weight("gamma", (OUT,), "ones"),
            Weight("beta", (OUT,)),
            Weight("moving_mean", (OUT,), trainable=False),
            Weight("moving_variance", (OUT,), "ones", trainable=False),
        )

    def keras_layer(self, name: str, seed: int) -> Any:
        """`keras.layers.BatchNormalization`."""
        import keras

        return keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=name)

    def run(self, weights: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        """Normalises by the statistics of the batch, in training and validation alike; moving averages are not kept."""
        import tensorflow as tf

        gamma, beta = weights
        outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
            inputs[0], gamma, beta, epsilon=BATCH_NORM_EPSILON, is_training=True
        )
        return outputs

    def lower(self, graph: TFLiteGraph, node: Node) -> None:
        """Nothing: it is folded into the convolution before it."""
        operator = graph.writer_to_fuse(node)
        if operator is None or operator.kernel_axes is None or operator.normalization is not None:
            raise ValueError(
                f"{node.name}: the TFLite writer folds BatchNorm into the convolution before it, but "
                f"{node.inputs[0]!r} is not a convolution that nothing else reads"
            )
        operator.normalization = node
        graph.fuse(node, operator)
