from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nas_edge.errors import ConfigError
from nas_edge.training.optimizers import make_optimizer, scaled_if_float16
from nas_edge.training.rmsprop import RMSProp
from nas_edge.training.schedules import CosineWithWarmup
from nas_edge.training.settings import OptimizationSettings

LEARNING_RATE = 0.3
STEPS = 5


def gradients(seed: int = 1) -> list[list[np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(0, 3, (3, 2)).astype(np.float32), rng.normal(0, 0.1, 4).astype(np.float32)] for _ in range(STEPS)
    ]


def reference(weight: np.ndarray[Any, Any], steps: list[np.ndarray[Any, Any]], epsilon: float) -> np.ndarray[Any, Any]:
    weight, mean_square, update = weight.astype(np.float64), np.ones_like(weight, np.float64), 0.0
    for gradient in steps:
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        update = 0.9 * update + LEARNING_RATE * gradient / np.sqrt(mean_square + epsilon)
        weight = weight - update
    return weight


@pytest.mark.parametrize("epsilon", [1.0, 1e-3])
def test_update_is_that_of_the_formula(epsilon: float) -> None:
    variables = [keras.Variable(np.ones((3, 2), np.float32)), keras.Variable(np.zeros(4, np.float32))]
    optimizer = RMSProp(LEARNING_RATE, epsilon=epsilon)
    for step in gradients():
        optimizer.apply_gradients(zip([tf.constant(g) for g in step], variables, strict=True))
    for i, start in enumerate([np.ones((3, 2)), np.zeros(4)]):
        np.testing.assert_allclose(variables[i].numpy(), reference(start, [g[i] for g in gradients()], epsilon), 1e-5)


def test_update_is_that_of_tensorflow_1() -> None:
    ours, theirs = keras.Variable(np.ones((3, 2), np.float32)), tf.Variable(np.ones((3, 2), np.float32))
    optimizer = RMSProp(LEARNING_RATE)
    published = tf.compat.v1.train.RMSPropOptimizer(LEARNING_RATE, decay=0.9, momentum=0.9, epsilon=1.0)
    for gradient, _ in gradients():
        optimizer.apply([tf.constant(gradient)], [ours])
        published.apply_gradients([(tf.constant(gradient), theirs)])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_restored_optimizer_continues_exactly() -> None:
    def updated(variable: keras.Variable, optimizer: RMSProp, steps: list[Any]) -> None:
        compiled = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
        for gradient, _ in steps:
            compiled(tf.constant(gradient))

    schedule = CosineWithWarmup(LEARNING_RATE, STEPS, 1)
    whole, halves = keras.Variable(np.ones((3, 2), np.float32)), keras.Variable(np.ones((3, 2), np.float32))
    updated(whole, RMSProp(schedule), gradients())
    first, second, store = RMSProp(schedule), RMSProp(schedule), {}
    updated(halves, first, gradients()[:2])
    first.save_own_variables(store)
    second.build([halves])
    second.load_own_variables({key: np.array(value) for key, value in store.items()})
    updated(halves, second, gradients()[2:])
    np.testing.assert_array_equal(whole.numpy(), halves.numpy())


def test_works_in_fit_and_survives_its_config() -> None:
    optimizer = RMSProp.from_config(RMSProp(CosineWithWarmup(0.1, 20), epsilon=0.5).get_config())
    assert (optimizer.epsilon, optimizer.decay, optimizer.momentum) == (0.5, 0.9, 0.9)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    losses = model.fit(x, x @ np.float32([[1.0], [-2.0]]), batch_size=16, epochs=5, shuffle=False, verbose=0).history[
        "loss"
    ]
    assert losses[-1] < 0.5 * losses[0]


def test_sgd_has_nesterov_momentum() -> None:
    variable, rate = keras.Variable(np.zeros(1, np.float32)), 0.5
    optimizer = make_optimizer(OptimizationSettings(optimizer="sgd"), rate)
    expected, velocity = 0.0, 0.0
    for gradient in (1.0, -2.0, 0.5):
        optimizer.apply([tf.constant([gradient])], [variable])
        velocity = 0.9 * velocity - rate * gradient
        expected += 0.9 * velocity - rate * gradient
        assert float(variable.numpy()[0]) == pytest.approx(expected)


def test_an_optimizer_has_the_rate_and_epsilon_of_its_settings() -> None:
    rmsprop = make_optimizer(OptimizationSettings(optimizer="rmsprop", epsilon=0.25), 0.5)
    assert (float(rmsprop.learning_rate), rmsprop.epsilon) == (0.5, 0.25)
    assert float(make_optimizer(OptimizationSettings(optimizer="adam"), 0.5).learning_rate) == 0.5
    unknown = OptimizationSettings().model_copy(update={"optimizer": "adagrad"})
    with pytest.raises(ConfigError, match="unknown optimizer 'adagrad'"):
        make_optimizer(unknown, 0.5)


def test_an_optimizer_has_the_published_defaults() -> None:
    optimizer = RMSProp()
    assert float(optimizer.learning_rate) == pytest.approx(0.165)
    assert (optimizer.decay, optimizer.momentum, optimizer.epsilon, optimizer.name) == (0.9, 0.9, 1.0, "rmsprop_tf1")


def test_only_float16_has_its_loss_scaled() -> None:
    inner = keras.optimizers.SGD(0.1)
    assert scaled_if_float16(inner, "float32") is scaled_if_float16(inner, "mixed_bfloat16") is inner
    assert isinstance(scaled_if_float16(inner, "mixed_float16"), keras.optimizers.LossScaleOptimizer)
