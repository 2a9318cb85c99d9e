"""Pixels to inputs, augmentation, and batch streams that resume to the bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas_edge.data.dataset import Dataset, Pixels
from nas_edge.data.preprocessing import Augmentation, Batches, Preprocessing, in_order, standardize, to_unit_range
from nas_edge.data.sources import load
from nas_edge.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def numbered(n: int, size: int = 4) -> Dataset:
    """Image i is filled with the value i."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, size, size, 1))
    return Dataset(images, np.arange(n, dtype=np.int32), tuple(map(str, range(n))))


def stream(n: int = 10, batch_size: int = 4, seed: int = 0, **options: Any) -> Batches:
    data = numbered(n)
    return Batches(data, np.arange(n), batch_size, np.random.default_rng(seed), to_unit_range(4, 1), **options)


# ---------------------------------------------------------------- preprocessing


def test_unit_range_maps_black_and_white_to_minus_and_plus_one() -> None:
    pixels = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(2, axis=1)
    assert to_unit_range(2, 1)(pixels)[0, 0, :, 0].tolist() == [-1.0, 1.0]


def test_inputs_are_float32_of_the_input_size_and_channels() -> None:
    for stored in (1, 3):
        for channels in (1, 3):
            inputs = to_unit_range(16, channels)(RNG.integers(0, 256, (2, 8, 8, stored), dtype=np.uint8))
            assert inputs.shape == (2, 16, 16, channels)
            assert inputs.dtype == np.float32


def test_grey_becomes_three_equal_channels() -> None:
    fitted = to_unit_range(8, 3).fit(RNG.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8))
    assert (fitted == fitted[..., :1]).all()


def test_colour_becomes_grey_by_luma() -> None:
    fitted = to_unit_range(1, 1).fit(np.array([[[[255, 0, 0]]], [[[0, 255, 0]]], [[[0, 0, 255]]]], np.uint8))
    assert fitted.ravel().tolist() == pytest.approx([0.299 * 255, 0.587 * 255, 0.114 * 255], abs=1)


def test_images_of_the_right_form_are_passed_on_untouched() -> None:
    pixels = RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert to_unit_range(8, 3).fit(pixels) is pixels


def test_resizing_is_bilinear() -> None:
    pixels = np.array([0, 100], np.uint8).reshape(1, 1, 2, 1).repeat(2, axis=1)
    assert to_unit_range(4, 1).fit(pixels)[0, 0, :, 0].tolist() == [0, 25, 75, 100]


