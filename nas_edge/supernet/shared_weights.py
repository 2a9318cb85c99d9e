"""Training the shared weights and scoring architectures with them.

One compiled function takes a training step and another computes outputs; both serve every architecture.

Made in the scope of a `tf.distribute` strategy, the weights are mirrored on its replicas. Of the networks of an
averaged step each replica then trains its own, number i on replica i modulo their number, and the gradients are summed
over the replicas before the update, which so is the same as that of one process that trains them one after another. The
shapes of sliced weights differ between replicas, but gradients are summed as wide as the variables, so a strategy sees
none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
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
        xla_batch_size: images of each training batch, for which XLA compiles the steps, in masked execution and without
            replicas; None does not use XLA.
    """

    def __init__(
        self,
        supernet: Supernet,
        optimizer: keras.optimizers.Optimizer,
        task: NetworkTask,
        settings: OptimizationSettings,
        xla_batch_size: int | None = None,
    ) -> None:
        self.supernet = supernet
        self.optimizer = optimizer
        self.strategy = tf.distribute.get_strategy()
        self._task, self._settings = task, settings
        # Variables must exist before the first trace.
        optimizer.build(supernet.trainable_variables)
        space = supernet.space
        most = max(len(decision.choices) for decision in space.decisions)
        images = tf.TensorSpec([xla_batch_size, *space.input_shape], tf.float32)
        targets = tf.TensorSpec([xla_batch_size, *task.targets.shape], task.targets.dtype)
        any_images = tf.TensorSpec([None, *space.input_shape], tf.float32)
        masks = tf.TensorSpec([len(space.decisions), most], tf.float32)
        jit = True if xla_batch_size is not None else None
        self._train = tf.function(
            self._train_step, input_signature=[images, targets, masks], autograph=False, jit_compile=jit
        )
        self._compute = tf.function(self._outputs, input_signature=[any_images, masks], autograph=False)
        self._sums: list[Any] = []  # of gradients, made when they are first needed
        self._taught = tf.function(
            self._taught_step, input_signature=[images, targets, masks, masks], autograph=False, jit_compile=jit
        )
        # Values of replicas have no signature.
        alone = {} if self.replicas > 1 else {"input_signature": [images, targets, masks]}
        self._add = tf.function(self._everywhere(self._add_gradients), autograph=False, jit_compile=jit, **alone)
        self._apply = tf.function(self._everywhere(self._apply_mean), autograph=False)
        self._compute_each = tf.function(self._everywhere(self._outputs), autograph=False)
        self._sum = tf.function(self._everywhere(_sum_over_replicas), autograph=False, reduce_retracing=True)
        self._replica_ids = [int(number) for number in self._local(tf.function(self._everywhere(_replica_id))())]

    @property
    def replicas(self) -> int:
        """How many networks train at the same time."""
        count: int = self.strategy.num_replicas_in_sync
        return count

    @property
    def processes(self) -> int:
        """How many processes the replicas are in, alike in each."""
        return self.replicas // len(self._replica_ids)

    def own(self, count: int) -> list[int]:
        """Which of `count` networks, a multiple of the replicas, are trained and scored in this process."""
        return [number for number in range(count) if number % self.replicas in self._replica_ids]

    def train_step(self, images: Array, targets: Array, masks: Array) -> float:
        """One step on the network that `masks` selects; returns the loss.

        Args:
            images: `[batch, height, width, channels]`, float32.
            targets: `[batch, ...]`, see `NetworkTask.targets`.
            masks: `[decisions, most choices]`, see `supernet`.
        """
        return float(self._train(images, targets.astype(self._task.targets.dtype), masks))

    def train_taught_step(self, images: Array, targets: Array, masks: Array, teacher: Array) -> float:
        """One step on two networks, of which the second teaches the first; returns the loss of the first.

        The teacher learns the targets, and the student what the teacher answers before this update; their gradients
        are added up, as if of one batch twice as large.

        Args:
            images: see `train_step`.
            targets: likewise.
            masks: likewise, of the student.
            teacher: likewise, of the teacher.

        Source: the sandwich rule and inplace distillation of universally slimmable networks, arXiv:1903.05134.
        """
        return float(self._taught(images, targets.astype(self._task.targets.dtype), masks, teacher))

    def train_averaged(self, samples: Iterable[Sample], count: int) -> list[float]:
        """One step on the mean gradient of several networks, each on a batch of its own; returns their losses.

        A replica takes its gradients one after another, so it needs the memory of one network, and of one more set of
        weights.

        Args:
            samples: what `train_step` takes, of each network that is this process's `own`.
            count: of all networks.

        Returns:
            The losses of all networks.
        """
        if not self._sums:
            # Summed up by each replica for itself.
            apart = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
            with self.strategy.scope():
                self._sums = [
                    tf.Variable(tf.zeros(v.shape), trainable=False, **apart) for v in self.supernet.trainable_variables
                ]
        losses: list[float] = []
        for together in self._rounds(samples):
            typed = [(images, targets.astype(self._task.targets.dtype), masks) for images, targets, masks in together]
            losses += map(float, self._local(self._add(*self._to_replicas(typed))))
        self._together(self._apply, tf.constant(float(count)))
        return self._of_all(losses, count)

    def qualities(self, samples: Iterable[Sample], count: int) -> list[float]:
        """`quality` of several networks, each on its inputs and targets and scored by its replica.

        Args:
            samples: what `quality` takes, of each network that is this process's `own`.
            count: of all networks.

        Returns:
            The qualities of all networks.
        """
        scores: list[float] = []
        for together in self._rounds(samples):
            inputs = [(images, masks) for images, _, masks in together]
            outputs = self._local(self._compute_each(*self._to_replicas(inputs)))
            scores += [
                self._task.score(one.numpy(), targets) for one, (_, targets, _) in zip(outputs, together, strict=True)
            ]
        return self._of_all(scores, count)

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
            total.assign(tf.zeros(total.shape))

    def _variables(self) -> dict[str, Any]:
        variables = {f"weights/{name}": variable for name, variable in self.supernet.named_variables().items()}
        # Numbered, because Keras makes no two names differ that do so only in their separators.
        for number, variable in enumerate(self.optimizer.variables):
            variables[f"optimizer/{number}/{variable.name}"] = variable
        return variables

    def _gradients(
        self, images: Any, targets: Any, masks: Any, answers: Any | None = None
    ) -> tuple[Any, list[Any], Any]:
        """Loss, its gradient by each variable, and the outputs; `answers` are learned in place of targets."""
        variables = self.supernet.trainable_variables
        # By the parts that the network has, which are a tenth of all weights or less; each is made whole once.
        values = self.supernet.active_weights(masks)
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs, penalty = self.supernet.run(images, masks, values)
            if answers is None:
                loss = self._task.loss(outputs, targets, self._settings)
            else:
                loss = self._task.distillation_loss(outputs, answers, 1.0)
            loss += self._settings.weight_decay * penalty
            scaled = self.optimizer.scale_loss(loss)
        parts = tape.gradient(scaled, values)
        return loss, [_whole(part, variable) for part, variable in zip(parts, variables, strict=True)], outputs

    def _train_step(self, images: Any, targets: Any, masks: Any) -> Any:
        loss, gradients, _ = self._gradients(images, targets, masks)
        self.optimizer.apply(gradients, self.supernet.trainable_variables)
        return loss

    def _taught_step(self, images: Any, targets: Any, masks: Any, teacher: Any) -> Any:
        _, of_teacher, answers = self._gradients(images, targets, teacher)
        loss, of_student, _ = self._gradients(images, targets, masks, answers)
        both = [one + other for one, other in zip(of_teacher, of_student, strict=True)]
        self.optimizer.apply(both, self.supernet.trainable_variables)
        return loss

    def _add_gradients(self, images: Any, targets: Any, masks: Any) -> Any:
        loss, gradients, _ = self._gradients(images, targets, masks)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    def _apply_mean(self, count: Any) -> None:
        # Optimisers sum gradients over replicas.
        self.optimizer.apply([total / count for total in self._sums], self.supernet.trainable_variables)
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def _outputs(self, images: Any, masks: Any) -> Any:
        return self.supernet(images, masks)[0]

    # ------------------------------------------------------------ replicas

    def _everywhere(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: self.strategy.run(function, args=arguments)

    def _local(self, value: Any) -> tuple[Any, ...]:
        """The values of this process's replicas."""
        values: tuple[Any, ...] = self.strategy.experimental_local_results(value)
        return values

    def _rounds(self, samples: Iterable[Any]) -> Iterator[list[Any]]:
        """As many of this process's networks as it has replicas, again and again."""
        remaining = iter(samples)
        while together := list(islice(remaining, len(self._replica_ids))):
            yield together

    def _to_replicas(self, each: Sequence[Sequence[Any]]) -> list[Any]:
        """Arguments of a function that is run everywhere, of one tuple of arguments per replica of this process."""
        if self.replicas == 1:
            return list(each[0])
        arguments = []
        for values in zip(*each, strict=True):
            remaining = map(tf.convert_to_tensor, values)
            place = self.strategy.experimental_distribute_values_from_function
            arguments.append(place(lambda _, remaining=remaining: next(remaining)))
        return arguments

    def _of_all(self, values: Sequence[float], count: int) -> list[float]:
        """The numbers of all networks, of those of this process's own."""
        if len(values) == count:
            return list(values)
        mine = np.zeros(count)
        mine[self.own(count)] = values
        return [float(value) for value in self.sum_over_processes(mine)]

    def sum_over_processes(self, values: Array) -> Array:
        """The sum of what all processes call this with, all in the same order; NaN where one of them is."""
        contributions = [
            (values if number == 0 else np.zeros_like(values),) for number in range(len(self._replica_ids))
        ]
        total: Array = self._local(self._together(self._sum, *self._to_replicas(contributions)))[0].numpy()
        return total

    def _together(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs what all processes take part in.

        Raises:
            RunError: when one of them is gone.
        """
        try:
            return function(*arguments)
        except tf.errors.OpError as error:
            if self.processes == 1:
                raise
            raise RunError(
                f"another process of this search is gone: {str(error).splitlines()[0]}",
                fix="start all of them again, the first with --resume",
            ) from None


def _replica_id() -> Any:
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def _sum_over_replicas(values: Any) -> Any:
    # An argument as it comes is on no device yet, and TensorFlow asks which.
    placed = tf.identity(values)
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, placed)


def _whole(part: Any, variable: Any) -> Any:
    """The gradient by a whole variable, given that by its first channels: zero for the rest."""
    missing = [[0, most - size] for most, size in zip(variable.shape, tf.unstack(tf.shape(part)), strict=True)]
    return tf.ensure_shape(tf.pad(part, missing), variable.shape)
