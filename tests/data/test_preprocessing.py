"""Images to inputs, augmentation, and batch streams that resume to the bit."""

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas_edge.data.augmentation import Augmentation, crop_box
from nas_edge.data.dataset import Dataset, EncodedImage, Pixels, StoredImages
from nas_edge.data.loading import Batches, in_order
from nas_edge.data.preprocessing import ImagePreprocessing, standardize, to_unit_range
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


def encoded(pixels: Pixels, kind: str = "PNG", **options: Any) -> EncodedImage:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return EncodedImage(stream.getvalue(), "an image")


def test_photographs_are_evaluated_on_their_centre() -> None:
    """7/8 of the shorter side: of 64 x 96 pixels a bright square of 56 fills all that is seen."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[4:60, 20:76] = 200
    seen = to_unit_range(28, 3, crop=0.875, resize="bicubic").fit([encoded(pixels)])
    assert seen.min() == 200
    assert to_unit_range(28, 3).fit([encoded(pixels)]).min() == 0


def test_bicubic_rings_and_bilinear_does_not() -> None:
    pixels = np.repeat([50, 50, 200, 200], 16).astype(np.uint8).reshape(1, 8, 8, 1)
    sharp = to_unit_range(32, 1, resize="bicubic").fit(pixels)
    assert sharp.min() < 50 < 200 < sharp.max()
    soft = to_unit_range(32, 1).fit(pixels)
    assert (soft.min(), soft.max()) == (50, 200)


def test_a_large_jpeg_decoded_at_a_fraction_of_its_size_looks_the_same() -> None:
    """Also where it lies on its side, so that width and height change places."""
    rough = Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(rough.resize((800, 600), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[0x0112] = 6
    preprocessing = to_unit_range(32, 3, crop=0.8, resize="bicubic")
    for options in ({}, {"exif": exif}):
        photograph = encoded(pixels, "JPEG", quality=95, **options)
        whole = preprocessing.cut([photograph], [preprocessing.centre], reducing_gap=100.0)
        for gap, most in ((1.0, 6), (2.0, 2)):
            part = preprocessing.cut([photograph], [preprocessing.centre], reducing_gap=gap)
            assert 0 < np.abs(whole.astype(int) - part).mean() < most


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    with pytest.raises(DataError, match="an image is not a PNG, JPEG"):
        to_unit_range(8, 3).fit([EncodedImage(b"hello", "an image")])


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
    preprocessing = standardize(load("digits"), np.arange(100), 16, 1, crop=0.875, resize="bicubic")
    manifest = json.loads(json.dumps(preprocessing.manifest(), allow_nan=False))
    assert ImagePreprocessing.from_manifest(manifest) == preprocessing
    assert manifest["formula"] == "(pixel - mean) / std"
    assert manifest["crop"] == "centre square of 87.5% of the shorter side"
    del manifest["crop_fraction"]
    earlier = ImagePreprocessing.from_manifest({**manifest, "resize": "bilinear, antialiased"})
    assert earlier == ImagePreprocessing(16, 1, preprocessing.mean, preprocessing.std)


def test_a_preprocessing_that_cannot_be_is_refused() -> None:
    for arguments in ((0, 1, (0.0,), (1.0,)), (8, 2, (0.0,) * 2, (1.0,) * 2), (8, 3, (0.0,), (1.0,))):
        with pytest.raises(ConfigError):
            ImagePreprocessing(*arguments)
    with pytest.raises(ConfigError, match=r"positive std\(s\)"):
        ImagePreprocessing(8, 1, (0.0,), (0.0,))


# ---------------------------------------------------------------- augmentation


def changed(augmentation: Augmentation, images: StoredImages, size: int | None = None, channels: Any = None) -> Pixels:
    """What becomes of the images, at their own size and channels unless others are given."""
    if size is None or channels is None:
        assert isinstance(images, np.ndarray)
        size, channels = images.shape[1], images.shape[3]
    preprocessing = to_unit_range(size, channels, resize="bicubic")
    draws = augmentation.draw(len(images), preprocessing, np.random.default_rng(0))
    return augmentation(images, draws, preprocessing)


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
    moved = changed(Augmentation(shift=0.2), pixels)
    offsets = centre_of_mass(moved) - [4, 6]
    assert np.abs(offsets).max() <= 0.2 * 11 + 0.01
    assert (offsets.min(axis=0) < -1.5).all()
    assert (offsets.max(axis=0) > 1.5).all()
    np.testing.assert_allclose(moved.sum(axis=(1, 2, 3), dtype=float), 255, atol=3)
    assert (pixels[:, 4, 6] == 255).all()


def test_rotation_keeps_the_distance_from_the_middle() -> None:
    turned = changed(Augmentation(shift=0.0, rotation_degrees=30), one_dot(300, 1, 5))
    arms = centre_of_mass(turned) - [5, 5]
    np.testing.assert_allclose(np.hypot(*arms.T), 4, atol=0.1)
    angles = np.degrees(np.arctan2(arms[:, 1], -arms[:, 0]))
    assert np.abs(angles).max() <= 31
    assert angles.min() < -25
    assert angles.max() > 25


def test_zoom_scales_the_distance_from_the_middle() -> None:
    zoomed = changed(Augmentation(shift=0.0, zoom=0.2), one_dot(300, 1, 5))
    distance = 5 - centre_of_mass(zoomed)[:, 0]
    assert distance.min() == pytest.approx(4 * 0.8, abs=0.3)
    assert distance.max() == pytest.approx(4 * 1.2, abs=0.3)


def test_nothing_is_mirrored_unless_asked() -> None:
    pixels = RNG.integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(changed(Augmentation(shift=0.0), pixels), pixels)
    flipped = changed(Augmentation(shift=0.0, flip=True), pixels)
    mirrored = [bool((a == b[:, ::-1]).all()) for a, b in zip(flipped, pixels, strict=True)]
    same = [bool((a == b).all()) for a, b in zip(flipped, pixels, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 40


@given(
    sides=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    least=st.sampled_from([0.08, 0.5, 0.99]),
    seed=st.integers(0, 2**32),
)
def test_a_random_crop_lies_within_the_image_and_is_as_large_as_asked(
    sides: tuple[int, int], least: float, seed: int
) -> None:
    width, height = sides
    left, top, right, bottom = crop_box(least, np.random.default_rng(seed).random((10, 4)).tolist(), width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(sides) >= 20 and 0.8 < width / height < 1.25:
        w, h = right - left, bottom - top
        assert w * h >= least * width * height * 0.85
        assert 0.7 < w / h < 1.45


def test_random_crops_are_taken_from_the_original() -> None:
    """A photograph of a fine pattern: a small part of it still shows the pattern, which its thumbnail has lost."""
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[:, ::2] = 255
    few = Augmentation(shift=0.0, crop_area=0.08)
    many = changed(few, [encoded(pixels)] * 40, 64, 3)
    assert max(float(image.std()) for image in many) > 20
    assert to_unit_range(64, 3, resize="bicubic").fit([encoded(pixels)]).std() < 5
    assert len({image.tobytes() for image in many}) > 30


@pytest.mark.parametrize("shift", [-0.1, 1.0, float("nan")])
def test_a_shift_out_of_range_is_refused(shift: float) -> None:
    with pytest.raises(ConfigError, match="shift must be in"):
        Augmentation(shift=shift)


# ---------------------------------------------------------------- batches


@settings(deadline=None)  # the first imports Grain
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


@settings(deadline=None, max_examples=40)
@given(stop=st.integers(0, 12), seed=st.integers(0, 2**32), workers=st.sampled_from([0, 1, 3]))
def test_a_restored_stream_continues_to_the_bit(stop: int, seed: int, workers: int) -> None:
    whole = stream(seed=seed, augmentation=Augmentation(0.5, flip=True))
    expected = [next(whole) for _ in range(15)]
    first = stream(seed=seed, augmentation=Augmentation(0.5, flip=True))
    for _ in range(stop):
        next(first)
    second = stream(seed=1, augmentation=Augmentation(0.5, flip=True), workers=workers)
    next(second)
    second.restore(json.loads(json.dumps(first.state())))
    for inputs, labels in expected[stop:]:
        again, again_labels = next(second)
        np.testing.assert_array_equal(again, inputs)
        np.testing.assert_array_equal(again_labels, labels)
    second.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_processes_that_take_turns_read_what_one_reads(replicas: int, workers: int) -> None:
    """Also when a step's share is uneven, as at the end of a search."""
    alone = stream(augmentation=Augmentation(0.5, flip=True))
    expected = [next(alone) for _ in range(14)]
    for own in range(replicas):
        batches = stream(augmentation=Augmentation(0.5, flip=True), workers=workers)
        for number, (inputs, labels) in enumerate(expected):
            if number % replicas != own and number != 8:
                batches.skip()
                continue
            again, again_labels = next(batches)
            np.testing.assert_array_equal(again, inputs)
            np.testing.assert_array_equal(again_labels, labels)
        assert batches.state() == alone.state()
        batches.settle()
        batches.close()


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


