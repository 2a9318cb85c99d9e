"""Splits are disjoint, complete, stratified and repeatable, whatever the data."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_edge.data.sources import Dataset, load
from nas_edge.data.splits import split
from nas_edge.errors import ConfigError, DataError


def dataset(counts: list[int], test: int = 0, seed: int = 0) -> Dataset:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    labels = np.concatenate([labels, np.arange(test) % len(counts)]).astype(np.int32)
    names = tuple(map(str, range(len(counts))))
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return Dataset(images, labels, names, len(labels) - test if test else None)


@given(
    counts=st.lists(st.integers(3, 60), min_size=2, max_size=6),
    test=st.sampled_from([0, 1, 7]),
    seed=st.integers(0, 2**32),
    fractions=st.tuples(st.floats(0.01, 0.49), st.floats(0.01, 0.49)),
)
def test_parts_are_disjoint_complete_and_stratified(
    counts: list[int], test: int, seed: int, fractions: tuple[float, float]
) -> None:
    data = dataset(counts, test)
    parts = split(data, np.random.default_rng(seed), *fractions)
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everything.tolist()) == list(range(len(data)))
    for part, fraction in ((parts.validation, fractions[0]), (parts.test, fractions[1])):
        if part is parts.test and test:
            assert part.tolist() == list(range(len(data) - test, len(data)))
            continue
        for label, count in enumerate(counts):
            members = int((data.labels[part] == label).sum())
            assert members >= 1
            assert abs(members - fraction * count) <= 2
    assert set(data.labels[parts.train]) == set(range(len(counts)))


def test_given_parts_are_kept_as_they_are() -> None:
    data = replace(dataset([5, 5], test=4), validation_start=7)
    parts = split(data, np.random.default_rng(0))
    assert parts.train.tolist() == list(range(7))
    assert parts.validation.tolist() == [7, 8, 9]
    assert parts.test.tolist() == [10, 11, 12, 13]


@given(seed=st.integers(0, 2**32))
def test_the_same_generator_gives_the_same_split(seed: int) -> None:
    data = dataset([10, 20])
    first, second = (split(data, np.random.default_rng(seed)) for _ in range(2))
    assert all(np.array_equal(getattr(first, p), getattr(second, p)) for p in ("train", "validation", "test"))


def test_another_seed_gives_another_split() -> None:
    data = dataset([50, 50])
    first, second = (split(data, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(first.test, second.test)


def test_digits_split_in_the_proportions_asked_for() -> None:
    parts = split(load("digits"), np.random.default_rng(0), 0.25, 0.15)
    assert [len(parts.train), len(parts.validation), len(parts.test)] == pytest.approx([1078, 449, 270], abs=5)


@pytest.mark.parametrize("fractions", [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (-0.1, 0.2), (float("nan"), 0.2)])
def test_fractions_that_leave_a_part_empty_are_refused(fractions: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="must be positive and leave images to train on"):
        split(dataset([10, 10]), np.random.default_rng(0), *fractions)


def test_a_class_too_small_to_split_is_named() -> None:
    with pytest.raises(DataError, match=r"class '1' has 2 image\(s\) to split, expected 3 or more"):
        split(dataset([10, 2]), np.random.default_rng(0))


@given(st.lists(st.integers(4, 60), min_size=2, max_size=6), st.data())
def test_a_number_of_validation_images_is_met_exactly_and_every_class_gives_its_share(
    counts: list[int], data: st.DataObject
) -> None:
    images = data.draw(st.integers(len(counts), sum(counts) // 2))
    labelled = dataset(counts, test=2)
    parts = split(labelled, np.random.default_rng(0), validation_images=images)
    assert len(parts.validation) == images
    assert len(parts.train) == sum(counts) - images
    given_by = np.bincount(labelled.labels[parts.validation], minlength=len(counts))
    shares = np.array(counts) * images / sum(counts)
    assert (given_by >= 1).all()
    assert (np.abs(given_by - shares) <= max(1, len(counts) - 1)).all()


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6), st.integers(1, 200))
def test_of_validation_images_that_came_with_the_data_at_most_so_many_score(counts: list[int], images: int) -> None:
    given_labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    labels = np.concatenate([np.arange(10, dtype=np.int32) % len(counts), given_labels, np.zeros(2, np.int32)])
    names = tuple(map(str, range(len(counts))))
    data = Dataset(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, names, len(labels) - 2, validation_start=10)
    parts = split(data, np.random.default_rng(0), validation_images=images)
    assert parts.train.tolist() == list(range(10))
    assert parts.test.tolist() == [len(labels) - 2, len(labels) - 1]
    assert set(parts.validation) <= set(range(10, len(labels) - 2))
    assert parts.validation.tolist() == sorted(set(parts.validation))
    if images >= len(given_labels):
        assert len(parts.validation) == len(given_labels)
    else:
        assert len(parts.validation) == images
        found = np.bincount(labels[parts.validation], minlength=len(counts))
        assert (np.abs(found - np.array(counts) * images / len(given_labels)) < 1).all()


def test_of_imagenet_training_images_score_and_the_labelled_validation_images_test() -> None:
    """Its test images have no labels, so they are not there."""
    data = dataset([20, 20], test=6)
    parts = split(data, np.random.default_rng(0), validation_images=10)
    assert len(parts.validation) == 10
    assert max(parts.validation) < 40
    assert parts.test.tolist() == list(range(40, 46))


def test_a_number_of_validation_images_that_cannot_be_is_refused() -> None:
    for images in (1, 11):
        with pytest.raises(ConfigError, match=f"received {images}"):
            split(dataset([10, 10], test=2), np.random.default_rng(0), validation_images=images)
