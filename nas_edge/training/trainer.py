"""Trains a stand-alone Keras model: one plain loop around one compiled step.

The loop takes batches from any iterator, so it knows nothing of data sources, augmentation or search; what is to be
learned, the task knows. What methods of training are made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from nas_edge.data.dataset import Indices
from nas_edge.errors import DataError, TrainingError
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.tasks.base import Batch, NetworkTask, RunningScore, TaskData
from nas_edge.training.batches import evaluation_batches, statistics_sample
from nas_edge.training.context import Loss, OnStep, TrainingStep
from nas_edge.training.optimizers import make_optimizer, scaled_if_float16
from nas_edge.training.schedules import CosineWithWarmup, cosine_with_warmup
from nas_edge.training.settings import OptimizationSettings


class Watch(Protocol):
    """What looks at the weights of a training now and then; see `early_stopping`."""

    def score(self, values: Sequence[Any]) -> float:
        """The quality of the weights that are trained, in the model's order."""

    @property
    def ends(self) -> bool:
        """Whether the training is to end."""


@dataclass(frozen=True)
class EpochWatch:
    """Looks at the weights after each epoch.

    Attributes:
        steps: of an epoch.
        watch: what looks.
    """

    steps: int
    watch: Watch


def train(
    model: keras.Model,
    batches: Iterable[Batch],
    steps: int,
    task: NetworkTask,
    config: OptimizationSettings,
    regularized: Collection[str] = (),
    on_step: OnStep | None = None,
    loss: Loss | None = None,
    epochs: EpochWatch | None = None,
) -> None:
    """Trains `model` in place. With a moving average of the weights (`ema_decay`), that is what it has in the end.

    Batch-norm statistics lag behind the weights, the more so in a short training: call `recalibrate_batch_norm`
    afterwards.

    Args:
        model: gives outputs `[batch, ...]`; computes with `config.computed_in`.
        batches: at least `steps` times `config.batches_in_step` of them.
        steps: see `OptimizationSettings.steps`.
        task: what the loss is.
        config: the hyper-parameters; `epochs` is not used, `batch_size` only scales the learning rate.
        regularized: names of the layers under weight decay, from `regularized_layers`.
        on_step: called after every step.
        loss: in place of the task's; None for that.
        epochs: what looks at the weights after each epoch, and may end the training.

    Raises:
        TrainingError: when the loss is no longer a number.
        DataError: when images are not numbers, or batches run out.
    """
    warmup_steps = round(steps * config.warmup_fraction)
    optimizer = make_optimizer(config, CosineWithWarmup(config.peak_learning_rate, steps, warmup_steps))
    if config.averaged_with is not None:
        optimizer.use_ema, optimizer.ema_momentum = True, config.averaged_with
    optimizer = scaled_if_float16(optimizer, config.computed_in)
    update = _Update(model, optimizer, task, config, kernels(model, regularized), loss)
    source = iter(batches)
    for step in range(steps):
        losses, score = [], RunningScore(task)
        learning_rate = cosine_with_warmup(step, config.peak_learning_rate, steps, warmup_steps)
        for _ in range(config.batches_in_step):
            images, targets = _next_batch(source, step, steps)
            loss_tensor, outputs = update(tf.constant(images, tf.float32), tf.constant(targets, task.targets.dtype))
            losses.append(float(loss_tensor))
            if not math.isfinite(losses[-1]):
                raise _divergence(images, losses[-1], step, learning_rate)
            if on_step:
                score.take(outputs.numpy(), targets)
        update.end_step()
        validation = None
        if epochs is not None and ((step + 1) % epochs.steps == 0 or step + 1 == steps):
            validation = epochs.watch.score(update.averaged())
        if on_step:
            on_step(TrainingStep(step + 1, steps, float(np.mean(losses)), score.value(), learning_rate, validation))
        if epochs is not None and epochs.watch.ends:
            break
    update.take_averaged()


