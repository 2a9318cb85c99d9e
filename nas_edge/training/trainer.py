"""Trains a stand-alone Keras model: one plain loop around one compiled step.

The settings are `config.OptimizationSettings`. The loop takes batches from any iterator, so it knows nothing of data
sources, augmentation or search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from nas_edge.data.preprocessing import Batches, in_order
from nas_edge.errors import DataError, TrainingError
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.seeds import generator, integer
from nas_edge.tasks.base import TaskData
from nas_edge.training.optimizers import RMSProp
from nas_edge.training.schedules import CosineWithWarmup, cosine_with_warmup
from nas_edge.training.settings import OptimizationSettings

# Images float32 [batch, height, width, channels], normalised, and labels int [batch].
Batch: TypeAlias = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class TrainingStep:
    """What `train` reports after each step.

    Attributes:
        step: steps done, from 1 to `steps`.
        steps: steps of the whole training.
        loss: of this batch, penalty included.
        accuracy: of this batch, before the update.
        learning_rate: of this step.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float


def train(
    model: keras.Model,
    batches: Iterable[Batch],
    steps: int,
    config: OptimizationSettings,
    regularized: Collection[str] = (),
    on_step: Callable[[TrainingStep], None] | None = None,
) -> None:
    """Trains `model` in place.

    Batch-norm statistics lag behind the weights, the more so in a short training: call `recalibrate_batch_norm`
    afterwards.

    Args:
        model: gives logits `[batch, classes]`.
        batches: at least `steps` of them.
        steps: see `OptimizationSettings.steps`.
        config: the hyper-parameters; `epochs` is not used, `batch_size` only scales the learning rate.
        regularized: names of the layers under weight decay, from `regularized_layers`.
        on_step: called after every step.

    Raises:
        TrainingError: when the loss is no longer a number.
        DataError: when images are not numbers, or batches run out.
    """
    warmup_steps = round(steps * config.warmup_fraction)
    optimizer = make_optimizer(config, CosineWithWarmup(config.peak_learning_rate, steps, warmup_steps))
    step_function = _compiled_step(model, optimizer, config, kernels(model, regularized))
    source = iter(batches)
    for step in range(steps):
        images, labels = _next_batch(source, step, steps)
        loss, accuracy = (float(value) for value in step_function(images, labels))
        learning_rate = cosine_with_warmup(step, config.peak_learning_rate, steps, warmup_steps)
        if not math.isfinite(loss):
            raise _divergence(images, loss, step, learning_rate)
        if on_step:
            on_step(TrainingStep(step + 1, steps, loss, accuracy, learning_rate))


