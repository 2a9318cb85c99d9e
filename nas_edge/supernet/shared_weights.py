"""Training the shared weights and scoring architectures with them.

One compiled function takes a training step and another computes outputs; both serve every architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from nas_edge.errors import RunError
from nas_edge.supernet.supernet import Supernet
from nas_edge.tasks.base import NetworkTask
from nas_edge.training.settings import OptimizationSettings

Array: TypeAlias = "np.ndarray[Any, Any]"

# Inputs, targets, and the masks of the network that is to learn from them.
Sample: TypeAlias = tuple[Array, Array, Array]


class SharedWeights:
    """A supernet with its optimiser.

    Args:
        supernet: whose weights are trained.
        optimizer: any Keras optimiser; its schedule counts training steps.
        task: what the loss is, and the quality.
        settings: of the training; `weight_decay` is the w in the penalty `w / 2 * sum(kernel^2)` over the active
            kernels, part of the loss as in TuNAS.
    """

    def __init__(
        self,
        supernet: Supernet,
        optimizer: keras.optimizers.Optimizer,
        task: NetworkTask,
        settings: OptimizationSettings,
    ) -> None:
        self.supernet = supernet
        self.optimizer = optimizer
        self._task, self._settings = task, settings
        # Variables must exist before the first trace.
        optimizer.build(supernet.trainable_variables)
        space = supernet.space
        most = max(len(decision.choices) for decision in space.decisions)
        images = tf.TensorSpec([None, *space.input_shape], tf.float32)
        targets = tf.TensorSpec([None, *task.targets.shape], task.targets.dtype)
        masks = tf.TensorSpec([len(space.decisions), most], tf.float32)
        self._train = tf.function(self._train_step, input_signature=[images, targets, masks], autograph=False)
        self._compute = tf.function(self._outputs, input_signature=[images, masks], autograph=False)
        self._add = tf.function(self._add_gradients, input_signature=[images, targets, masks], autograph=False)
        self._apply = tf.function(self._apply_mean, input_signature=[tf.TensorSpec([], tf.float32)], autograph=False)
        self._sums: list[Any] = []  # of gradients, made when they are first needed

    def train_step(self, images: Array, targets: Array, masks: Array) -> float:
        """One step on the network that `masks` selects; returns the loss.

        Args:
            images: `[batch, height, width, channels]`, float32.
            targets: `[batch, ...]`, see `NetworkTask.targets`.
            masks: `[decisions, most choices]`, see `supernet`.
        """
        return float(self._train(images, targets.astype(self._task.targets.dtype), masks))

    def train_averaged(self, samples: Iterable[Sample]) -> list[float]:
        """One step on the mean gradient of several networks, each on a batch of its own; returns their losses.

        The gradients are taken one after another, so it needs the memory of one network, and of one more set of
        weights.

        Args:
            samples: at least one; of each, what `train_step` takes.
        """
        if not self._sums:
            self._sums = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in self.supernet.trainable_variables]
        losses = [
            float(self._add(images, targets.astype(self._task.targets.dtype), masks))
            for images, targets, masks in samples
        ]
        self._apply(float(len(losses)))
        return losses

    def outputs(self, images: Array, masks: Array) -> Array:
        """What the network that `masks` selects answers, with the batch's own statistics; `[batch, ...]`."""
        outputs: Array = self._compute(images, masks).numpy()
        return outputs

    def quality(self, images: Array, targets: Array, masks: Array) -> float:
        """The task's metric, with the batch's own statistics; NaN if outputs are not numbers."""
        return self._task.score(self.outputs(images, masks), targets)

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
        for total in self._sums:  # of a step that was interrupted
            total.assign(tf.zeros_like(total))

    def _variables(self) -> dict[str, Any]:
        variables = {f"weights/{name}": variable for name, variable in self.supernet.named_variables().items()}
        # Numbered, because Keras makes no two names differ that do so only in their separators.
        for number, variable in enumerate(self.optimizer.variables):
            variables[f"optimizer/{number}/{variable.name}"] = variable
        return variables

    def _gradients(self, images: Any, targets: Any, masks: Any) -> tuple[Any, list[Any]]:
        """Loss, and its gradient by each variable."""
        with tf.GradientTape() as tape:
            outputs, penalty = self.supernet(images, masks)
            loss = self._task.loss(outputs, targets, self._settings) + self._settings.weight_decay * penalty
        return loss, tape.gradient(loss, self.supernet.trainable_variables)

    def _train_step(self, images: Any, targets: Any, masks: Any) -> Any:
        loss, gradients = self._gradients(images, targets, masks)
        self.optimizer.apply(gradients, self.supernet.trainable_variables)
        return loss

    def _add_gradients(self, images: Any, targets: Any, masks: Any) -> Any:
        loss, gradients = self._gradients(images, targets, masks)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(tf.convert_to_tensor(gradient))
        return loss

    def _apply_mean(self, count: Any) -> None:
        self.optimizer.apply([total / count for total in self._sums], self.supernet.trainable_variables)
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def _outputs(self, images: Any, masks: Any) -> Any:
        return self.supernet(images, masks)[0]