def train_model(
    model: keras.Model,
    network: NetworkSpec,
    data: TaskData,
    indices: Indices,
    rng: np.random.Generator,
    task: NetworkTask,
    settings: OptimizationSettings,
    on_step: OnStep | None = None,
    loss: Loss | None = None,
    watch: Watch | None = None,
) -> None:
    """Trains a network's model on some of a run's data, and re-estimates its batch statistics.

    Args:
        model: of `network`; changed in place.
        network: what is trained.
        data: of the run.
        indices: the images to train with.
        rng: the order of the images, and their augmentation.
        task: what the loss is.
        settings: the hyper-parameters.
        on_step: called after every step.
        loss: see `train`.
        watch: what looks at the weights after each epoch, and may end the training.

    Raises:
        TrainingError: when it diverges.
    """
    size, decayed = settings.batch_size, regularized_layers(network)
    per_epoch = max(1, len(indices) // (size * settings.batches_in_step))
    epochs = None if watch is None else EpochWatch(per_epoch, watch)
    with closing(data.shuffled(indices, size, rng)) as batches:
        train(model, batches, settings.steps(len(indices)), task, settings, decayed, on_step, loss, epochs)
    recalibrate(model, data, indices, size)


def recalibrate(model: keras.Model, data: TaskData, indices: Indices, batch_size: int) -> None:
    """`recalibrate_batch_norm` with a sample of a run's data, in batches of the size the model was trained with."""
    batches = evaluation_batches(data, statistics_sample(indices, batch_size), batch_size)
    recalibrate_batch_norm(model, ((batch.inputs, batch.targets) for batch in batches))


def check_finite(weights: Weights) -> None:
    """Raises TrainingError unless all weights are numbers."""
    if not all(np.isfinite(array).all() for group in weights.values() for array in group):
        raise TrainingError("training diverged: weights are no longer numbers", fix="lower the learning rate")


def evaluate(model: keras.Model, batches: Iterable[Batch], task: NetworkTask) -> float:
    """The task's metric over all images of `batches`.

    Raises:
        DataError: when there are no images.
    """
    return evaluator(model, task)(batches)


def evaluator(model: keras.Model, task: NetworkTask) -> Callable[[Iterable[Batch]], float]:
    """`evaluate` of a model, compiled once: as it is whenever that is called."""
    predict = tf.function(
        lambda images: model(images, training=False), input_signature=[_image_signature(model)]
    ).get_concrete_function()
    return lambda batches: task.score_all(
        (predict(tf.constant(images, tf.float32)).numpy(), targets) for images, targets in batches
    )


def recalibrate_batch_norm(model: keras.Model, batches: Iterable[Batch]) -> None:
    """Sets every batch norm's moving mean and variance to the plain average of its batch statistics over `batches`.

    Nothing else of the model changes. Needed after a short training, and for an architecture
    taken out of a supernet, whose statistics are those of no single network (Yu and Huang, 2019, arXiv:1903.05134).

    Args:
        model: changed in place.
        batches: images as they are at inference; targets are not used. About ten batches suffice.

    Raises:
        DataError: when there are no batches.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momentum = {norm: norm.momentum for norm in norms}

    def take_in(images: Any, share_kept: Any) -> None:
        for norm in norms:
            norm.momentum = share_kept
        model(images, training=True)

    # Traced once: run operator by operator, a hundred batches take longer than an epoch of a small training.
    compiled = tf.function(take_in, input_signature=[_image_signature(model), tf.TensorSpec([], tf.float32)])
    count = 0
    try:
        for images, _ in batches:
            # moving = m * moving + (1 - m) * batch is the plain average when m = count / (count + 1).
            compiled(tf.constant(images, tf.float32), tf.constant(count / (count + 1), tf.float32))
            count += 1
    finally:
        for norm in norms:
            norm.momentum = momentum[norm]
    if count == 0:
        raise DataError("no images to re-estimate batch norm with", expected="at least one batch")


def regularized_layers(spec: NetworkSpec) -> frozenset[str]:
    """Names of the layers under weight decay: convolutions, depthwise ones included, but not the classifier."""
    return frozenset(node.name for node in spec.nodes if any(weight.regularized for weight in node.layer.weights()))


def kernels(model: keras.Model, names: Collection[str]) -> list[Any]:
    """The kernel variables of the named layers, without biases."""
    return [model.get_layer(name).kernel for name in sorted(names)]


class _Update:
    """One update of a model, made of one batch, or of the mean gradient of several."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        task: NetworkTask,
        config: OptimizationSettings,
        penalized: list[Any],
        loss: Loss | None = None,
    ) -> None:
        self._model, self._optimizer, self._config = model, optimizer, config
        self._loss = loss or (lambda images, outputs, targets: task.loss(outputs, targets, config))
        self._penalized = penalized
        optimizer.build(model.trainable_variables)
        signature = [_image_signature(model), tf.TensorSpec([None, *task.targets.shape], task.targets.dtype)]
        several = config.batches_in_step > 1
        variables = model.trainable_variables if several else []
        self._sums = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        # One trace is all there is, so TensorFlow's warnings about retracing would mislead a caller with many models.
        batch = tf.function(self._add if several else self._apply, input_signature=signature)
        self._batch = batch.get_concrete_function()
        self._end = tf.function(self._apply_sums, input_signature=[]).get_concrete_function() if several else None

    def __call__(self, images: Any, targets: Any) -> tuple[Any, Any]:
        """Takes in a batch; returns its loss, and the outputs."""
        return self._batch(images, targets)  # type: ignore[no-any-return]

    def end_step(self) -> None:
        """To be called after the last batch of a step."""
        if self._end is not None:
            self._end()

    def take_averaged(self) -> None:
        """Gives the model the moving average of its weights, where there is one."""
        if self._config.averaged_with is not None:
            self._optimizer.finalize_variable_values(self._model.trainable_variables)

    def averaged(self) -> list[Any]:
        """The same, with the model left as it is: its trained weights where there is no average."""
        variables = self._model.trainable_variables
        kept = [variable.numpy() for variable in variables]
        self.take_averaged()
        found = [variable.numpy() for variable in variables]
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
        return found

    def _gradients(self, images: Any, targets: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            outputs = tf.cast(self._model(images, training=True), tf.float32)
            loss = self._loss(images, outputs, targets)
            if self._config.weight_decay and self._penalized:
                penalties = [tf.nn.l2_loss(kernel.value) for kernel in self._penalized]
                loss += self._config.weight_decay * tf.add_n(penalties)
            scaled = self._optimizer.scale_loss(loss)
        variables = [variable.value for variable in self._model.trainable_variables]
        return loss, outputs, tape.gradient(scaled, variables)

    def _apply(self, images: Any, targets: Any) -> tuple[Any, Any]:
        loss, outputs, gradients = self._gradients(images, targets)
        self._optimizer.apply(gradients, self._model.trainable_variables)
        return loss, outputs

    def _add(self, images: Any, targets: Any) -> tuple[Any, Any]:
        loss, outputs, gradients = self._gradients(images, targets)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient / self._config.batches_in_step)
        return loss, outputs

    def _apply_sums(self) -> None:
        self._optimizer.apply([tf.identity(total) for total in self._sums], self._model.trainable_variables)
        for total in self._sums:
            total.assign(tf.zeros_like(total))


def _image_signature(model: keras.Model) -> Any:
    return tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32)


def _next_batch(source: Iterator[Batch], step: int, steps: int) -> Batch:
    try:
        return next(source)
    except StopIteration:
        raise DataError(f"batches ran out after {step} of {steps} steps; the iterator must repeat the data") from None


def _divergence(images: Any, loss: float, step: int, learning_rate: float) -> Exception:
    if not np.isfinite(images).all():
        return DataError(f"training step {step}: the images contain values that are not numbers")
    return TrainingError(
        f"training diverged: the loss is {loss} at step {step}, at learning rate {learning_rate:.3g}",
        fix="lower the learning rate or lengthen the warm-up",
    )