def train_network(
    settings: OptimizationSettings,
    network: NetworkSpec,
    initial: Weights | None,
    data: TaskData,
    seed: int,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> Weights:
    """Trains a network on training and validation images, and re-estimates its batch statistics.

    Args:
        settings: the hyper-parameters.
        network: what is trained.
        initial: the weights to start from; None draws them.
        data: of the run.
        seed: of the run.
        on_step: called after every step.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """
    model = keras_model(network, initial, seed=integer(seed, "training"))
    indices, size = data.training_indices, settings.batch_size
    batches = training_batches(settings, data, seed)
    train(model, batches, settings.steps(len(indices)), settings, regularized_layers(network), on_step)
    recalibrate_batch_norm(model, in_order(data.dataset, indices, size, data.preprocessing))
    weights = get_weights(model, network)
    if not all(np.isfinite(array).all() for group in weights.values() for array in group):
        raise TrainingError("training diverged: weights are no longer numbers; lower the learning rate")
    return weights


def training_batches(settings: OptimizationSettings, data: TaskData, seed: int) -> Batches:
    """What a network outside the search is trained with."""
    return Batches(
        data.dataset,
        data.training_indices,
        settings.batch_size,
        generator(seed, "training"),
        data.preprocessing,
        data.augmentation,
    )


def evaluate(model: keras.Model, batches: Iterable[Batch]) -> float:
    """Top-1 accuracy, 0 to 1, over all images of `batches`.

    Raises:
        DataError: when there are no images.
    """
    predict = tf.function(
        lambda images: tf.argmax(model(images, training=False), axis=-1), input_signature=[_image_signature(model)]
    ).get_concrete_function()
    correct = total = 0
    for images, labels in batches:
        correct += int(np.sum(predict(tf.constant(images, tf.float32)).numpy() == labels))
        total += len(labels)
    if total == 0:
        raise DataError("no images to evaluate; expected at least one batch")
    return correct / total


def recalibrate_batch_norm(model: keras.Model, batches: Iterable[Batch]) -> None:
    """Sets every batch norm's moving mean and variance to the plain average of its batch statistics over `batches`.

    Nothing else of the model changes. Needed after a short training, and for an architecture
    taken out of a supernet, whose statistics are those of no single network (Yu and Huang, 2019, arXiv:1903.05134).

    Args:
        model: changed in place.
        batches: images as they are at inference; labels are not used. About ten batches suffice.

    Raises:
        DataError: when there are no batches.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momentum = {norm: norm.momentum for norm in norms}
    count = 0
    try:
        for images, _ in batches:
            # moving = m * moving + (1 - m) * batch is the plain average when m = count / (count + 1).
            for norm in norms:
                norm.momentum = count / (count + 1)
            model(images, training=True)
            count += 1
    finally:
        for norm in norms:
            norm.momentum = momentum[norm]
    if count == 0:
        raise DataError("no images to re-estimate batch norm with; expected at least one batch")


def regularized_layers(spec: NetworkSpec) -> frozenset[str]:
    """Names of the layers under weight decay: convolutions, depthwise ones included, but not the classifier."""
    return frozenset(node.name for node in spec.nodes if any(weight.regularized for weight in node.layer.weights()))


def kernels(model: keras.Model, names: Collection[str]) -> list[Any]:
    """The kernel variables of the named layers, without biases."""
    return [model.get_layer(name).kernel for name in sorted(names)]


def make_optimizer(
    config: OptimizationSettings, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
) -> keras.optimizers.Optimizer:
    """The optimiser that `config` names."""
    if config.optimizer == "rmsprop":
        return RMSProp(learning_rate, epsilon=config.epsilon)
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(learning_rate)
    raise TrainingError(f"unknown optimizer {config.optimizer!r}; expected rmsprop, sgd or adam")


def smoothed_cross_entropy(logits: Any, labels: Any, smoothing: float) -> Any:
    """Mean softmax cross-entropy against `(1 - smoothing) * one_hot + smoothing / classes`.

    Args:
        logits: `[batch, classes]`.
        labels: int `[batch]`.
        smoothing: 0 for plain cross-entropy.

    Returns:
        A scalar tensor.

    Source: Szegedy et al., 2016 (arXiv:1512.00567), section 7.
    """
    classes = logits.shape[-1]
    targets = tf.one_hot(labels, classes, on_value=1.0 - smoothing + smoothing / classes, off_value=smoothing / classes)
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits))


def _compiled_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, config: OptimizationSettings, penalized: list[Any]
) -> Callable[[Any, Any], tuple[Any, Any]]:
    optimizer.build(model.trainable_variables)

    @tf.function(input_signature=[_image_signature(model), tf.TensorSpec([None], tf.int32)])  # type: ignore[untyped-decorator] # TensorFlow ships no types.
    def step(images: Any, labels: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = smoothed_cross_entropy(logits, labels, config.label_smoothing)
            if config.weight_decay and penalized:
                loss += config.weight_decay * tf.add_n([tf.nn.l2_loss(kernel.value) for kernel in penalized])
        variables = [variable.value for variable in model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients, model.trainable_variables)
        correct = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
        return loss, tf.reduce_mean(tf.cast(correct, tf.float32))

    # One trace is all there is, so TensorFlow's warnings about retracing would mislead a caller with many models.
    return step.get_concrete_function()  # type: ignore[no-any-return]


def _image_signature(model: keras.Model) -> Any:
    return tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32)


def _next_batch(source: Iterator[Batch], step: int, steps: int) -> tuple[Any, Any]:
    try:
        images, labels = next(source)
    except StopIteration:
        raise DataError(f"batches ran out after {step} of {steps} steps; the iterator must repeat the data") from None
    return tf.constant(images, tf.float32), tf.constant(labels, tf.int32)


def _divergence(images: Any, loss: float, step: int, learning_rate: float) -> Exception:
    if not np.isfinite(images).all():
        return DataError(f"training step {step}: the images contain values that are not numbers")
    return TrainingError(
        f"training diverged: the loss is {loss} at step {step}, at learning rate {learning_rate:.3g}; "
        "lower the learning rate or lengthen the warm-up"
    )
