"""Training the shared weights and judging architectures with them.

One compiled function takes a training step and another scores a batch; both serve every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_edge.errors import RunError
from nas_edge.supernet.supernet import Supernet

Array = np.ndarray[Any, Any]


class SharedWeights:
    """A supernet with its optimiser.

    Args:
        supernet: whose weights are trained.
        optimizer: any Keras optimiser; its schedule counts training steps.
        label_smoothing: share of the target that is spread evenly over all classes.
        weight_decay: w in the penalty `w / 2 * sum(kernel^2)` over the active kernels, part of the loss as in TuNAS.
    """

    def __init__(
        self, supernet: Supernet, optimizer: keras.optimizers.Optimizer, label_smoothing: float, weight_decay: float
    ) -> None:
        self.supernet = supernet
        self.optimizer = optimizer
        self._smoothing = label_smoothing
        self._weight_decay = weight_decay
        # Variables must exist before the first trace.
        optimizer.build(supernet.trainable_variables)
        space = supernet.space
        most = max(len(decision.choices) for decision in space.decisions)
        signature = [
            tf.TensorSpec([None, *space.input_shape], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([len(space.decisions), most], tf.float32),
        ]
        self._train = tf.function(self._train_step, input_signature=signature, autograph=False)
        self._score = tf.function(self._score_step, input_signature=signature, autograph=False)

    def train_step(self, images: Array, labels: Array, masks: Array) -> float:
        """One step on the network that `masks` selects; returns the loss.

        Args:
            images: `[batch, height, width, channels]`, float32.
            labels: `[batch]`, int.
            masks: `[decisions, most choices]`, see `supernet`.
        """
        return float(self._train(images, labels.astype(np.int32), masks))

    def accuracy(self, images: Array, labels: Array, masks: Array) -> float:
        """Share of the images classified correctly, with the batch's own statistics; NaN if logits are not numbers."""
        return float(self._score(images, labels.astype(np.int32), masks)) / len(labels)

    def arrays(self) -> dict[str, Array]:
        """Copies of every weight and of the optimiser's state, by name."""
        return {name: np.array(variable.numpy()) for name, variable in self._variables().items()}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Continues from what `arrays()` returned.

        Raises:
            RunError: when the arrays are of another supernet or optimiser; nothing was changed.
        """
        variables = self._variables()
        expected = {name: tuple(variable.shape) for name, variable in variables.items()}
        if {name: array.shape for name, array in arrays.items()} != expected:
            raise RunError(
                f"this checkpoint's {len(arrays)} arrays do not fit the {len(expected)} of this space and optimiser; "
                "resume with the settings, and the nas_edge, that the run was started with"
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])

    def _variables(self) -> dict[str, Any]:
        variables = {f"weights/{name}": variable for name, variable in self.supernet.named_variables().items()}
        # Numbered, because Keras makes no two names differ that do so only in their separators.
        for number, variable in enumerate(self.optimizer.variables):
            variables[f"optimizer/{number}/{variable.name}"] = variable
        return variables

    def _train_step(self, images: Any, labels: Any, masks: Any) -> Any:
        variables = self.supernet.trainable_variables
        with tf.GradientTape() as tape:
            logits, penalty = self.supernet(images, masks)
            classes = logits.shape[-1]
            targets = tf.one_hot(labels, classes) * (1.0 - self._smoothing) + self._smoothing / classes
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_mean(losses) + self._weight_decay * penalty
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply(gradients, variables)
        return loss

    def _score_step(self, images: Any, labels: Any, masks: Any) -> Any:
        logits, _ = self.supernet(images, masks)
        correct = tf.math.count_nonzero(tf.argmax(logits, axis=1, output_type=tf.int32) == labels, dtype=tf.int32)
        # Of NaNs the first counts as the largest, which would pass for an answer.
        return tf.where(tf.reduce_all(tf.math.is_finite(logits)), tf.cast(correct, tf.float32), np.nan)
