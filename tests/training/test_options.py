"""Options of trainings: moving averages of the weights, early stopping, and learning from another network."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nas_edge.config import load_config
from nas_edge.errors import ConfigError
from nas_edge.networks.graph import Weights
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.seeds import generator
from nas_edge.tasks.classification import Classification, ClassificationSettings
from nas_edge.testing import check_training_method
from nas_edge.testing.trainings import bright_or_dark, small_network
from nas_edge.training.context import Teacher, TrainingContext, TrainingStep, training_data
from nas_edge.training.distillation import DistillationSettings, train_distillation
from nas_edge.training.standard import StandardSettings, train_standard
from nas_edge.training.trainer import evaluate, recalibrate, train

NETWORK = small_network()
COMMON: dict[str, Any] = {"batch_size": 16, "learning_rate": 2.0, "images": "train"}


def context(settings: StandardSettings, **fields: Any) -> TrainingContext:
    task, data = bright_or_dark()
    whole = TrainingContext(NETWORK, None, task, training_data(settings, data), 0, validation=data.split.validation)
    return dataclasses.replace(whole, **fields)


def trained(settings: StandardSettings, **fields: Any) -> tuple[Weights, list[TrainingStep]]:
    reports: list[TrainingStep] = []
    method = train_distillation if isinstance(settings, DistillationSettings) else train_standard
    return method(settings, context(settings, **fields), reports.append), reports  # type: ignore[arg-type]


def same(one: Weights, other: Weights) -> bool:
    return all(np.array_equal(a, b) for name in one for a, b in zip(one[name], other[name], strict=True))


# ---------------------------------------------------------------- moving averages


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_what_is_delivered_is_the_moving_average_of_all_steps(precision: str, batches_per_step: int) -> None:
    settings = StandardSettings.model_validate(
        {**COMMON, "epochs": 2, "ema_decay": 0.7, "precision": precision, "batches_per_step": batches_per_step}
    )
    (task, data), model = bright_or_dark(), keras_model(NETWORK, seed=1, precision=precision)
    seen: list[list[Any]] = []
    steps = settings.steps(len(data.split.train))

    def look(step: TrainingStep) -> None:
        seen.append([variable.numpy() for variable in model.trainable_variables])

    batches = data.shuffled(data.split.train, 16, generator(0, "x"))
    train(model, batches, steps, task, settings, (), look)
    batches.close()
    expected = seen[0]  # Keras' average starts at the weights after the first step
    for values in seen[1:]:
        expected = [0.7 * average + 0.3 * value for average, value in zip(expected, values, strict=True)]
    for variable, average, last in zip(model.trainable_variables, expected, seen[-1], strict=True):
        np.testing.assert_allclose(variable.numpy(), average, rtol=1e-5, atol=1e-6)
        assert not np.allclose(average, last, rtol=1e-5, atol=1e-6)


def test_batch_statistics_are_those_of_the_averaged_weights() -> None:
    settings = StandardSettings(**COMMON, epochs=2, ema_decay=0.9)
    weights, _ = trained(settings)
    assert not same(weights, trained(StandardSettings(**COMMON, epochs=2))[0])
    model, seen = keras_model(NETWORK, weights), context(settings)
    recalibrate(model, seen.data, seen.data.training_indices, 16)
    assert same(get_weights(model, NETWORK), weights)


# ---------------------------------------------------------------- early stopping


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 4),
        ({"ema_decay": 0.5, "path_dropout": 0.2, "precision": "mixed_bfloat16"}, 4),
        ({"batches_per_step": 2}, 2),
    ],
)
def test_the_best_weights_are_kept_and_scored_as_they_are_delivered(options: dict[str, Any], steps: int) -> None:
    settings = StandardSettings.model_validate({**COMMON, "epochs": 12, "early_stopping": 2, **options})
    weights, reports = trained(settings)
    scored = {report.step: report.validation for report in reports if report.validation is not None}
    assert list(scored) == list(range(steps, steps * len(scored) + 1, steps)), "after each epoch"
    best = max(scored, key=lambda step: scored[step])
    last = max(scored)
    assert last == min(best + 2 * steps, 12 * steps), "and it waits for two more"
    (task, data), model = bright_or_dark(), keras_model(NETWORK, weights)
    assert evaluate(model, data.in_order(data.split.validation, 16), task) == scored[best]
    assert same(weights, trained(settings)[0]), "trained again, it is the same"


def test_looking_at_the_weights_does_not_change_the_training() -> None:
    plain = trained(StandardSettings(**COMMON, epochs=2, ema_decay=0.9))[1]
    watched = trained(StandardSettings(**COMMON, epochs=2, ema_decay=0.9, early_stopping=5))[1]
    assert [report.loss for report in watched] == [report.loss for report in plain]


def test_it_requires_images_that_are_not_trained_with() -> None:
    with pytest.raises(ConfigError, match=r"training.*: early_stopping goes by images .* add training\.images=train"):
        load_config("smoke", settings=["training.early_stopping=3"])
    settings = StandardSettings(**COMMON, early_stopping=3)
    assert not set(context(settings).data.training_indices) & set(context(settings).validation)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="requires validation images"):
        trained(settings, validation=None)
    assert settings.to_compare(0.5).early_stopping is None


# ---------------------------------------------------------------- distillation


def test_half_of_the_loss_goes_by_the_teachers_answers_at_a_temperature_of_two() -> None:
    settings = DistillationSettings()
    assert (settings.temperature, settings.teacher_weight) == (2.0, 0.5)


def test_distillation_keeps_what_a_training_method_promises() -> None:
    settings = DistillationSettings(optimizer="adam", learning_rate=0.2, batch_size=32, epochs=5)
    check_training_method(train_distillation, settings)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(NETWORK, trained(StandardSettings(**COMMON, epochs=8))[0])


def test_a_student_of_a_teacher_alone_answers_as_it_does(teacher: Teacher) -> None:
    task, data = bright_or_dark()
    images, targets = data.arrays(data.split.test)
    answers = keras_model(NETWORK, teacher.weights)(images).numpy()
    # The targets are wrong, so only a teacher can have taught it.
    wrong = dataclasses.replace(data.dataset, labels=1 - data.dataset.labels)
    seen = dataclasses.replace(training_data(StandardSettings(**COMMON), data), dataset=wrong)

    def agreement(share: float) -> float:
        settings = DistillationSettings(**COMMON, epochs=8, teacher_weight=share)
        weights, _ = trained(settings, teacher=teacher, data=seen)
        return task.same_answer(keras_model(NETWORK, weights)(images).numpy(), answers)

    assert task.score(answers, targets) > 0.8
    assert agreement(1.0) > 0.8
    assert agreement(0.0) < 0.2


def test_the_loss_is_the_softened_cross_entropy_and_least_at_the_teachers_answers() -> None:
    task = Classification(ClassificationSettings())
    answers, other = tf.constant([[2.0, -1.0, 0.5]]), tf.constant([[0.0, 1.0, 0.0]])
    softened = np.exp(np.array([2.0, -1.0, 0.5]) / 4)
    shares = softened / softened.sum()
    logits = np.array([0.0, 1.0, 0.0]) / 4
    expected = 16 * -(shares * (logits - np.log(np.exp(logits).sum()))).sum()
    assert float(task.distillation_loss(other, answers, 4.0)) == pytest.approx(expected, rel=1e-5)
    assert task.distillation_loss(answers, answers, 4.0) < task.distillation_loss(other, answers, 4.0)
    assert task.distills


def test_without_a_teacher_it_says_so() -> None:
    settings = DistillationSettings(**COMMON, epochs=4, teacher_epochs=9, temperature=3)
    with pytest.raises(ConfigError, match="requires a network that teaches"):
        trained(settings)
    assert settings.teacher.model_dump() == StandardSettings(**COMMON, epochs=9).model_dump()
    assert StandardSettings().teacher is None


def test_a_teacher_is_not_trained_with_validation_images() -> None:
    assert DistillationSettings(images="train+validation").teacher.images == "train"
