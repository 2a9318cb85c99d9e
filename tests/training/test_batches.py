"""Evaluation in batches: all the same size, every example once, and in an order in which each resembles the whole."""

from __future__ import annotations

import numpy as np
import pytest

from nas_edge.data.augmentation import Augmentation
from nas_edge.data.dataset import Dataset
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.splits import Split
from nas_edge.errors import DataError
from nas_edge.tasks.base import TaskData
from nas_edge.training.batches import RECALIBRATION_BATCHES, evaluation_batches, mixed, statistics_sample


def data(count: int) -> TaskData:
    """Images of one pixel, whose number is its value and its label."""
    numbers = np.arange(count)
    images = numbers.astype(np.uint8).reshape(-1, 1, 1, 1)
    none = np.array([], np.int64)
    return TaskData(
        Dataset(images, numbers.astype(np.int32)), Split(none, numbers, none), to_unit_range(1, 1), Augmentation()
    )


@pytest.mark.parametrize(("count", "size"), [(10, 4), (12, 4), (3, 4), (1, 4), (9, 8)])
def test_every_example_counts_once_and_all_batches_have_one_size(count: int, size: int) -> None:
    indices = mixed(np.arange(count))
    batches = list(evaluation_batches(data(count), indices, size))
    assert {len(batch.inputs) for batch in batches} == {min(size, count)}
    counted = [batch.counted(batch.inputs) for batch in batches]
    assert np.concatenate([targets for _, targets in counted]).tolist() == indices.tolist()
    values = np.concatenate([inputs for inputs, _ in counted]).ravel() * 127.5 + 127.5
    np.testing.assert_allclose(values, indices)


def test_no_examples_are_a_data_error() -> None:
    with pytest.raises(DataError, match="at least one"):
        list(evaluation_batches(data(3), np.array([], np.int64), 2))


def test_examples_sorted_by_class_are_mixed_and_always_alike() -> None:
    by_class = np.arange(1000)
    np.testing.assert_array_equal(mixed(by_class), mixed(by_class))
    assert np.mean(mixed(by_class)[:100]) == pytest.approx(500, abs=100)
    assert sorted(mixed(by_class)) == by_class.tolist()


def test_statistics_are_those_of_a_bounded_sample() -> None:
    assert len(statistics_sample(np.arange(1000), 2)) == 2 * RECALIBRATION_BATCHES
    assert len(statistics_sample(np.arange(10), 2)) == 10
