from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_edge.errors import DataError, TrainingError
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.keras_model import keras_model
from nas_edge.networks.template import decode
from nas_edge.tasks.base import Batch
from nas_edge.tasks.classification import smoothed_cross_entropy
from nas_edge.training.context import TrainingStep
from nas_edge.training.standard import StandardSettings
from nas_edge.training.trainer import (
    evaluate,
    recalibrate_batch_norm,
    regularized_layers,
    train,
)
from tests.support.tasks import CLASSIFICATION

CONFIG = StandardSettings(learning_rate=1.0, batch_size=32, label_smoothing=0.0, warmup_fraction=0.1)


def tiny_spec() -> NetworkSpec:
    return decode(
        L.sequential(
            conv=L.Conv2D(8, 3, 2),
            norm=L.BatchNorm(),
            act=L.Activation("relu"),
            depthwise=L.DepthwiseConv2D(3),
            norm2=L.BatchNorm(),
            pool=L.GlobalAveragePool(),
            logits=L.Conv2D(2, use_bias=True, kernel_init="classifier", regularized=False),
            flatten=L.Flatten(),
        ),
        (8, 8, 1),
        {},
    )


def batches(seed: int = 0, size: int = 32, offset: float = 0.0) -> Iterator[Batch]:
    """Images with horizontal or vertical stripes."""
    rng = np.random.default_rng(seed)
    stripes = np.broadcast_to((np.arange(8) % 2)[:, None], (8, 8)).astype(np.float32)
    while True:
        labels = rng.integers(0, 2, size)
        images = np.where(labels[:, None, None] == 0, stripes, stripes.T)[..., None]
        yield (images + rng.normal(0, 0.3, images.shape) + offset).astype(np.float32), labels


def take(source: Iterator[Batch], count: int) -> list[Batch]:
    return [next(source) for _ in range(count)]