def test_standardized_training_images_have_mean_zero_and_deviation_one() -> None:
    data = load("digits")
    train = np.arange(0, 1797, 2)
    preprocessing = standardize(data, train, 16, 3)
    inputs = preprocessing(data.images[train])
    np.testing.assert_allclose(inputs.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(inputs.std(axis=(0, 1, 2)), 1.0, atol=1e-4)


def test_statistics_come_from_the_training_images_only() -> None:
    data = numbered(4)
    assert standardize(data, np.array([0, 2]), 4, 1).mean == (1.0,)


def test_images_of_one_colour_are_refused() -> None:
    with pytest.raises(DataError, match="constant colour channel"):
        standardize(numbered(3), np.array([1]), 4, 1)


def test_manifest_survives_json_and_restores_the_preprocessing_exactly() -> None:
    preprocessing = standardize(load("digits"), np.arange(100), 16, 1)
    manifest = json.loads(json.dumps(preprocessing.manifest(), allow_nan=False))
    assert Preprocessing.from_manifest(manifest) == preprocessing
    assert manifest["formula"] == "(pixel - mean) / std"


def test_a_preprocessing_that_cannot_be_is_refused() -> None:
    for arguments in ((0, 1, (0.0,), (1.0,)), (8, 2, (0.0,) * 2, (1.0,) * 2), (8, 3, (0.0,), (1.0,))):
        with pytest.raises(ConfigError):
            Preprocessing(*arguments)
    with pytest.raises(ConfigError, match=r"positive std\(s\)"):
        Preprocessing(8, 1, (0.0,), (0.0,))


# ---------------------------------------------------------------- augmentation


def centre_of_mass(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`[n, 2]`, in pixels."""
    weights = images[..., 0].astype(float)
    grid = np.mgrid[: weights.shape[1], : weights.shape[2]]
    return np.einsum("nyx,kyx->nk", weights, grid) / weights.sum(axis=(1, 2))[:, None]


def one_dot(n: int, row: int, column: int) -> Pixels:
    pixels = np.zeros((n, 11, 11, 1), np.uint8)
    pixels[:, row, column] = 255
    return pixels


def test_shift_moves_the_whole_image_and_fills_with_black() -> None:
    pixels = one_dot(300, 4, 6)
    moved = Augmentation(shift=0.2)(pixels, np.random.default_rng(0))
    offsets = centre_of_mass(moved) - [4, 6]
    assert np.abs(offsets).max() <= 0.2 * 11 + 0.01
    assert (offsets.min(axis=0) < -1.5).all()
    assert (offsets.max(axis=0) > 1.5).all()
    np.testing.assert_allclose(moved.sum(axis=(1, 2, 3), dtype=float), 255, atol=3)
    assert (pixels[:, 4, 6] == 255).all()


def test_rotation_keeps_the_distance_from_the_middle() -> None:
    turned = Augmentation(shift=0.0, rotation_degrees=30)(one_dot(300, 1, 5), np.random.default_rng(0))
    arms = centre_of_mass(turned) - [5, 5]
    np.testing.assert_allclose(np.hypot(*arms.T), 4, atol=0.1)
    angles = np.degrees(np.arctan2(arms[:, 1], -arms[:, 0]))
    assert np.abs(angles).max() <= 31
    assert angles.min() < -25
    assert angles.max() > 25


def test_zoom_scales_the_distance_from_the_middle() -> None:
    zoomed = Augmentation(shift=0.0, zoom=0.2)(one_dot(300, 1, 5), np.random.default_rng(0))
    distance = 5 - centre_of_mass(zoomed)[:, 0]
    assert distance.min() == pytest.approx(4 * 0.8, abs=0.3)
    assert distance.max() == pytest.approx(4 * 1.2, abs=0.3)


def test_nothing_is_mirrored_unless_asked() -> None:
    pixels = RNG.integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Augmentation(shift=0.0)(pixels, np.random.default_rng(0)), pixels)
    flipped = Augmentation(shift=0.0, flip=True)(pixels, np.random.default_rng(0))
    mirrored = [bool((a == b[:, ::-1]).all()) for a, b in zip(flipped, pixels, strict=True)]
    same = [bool((a == b).all()) for a, b in zip(flipped, pixels, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 40


@pytest.mark.parametrize("shift", [-0.1, 1.0, float("nan")])
def test_a_shift_out_of_range_is_refused(shift: float) -> None:
    with pytest.raises(ConfigError, match="shift must be in"):
        Augmentation(shift=shift)


# ---------------------------------------------------------------- batches


@given(n=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_every_epoch_shows_every_image_once(n: int, batch_size: int, seed: int) -> None:
    batches = stream(n, batch_size, seed)
    seen: list[int] = []
    while len(seen) < 3 * n:
        inputs, labels = next(batches)
        assert len(inputs) == len(labels) == batch_size
        np.testing.assert_allclose(inputs[:, 0, 0, 0] * 127.5 + 127.5, labels, atol=1e-4)
        seen += labels.tolist()
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert batches.epoch == len(seen) / n


@given(stop=st.integers(0, 12), seed=st.integers(0, 2**32))
def test_a_restored_stream_continues_to_the_bit(stop: int, seed: int) -> None:
    whole = stream(seed=seed, augmentation=Augmentation(0.5, flip=True))
    expected = [next(whole) for _ in range(15)]
    first = stream(seed=seed, augmentation=Augmentation(0.5, flip=True))
    for _ in range(stop):
        next(first)
    second = stream(seed=1, augmentation=Augmentation(0.5, flip=True))
    next(second)
    second.restore(json.loads(json.dumps(first.state())))
    for inputs, labels in expected[stop:]:
        again, again_labels = next(second)
        np.testing.assert_array_equal(again, inputs)
        np.testing.assert_array_equal(again_labels, labels)


def test_epochs_and_seeds_differ_in_order() -> None:
    batches = stream(10, 10)
    first, second = (next(batches)[1].tolist() for _ in range(2))
    assert first != second
    assert first != next(stream(10, 10, seed=1))[1].tolist()


def test_only_the_given_images_are_shown() -> None:
    batches = Batches(numbered(10), np.array([3, 7]), 4, np.random.default_rng(0), to_unit_range(4, 1))
    assert set(next(batches)[1].tolist()) == {3, 7}


def test_evaluation_leaves_no_image_out() -> None:
    batches = list(in_order(numbered(10), np.arange(10), 4, to_unit_range(4, 1)))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert np.concatenate([labels for _, labels in batches]).tolist() == list(range(10))


def test_batches_read_files_lazily(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    data = load(str(tmp_path), image_size=8)
    inputs, _ = next(Batches(data, np.arange(6), 4, np.random.default_rng(0), to_unit_range(8, 3)))
    assert inputs.shape == (4, 8, 8, 3)


def test_streams_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        stream(batch_size=0)
    with pytest.raises(DataError, match="no images"):
        stream(n=0)
