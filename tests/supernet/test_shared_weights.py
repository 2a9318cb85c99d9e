"""Training steps of the shared weights: what is compiled otherwise comes to the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from nas_edge.spaces.extremes import largest
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import Supernet, one_hot_masks
from nas_edge.training.optimizers import scaled_if_float16
from nas_edge.training.rmsprop import RMSProp
from tests.support.batches import SeededBatches
from tests.support.spaces import tiny_space
from tests.support.tasks import CLASSIFICATION, OPTIMIZATION

SPACE = tiny_space()
MASKS = [one_hot_masks(SPACE, SPACE.sample(np.random.default_rng(seed))) for seed in range(4)]


def trained(steps: int = 3, xla_batch_size: int | None = None, **supernet: Any) -> SharedWeights:
    precision = supernet.get("precision", "float32")
    optimizer = scaled_if_float16(RMSProp(0.1), precision)
    weights = SharedWeights(Supernet(SPACE, **supernet), optimizer, CLASSIFICATION, OPTIMIZATION, xla_batch_size)
    batches = SeededBatches(1)
    for _, masks in zip(range(steps), MASKS, strict=False):
        weights.train_step(*next(batches), masks)
    return weights


@pytest.fixture(scope="module")
def exact() -> SharedWeights:
    """As they are trained by default; no test trains them further."""
    return trained()


def difference(first: SharedWeights, second: SharedWeights) -> float:
    """The largest difference of a variable's values, relative to its largest."""
    variables = second.supernet.named_variables()
    return max(
        float(np.max(np.abs(one.numpy() - variables[name].numpy())) / max(np.max(np.abs(one.numpy())), 1e-6))
        for name, one in first.supernet.named_variables().items()
    )


def test_xla_takes_the_steps_of_the_search_in_masked_execution() -> None:
    plain = trained(execution="masked")
    assert difference(plain, trained(execution="masked", xla_batch_size=8)) < 1e-4


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_lower_precision_trains_float32_weights_to_about_the_same(exact: SharedWeights, precision: str) -> None:
    start, mixed = trained(steps=0), trained(precision=precision)
    assert {variable.dtype for variable in mixed.supernet.trainable_variables} == {"float32"}
    moved, apart = difference(start, exact), difference(exact, mixed)
    assert 0 < apart < moved / 2


def test_a_step_of_float16_that_overflows_changes_no_weight() -> None:
    weights = trained(steps=0, precision="mixed_float16")
    before = weights.arrays()
    images, labels = next(SeededBatches(1))
    images[:] = 1e4  # the sum of squares has no place in float16, nor has what the scaled loss makes of it
    images[:, ::2] = -6e4
    assert isinstance(weights.optimizer, keras.optimizers.LossScaleOptimizer)
    weights.optimizer.dynamic_scale.assign(2.0**60)
    weights.train_step(images, labels, MASKS[0])
    for name, array in weights.arrays().items():
        if name.startswith("weights/"):
            np.testing.assert_array_equal(array, before[name])


def test_qualities_are_those_of_each_network(exact: SharedWeights) -> None:
    inputs, targets = next(SeededBatches(2))
    samples = [(inputs, targets, masks) for masks in MASKS]
    assert exact.qualities(samples, len(MASKS)) == [exact.quality(inputs, targets, masks) for masks in MASKS]


def test_the_largest_network_learns_the_targets_and_the_student_its_answers() -> None:
    images, labels = next(SeededBatches(1))
    teacher = one_hot_masks(SPACE, largest(SPACE))
    student = next(masks for masks in MASKS if not np.array_equal(masks, teacher))

    def after(step: Callable[[SharedWeights], float]) -> dict[str, Any]:
        weights = SharedWeights(Supernet(SPACE), keras.optimizers.SGD(0.05), CLASSIFICATION, OPTIMIZATION)
        step(weights)
        return {name: variable.numpy() for name, variable in weights.supernet.named_variables().items()}

    start = after(lambda weights: 0.0)
    student_alone = after(lambda weights: weights.train_step(images, labels, student))
    alone = after(lambda weights: weights.train_step(images, labels, teacher))
    # One that teaches itself knows the answers already.
    itself = after(lambda weights: weights.train_taught_step(images, labels, teacher, teacher))
    taught = after(lambda weights: weights.train_taught_step(images, labels, student, teacher))
    others = after(lambda weights: weights.train_taught_step(images, (labels + 1) % 2, student, teacher))
    for name, before in start.items():
        np.testing.assert_allclose(itself[name], alone[name], atol=1e-4)
        if np.all(student_alone[name] == before):  # a variable that the student does not have
            np.testing.assert_allclose(taught[name], alone[name], atol=1e-6)
    assert any(not np.allclose(taught[name], alone[name], atol=1e-5) for name in start), "the student learns, too"
    assert any(not np.allclose(taught[name], others[name], atol=1e-5) for name in start), "the teacher learns them"
