"""Keras' changes to whole batches: the same whenever a batch is made again, and with targets that fit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nas_edge.config import RunConfig
from nas_edge.data.mixing import Mixing
from nas_edge.tasks.classification import Classification, ClassificationSettings


def loaded(**augmentation: Any) -> tuple[Classification, Any]:
    quiet = {"shift": 0.0, "rotation_degrees": 0.0, "zoom": 0.0}
    config = RunConfig.model_validate({"data": {"source": "digits", "augmentation": {**quiet, **augmentation}}})
    task = Classification(ClassificationSettings())
    return task, task.load(config.data, 16, 0)


@pytest.mark.parametrize(
    "changes", [{"randaugment": 1}, {"erasing": 1.0}, {"mixup": 0.2}, {"cutmix": 1.0}, {"erasing": 0.5, "mixup": 1.0}]
)
def test_a_restored_stream_makes_the_same_changes(changes: dict[str, Any]) -> None:
    _, data = loaded(**changes)
    _, plain = loaded()
    first, other, unchanged = (
        of.shuffled(of.split.train, 8, np.random.default_rng(seed)) for of, seed in ((data, 1), (data, 2), (plain, 1))
    )
    next(first), next(unchanged)
    other.restore(json.loads(json.dumps(first.state())))
    inputs, targets = next(first)
    again, again_targets = next(other)
    np.testing.assert_array_equal(again, inputs)
    np.testing.assert_array_equal(again_targets, targets)
    assert not np.array_equal(inputs, next(unchanged)[0])
    for batches in (first, other, unchanged):
        batches.close()


def test_mixed_targets_are_shares_of_the_classes_that_were_mixed() -> None:
    task, data = loaded(mixup=1.0)
    batches = data.shuffled(data.split.train, 64, np.random.default_rng(0))
    _, targets = next(batches)
    batches.close()
    assert targets.shape == (64, *task.targets.shape) == (64, 10)
    assert targets.dtype == task.targets.dtype
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)
    assert set(np.count_nonzero(targets, axis=1)) == {1, 2}
    assert data.arrays(data.split.validation)[1].ndim == 1, "evaluation goes by class numbers"


def test_shares_and_class_numbers_give_the_same_loss_and_score() -> None:
    import tensorflow as tf

    task, settings = Classification(ClassificationSettings()), RunConfig().training
    logits = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0, 1], np.int32)
    shares = np.eye(4, dtype=np.float32)[labels]
    by_number, by_share = (float(task.loss(logits, tf.constant(of), settings)) for of in (labels, shares))
    assert by_number == by_share
    assert task.score(logits, labels) == task.score(logits, shares)


def test_nothing_is_mixed_unless_asked() -> None:
    assert not Mixing()
    task, data = loaded()
    assert data.mixing is None
    assert task.targets.dtype == "int32"