def photographs(folder: Path, count: int = 50) -> Dataset:
    """Noisy JPEGs of several sizes in two classes."""
    for i in range(count):
        file = folder / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(exist_ok=True)
        sides = (int(RNG.integers(20, 60)), int(RNG.integers(20, 60)), 3)
        Image.fromarray(RNG.integers(0, 256, sides, dtype=np.uint8)).save(file)
    return load(str(folder))


def test_the_number_of_threads_changes_no_batch(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    augmentation = Augmentation(shift=0.1, flip=True, crop_area=0.08)
    preprocessing = to_unit_range(16, 3, crop=0.875, resize="bicubic")

    def first(workers: int) -> list[Any]:
        batches = Batches(
            data, np.arange(50), 40, np.random.default_rng(0), preprocessing, augmentation, workers=workers
        )
        with closing(batches):
            return [next(batches) for _ in range(4)]

    def in_order_all(workers: int) -> list[Any]:
        return list(in_order(data, np.arange(50), 20, preprocessing, workers))

    for read in (first, in_order_all):
        alone, together = read(0), read(3)
        assert len(alone) == len(together)
        for (inputs, labels), (again, again_labels) in zip(alone, together, strict=True):
            np.testing.assert_array_equal(inputs, again)
            np.testing.assert_array_equal(labels, again_labels)


def test_a_stream_of_photographs_continues_after_its_process_was_killed(tmp_path: Path) -> None:
    """Its state is two integers in a file; the process that wrote it is gone."""
    (tmp_path / "photos").mkdir()
    photographs(tmp_path / "photos")
    code = """
import hashlib, json, os, signal, sys
import numpy as np
from nas_edge.data.augmentation import Augmentation
from nas_edge.data.loading import Batches
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.sources import load
folder, state, begin, stop, kill = sys.argv[1:]
data = load(folder)
changes = Augmentation(shift=0.0, flip=True, crop_area=0.08)
batches = Batches(data, np.arange(50), 16, np.random.default_rng(5), to_unit_range(16, 3), changes, workers=2)
if int(begin):
    batches.restore(json.load(open(state)))
for _ in range(int(begin), int(stop)):
    inputs, labels = next(batches)
    print(hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest(), flush=True)
    json.dump(batches.state(), open(state, "w"))
if int(kill):
    os.kill(os.getpid(), signal.SIGKILL)
"""

    def read(begin: int, stop: int, kill: bool) -> list[str]:
        arguments = [str(tmp_path / "photos"), str(tmp_path / "state"), str(begin), str(stop), str(int(kill))]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=100)
        assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
        return done.stdout.split()

    assert read(0, 4, True) + read(4, 9, False) == read(0, 9, False)