def test_training_learns_and_reports_every_step() -> None:
    model, reports = keras_model(tiny_spec()), list[TrainingStep]()
    train(model, batches(), 40, CLASSIFICATION, CONFIG, regularized_layers(tiny_spec()), reports.append)
    recalibrate_batch_norm(model, take(batches(1), 5))
    assert evaluate(model, take(batches(2), 4), CLASSIFICATION) > 0.95
    assert [report.step for report in reports] == list(range(1, 41))
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert reports[0].learning_rate == 0.0
    assert max(report.learning_rate for report in reports) == pytest.approx(CONFIG.peak_learning_rate)


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd", "adam"])
def test_same_seed_gives_the_same_weights(optimizer: Any) -> None:
    def trained() -> list[np.ndarray[Any, Any]]:
        model = keras_model(tiny_spec(), seed=3)
        train(model, batches(), 3, CLASSIFICATION, CONFIG.model_copy(update={"optimizer": optimizer}))
        return list(model.get_weights())

    for first, second in zip(trained(), trained(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_weight_decay_applies_to_convolutions_but_not_to_the_classifier() -> None:
    spec = tiny_spec()
    assert regularized_layers(spec) == {"conv", "depthwise"}
    model, reports = keras_model(spec), list[TrainingStep]()
    before = [np.sum(model.get_layer(name).kernel.numpy() ** 2) for name in ("conv", "depthwise")]
    batch = next(batches())
    train(
        model,
        [batch],
        1,
        CLASSIFICATION,
        CONFIG.model_copy(update={"weight_decay": 0.0}),
        regularized_layers(spec),
        reports.append,
    )
    # The rate of step 0 is zero, so the weights are still the same.
    train(
        model,
        [batch],
        1,
        CLASSIFICATION,
        CONFIG.model_copy(update={"weight_decay": 0.1, "warmup_fraction": 1.0}),
        regularized_layers(spec),
        reports.append,
    )
    model_again = keras_model(spec)
    train(
        model_again,
        [batch],
        1,
        CLASSIFICATION,
        CONFIG.model_copy(update={"weight_decay": 0.1}),
        regularized_layers(spec),
        reports.append,
    )
    assert reports[2].loss - reports[0].loss == pytest.approx(0.05 * sum(before), rel=1e-4)


def test_several_batches_in_a_step_are_one_update_with_their_mean_gradient() -> None:
    together, apart = keras_model(tiny_spec(), seed=3), keras_model(tiny_spec(), seed=3)
    one = CONFIG.model_copy(update={"optimizer": "sgd", "warmup_fraction": 0.0, "batch_size": 8})
    chosen, reports = take(batches(5, 8), 2), list[TrainingStep]()
    train(
        together,
        chosen,
        1,
        CLASSIFICATION,
        one.model_copy(update={"batches_per_step": 2}),
        regularized_layers(tiny_spec()),
        reports.append,
    )
    assert len(reports) == 1
    assert reports[0].learning_rate == pytest.approx(16 / 256)

    start = [variable.numpy() for variable in apart.trainable_variables]
    moves = []
    for batch in chosen:
        apart.set_weights(keras_model(tiny_spec(), seed=3).get_weights())
        train(apart, [batch], 1, CLASSIFICATION, one, regularized_layers(tiny_spec()))
        moves.append([after.numpy() - s for after, s in zip(apart.trainable_variables, start, strict=True)])
    # The rate is that of all images of the step: twice that of one batch.
    for variable, before, first, second in zip(together.trainable_variables, start, *moves, strict=True):
        np.testing.assert_allclose(variable.numpy() - before, first + second, 1e-3, 1e-6)


def test_label_smoothing_is_the_published_mixture() -> None:
    logits = np.float32([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    labels = np.int32([0, 1])
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = 0.9 * np.eye(3)[labels] + 0.1 / 3
    expected = -(targets * log_softmax).sum(-1).mean()
    assert float(smoothed_cross_entropy(tf.constant(logits), labels, 0.1)) == pytest.approx(expected, rel=1e-5)


def test_divergence_is_one_clear_error() -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(
            keras_model(tiny_spec()),
            batches(),
            60,
            CLASSIFICATION,
            CONFIG.model_copy(update={"optimizer": "sgd", "learning_rate": 1e9}),
        )


def test_images_that_are_not_numbers_are_a_data_error() -> None:
    images, labels = next(batches())
    with pytest.raises(DataError, match="not numbers"):
        train(keras_model(tiny_spec()), [(images * np.float32(np.nan), labels)], 1, CLASSIFICATION, CONFIG)


def test_too_few_batches_are_a_data_error() -> None:
    with pytest.raises(DataError, match="after 2 of 3 steps"):
        train(keras_model(tiny_spec()), take(batches(), 2), 3, CLASSIFICATION, CONFIG)


def test_recalibration_gives_the_plain_average_of_batch_statistics() -> None:
    model = keras_model(tiny_spec())
    norm = model.get_layer("norm")
    momentum, kernel = norm.momentum, model.get_layer("conv").kernel.numpy()
    chosen = take(batches(4, offset=2.0), 3)
    recalibrate_batch_norm(model, chosen)
    before_norm = keras.Model(model.inputs[0], norm.input)
    outputs = [before_norm(images).numpy() for images, _ in chosen]
    np.testing.assert_allclose(norm.moving_mean.numpy(), np.mean([o.mean((0, 1, 2)) for o in outputs], 0), 1e-4, 1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), np.mean([o.var((0, 1, 2)) for o in outputs], 0), 1e-4)
    assert norm.momentum == momentum
    np.testing.assert_array_equal(model.get_layer("conv").kernel.numpy(), kernel)


def test_defaults_are_those_of_tunas() -> None:
    config = StandardSettings(batch_size=4096)
    assert config.peak_learning_rate == pytest.approx(2.64)
    assert config.steps(1_231_121) == 27_050
    assert round(config.steps(1_231_121) * config.warmup_fraction) == 676


def test_no_images_are_a_data_error() -> None:
    model = keras_model(tiny_spec())
    with pytest.raises(DataError, match="at least one batch"):
        evaluate(model, [], CLASSIFICATION)
    with pytest.raises(DataError, match="at least one batch"):
        recalibrate_batch_norm(model, [])
