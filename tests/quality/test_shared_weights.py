"""Qualities with shared weights: on all validation data, of which one batch is held at a time."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from nas_edge.data.augmentation import Augmentation
from nas_edge.data.dataset import Dataset
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.splits import Split
from nas_edge.latency.source import Candidate
from nas_edge.quality.shared_weights import SharedWeightsQuality
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import Supernet
from nas_edge.tasks.base import TaskData
from tests.support.spaces import tiny_space
from tests.support.tasks import CLASSIFICATION, OPTIMIZATION

SPACE = tiny_space()


@pytest.fixture(scope="module")
def shared() -> SharedWeights:
    return SharedWeights(Supernet(SPACE, seed=0), keras.optimizers.SGD(0.05), CLASSIFICATION, OPTIMIZATION)


def data(count: int) -> TaskData:
    """Noise of three brightnesses, sorted by class; every second image is for validation."""
    labels = np.sort(np.arange(count) % 3).astype(np.int32)
    rng = np.random.default_rng(0)
    images = (80 * labels[:, None, None, None] + rng.integers(90, size=(count, 8, 8, 1))).astype(np.uint8)
    numbers = np.arange(count)
    split = Split(numbers[::2], numbers[1::2], numbers[:0])
    return TaskData(Dataset(images, labels, ("a", "b", "c")), split, to_unit_range(8, 1), Augmentation())


def candidates(count: int) -> list[Candidate]:
    rng = np.random.default_rng(1)
    architectures = [SPACE.sample(rng) for _ in range(count)]
    return [Candidate(SPACE.build(architecture), architecture) for architecture in architectures]


def test_one_batch_is_held_at_a_time_and_read_once_for_all(
    shared: SharedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = data(200)
    sizes, asked = list[int](), list[Any]()
    compute = shared.outputs

    def outputs(inputs: Any, masks: Any) -> Any:
        sizes.append(len(inputs))
        asked.append(inputs)
        return compute(inputs, masks)

    monkeypatch.setattr(shared, "outputs", outputs)
    found = SharedWeightsQuality(shared, CLASSIFICATION, images, 32).evaluate_all(candidates(3))
    assert sizes == [32] * 4 * 3
    assert len({id(inputs) for inputs in asked}) == 4
    assert all(one.value is not None and 0 <= one.value <= 1 for one in found)


def test_an_architecture_is_worth_the_same_alone_and_among_others(shared: SharedWeights) -> None:
    source = SharedWeightsQuality(shared, CLASSIFICATION, data(90), 16)
    chosen = candidates(3)
    assert source.evaluate_all(chosen) == [source.evaluate(candidate) for candidate in chosen]
    assert source.evaluate_all([]) == []


def test_batches_have_the_statistics_of_the_whole_though_images_are_sorted_by_class(shared: SharedWeights) -> None:
    rng = np.random.default_rng(0)
    images, candidate = data(600), candidates(1)[0]
    for _ in range(60):
        chosen = rng.choice(images.split.train, 32)
        inputs = images.preprocessing(images.dataset.images[chosen])
        masks = np.zeros((2, 16), np.float32)
        assert candidate.architecture is not None
        masks[[0, 1], candidate.architecture.choices] = 1
        shared.train_step(inputs, images.dataset.labels[chosen], masks)
    whole = SharedWeightsQuality(shared, CLASSIFICATION, images, 300).evaluate(candidate).value
    parts = SharedWeightsQuality(shared, CLASSIFICATION, images, 50).evaluate(candidate).value
    assert whole is not None
    assert whole > 0.8
    assert parts == pytest.approx(whole, abs=0.1)