READ_IN_PROCESSES = """
import multiprocessing, sys, time
import numpy as np
from nas_edge.data.augmentation import Augmentation
from nas_edge.data.loading import Batches
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.sources import load
batches = Batches(load(sys.argv[1]), np.arange(50), 16, np.random.default_rng(5), to_unit_range(16, 3), processes=2)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(300)
"""


def test_the_number_of_processes_changes_no_batch(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    changes = Augmentation(shift=0.0, flip=True, crop_area=0.08)

    def read(processes: int) -> Batches:
        return Batches(
            data, np.arange(50), 40, np.random.default_rng(0), to_unit_range(16, 3), changes, processes=processes
        )

    alone = read(0)
    expected = [next(alone) for _ in range(5)]
    with closing(read(2)) as batches:
        for number, (inputs, labels) in enumerate(expected):
            again, again_labels = next(batches)
            np.testing.assert_array_equal(inputs, again)
            np.testing.assert_array_equal(labels, again_labels)
            if number == 2:
                assert len(multiprocessing.active_children()) == 2
                batches.settle()
                assert not multiprocessing.active_children()
        batches.restore({**batches.state(), "number": 1})
        np.testing.assert_array_equal(next(batches)[0], expected[1][0])
    assert not multiprocessing.active_children()


def test_an_image_that_is_gone_is_told_by_a_process_too(tmp_path: Path) -> None:
    data = photographs(tmp_path, 4)
    (tmp_path / "a" / "0.jpg").unlink()
    batches = Batches(data, np.arange(4), 4, np.random.default_rng(0), to_unit_range(8, 3), processes=1)
    with pytest.raises(DataError, match=r"a/0\.jpg cannot be read: No such file"):
        next(batches)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_one_that_reads(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C reaches all of them, the others only the one that reads."""
    photographs(tmp_path)
    reading = subprocess.Popen(
        [sys.executable, "-c", READ_IN_PROCESSES, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert reading.stdout is not None
    children = [int(pid) for pid in reading.stdout.readline().split()]
    assert len(children) == 2
    (os.killpg if sent is signal.SIGINT else os.kill)(reading.pid, sent)
    _, log = reading.communicate(timeout=200)
    for _ in range(1000):
        if not any(is_running(pid) for pid in children):
            break
        time.sleep(0.1)
    assert not any(is_running(pid) for pid in children)
    assert "Process SpawnProcess" not in log, "no traceback of theirs"


def is_running(pid: int) -> bool:
    try:
        # A process that has ended stays listed until whoever inherited it has noticed.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Gate:
    """Images that are handed out once the gate is open."""

    def __init__(self) -> None:
        self.open, self.asked = threading.Event(), 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Pixels:
        self.asked += 1
        assert self.open.wait(60)
        return np.full((4, 4, 1), index, np.uint8)


def test_a_settled_stream_reads_nothing_ahead_any_more() -> None:
    gate = Gate()
    data = Dataset(gate, np.arange(4, dtype=np.int32), tuple("abcd"))
    batches = Batches(data, np.arange(4), 2, np.random.default_rng(0), to_unit_range(4, 1), workers=2)
    batches.settle()
    assert gate.asked == 0, "nothing was asked for yet"
    gate.open.set()
    next(batches)
    batches.settle()
    asked = gate.asked
    assert 2 < asked < 20
    batches.settle()
    assert gate.asked == asked
    batches.close()


def test_an_image_that_is_gone_is_told_and_reading_goes_on_once_it_is_back(tmp_path: Path) -> None:
    data = photographs(tmp_path, 4)
    batches = Batches(data, np.arange(4), 4, np.random.default_rng(0), to_unit_range(8, 3), workers=2)
    gone = tmp_path / "a" / "0.jpg"
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(DataError, match=r"a/0\.jpg cannot be read: No such file"):
        next(batches)
    gone.write_bytes(content)
    _, labels = next(batches)
    assert sorted(labels.tolist()) == [0, 0, 1, 1]
    assert batches.state()["number"] == 1
    batches.close()


class Masks:
    """Targets that are read when asked for: a mask for each image."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, indices: Any) -> Any:
        return np.stack([np.full((2, 3), index, np.uint8) for index in indices])


def test_targets_need_not_be_labels() -> None:
    data = replace(numbered(10), labels=Masks())
    batches = Batches(data, np.arange(10), 4, np.random.default_rng(0), to_unit_range(4, 1))
    inputs, masks = next(batches)
    assert masks.shape == (4, 2, 3)
    np.testing.assert_allclose(inputs[:, 0, 0, 0] * 127.5 + 127.5, masks[:, 0, 0], atol=1e-4)


def test_streams_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        stream(batch_size=0)
    with pytest.raises(DataError, match="no images"):
        stream(n=0)
