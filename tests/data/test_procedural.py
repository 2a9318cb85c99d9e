"""Images drawn by rule: the same ones however they are drawn, kept safely, and as difficult as asked for."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge.data import procedural, rendering
from nas_edge.data.dataset import Dataset, Pixels
from nas_edge.data.examined import cache_folder
from nas_edge.data.procedural import ProceduralSettings, load_procedural
from nas_edge.data.rendering import MOST_CLASSES, Rules, figures, render
from nas_edge.data.sources import load
from nas_edge.data.targets import LABELS
from nas_edge.errors import DataError, NasEdgeError

# Three blocks to train with, the last one not full.
SMALL = "size=16,classes=6,difficulty=0.5,train=70,test=35"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder() / "procedural"


def pixels(dataset: Dataset) -> Pixels:
    return np.stack([np.asarray(dataset.images[i]) for i in range(len(dataset))])


def rendered(rules: Rules, part: Any, count: int) -> Pixels:
    return np.stack([render(rules, part, number) for number in range(count)])


@pytest.fixture
def never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(procedural, "_rendered", fail)


# ---------------------------------------------------------------- images


def test_images_do_not_depend_on_the_number_of_processes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = load_procedural(SMALL, processes=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "another"))
    two = load_procedural(SMALL, processes=2)
    np.testing.assert_array_equal(pixels(one), pixels(two))
    here = [rendered(Rules(16, 6, 0.5, 0), part, count) for part, count in (("train", 70), ("test", 35))]
    np.testing.assert_array_equal(pixels(one), np.concatenate(here))


def test_more_images_begin_with_the_same_ones() -> None:
    few, many = (
        load_procedural("size=16,classes=3,train=9,test=3"),
        load_procedural("size=16,classes=3,train=40,test=3"),
    )
    np.testing.assert_array_equal(pixels(few)[:9], pixels(many)[:9])
    np.testing.assert_array_equal(pixels(few)[9:], pixels(many)[40:])


def test_every_image_is_another() -> None:
    rules = Rules(16, 2, 0.5, 0)
    some = [rendered(rules, "train", 20), rendered(rules, "test", 20), rendered(Rules(16, 2, 0.5, 1), "train", 20)]
    assert len({image.tobytes() for image in np.concatenate(some)}) == 60


def test_images_are_those_of_this_version_of_the_rules() -> None:
    """When this fails, images have changed: count `RENDERING` up, and give the new means (processors round alike)."""
    means = [rendered(Rules(32, 16, difficulty, 0), "train", 16).mean() for difficulty in (0.0, 0.5, 1.0)]
    assert rendering.RENDERING == 1
    np.testing.assert_allclose(means, MEANS, atol=0.02)


MEANS = (129.09, 127.81, 132.37)


@pytest.mark.parametrize("size", [16, 33, 128])
def test_images_have_the_size_asked_for(size: int) -> None:
    assert render(Rules(size, 9, 1.0, 0), "test", 5).shape == (size, size, 3)


def test_an_image_shows_the_same_at_any_size() -> None:
    """Up to noise, which a mean over blocks takes away: a larger image is no other one."""
    rules = [Rules(size, 16, 0.0, 0) for size in (32, 128)]
    for number in range(4):
        small, large = (render(one, "train", number).astype(float) for one in rules)
        fitted = large.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
        assert np.corrcoef(small.ravel(), fitted.ravel())[0, 1] > 0.9


def test_classes_are_balanced_in_both_parts() -> None:
    data = load_procedural(SMALL)
    assert data.test_start == 70
    assert np.bincount(data.labels[:70]).tolist() == [12, 12, 12, 12, 11, 11]
    assert np.bincount(data.labels[70:]).tolist() == [6, 6, 6, 6, 6, 5]
    assert len(set(data.class_names)) == 6


@pytest.mark.parametrize("classes", [2, 5, 16, 17, MOST_CLASSES])
def test_two_parts_of_a_figure_tell_the_third(classes: int) -> None:
    known = [(one.outline, one.pattern, one.glyph) for one in figures(classes)]
    assert len(known) == classes
    for left_out in range(3):
        assert len({tuple(np.delete(names, left_out)) for names in known}) == classes


@pytest.mark.parametrize("classes", [2, 5, 10, 16])
def test_labels_are_the_parts_that_some_but_not_all_images_have(classes: int) -> None:
    data = load(f"procedural:size=16,classes={classes},train={2 * classes},test={classes}", kind=LABELS)
    labels = np.asarray(data.labels)
    assert labels.shape == (3 * classes, len(data.class_names))
    for has, figure in zip(labels.astype(bool), [*figures(classes)] * 3, strict=True):
        parts = {figure.outline, figure.pattern, figure.glyph}
        assert set(np.array(data.class_names)[has]) == parts & {*data.class_names}
    shares = labels.mean(axis=0)
    assert ((shares > 0) & (shares < 1)).all()


def test_difficult_images_are_harder() -> None:
    """A nearest-neighbour classifier errs more on them, and on the easiest ones less than by chance."""
    accuracies = []
    for difficulty in (0.0, 0.5, 1.0):
        rules = Rules(16, 2, difficulty, 0)
        train, test = (rendered(rules, part, count).mean(-1) for part, count in (("train", 400), ("test", 200)))
        flat = [(images - images.mean((1, 2), keepdims=True)).reshape(len(images), -1) for images in (train, test)]
        flat = [images / np.linalg.norm(images, axis=1, keepdims=True) for images in flat]
        nearest = np.abs(flat[1] @ flat[0].T).argmax(axis=1)  # black on white is white on black
        accuracies.append(float(np.mean(nearest % 2 == np.arange(200) % 2)))
    assert accuracies[0] > 0.6
    assert accuracies[0] > accuracies[1] + 0.03 > accuracies[2] + 0.06


# ---------------------------------------------------------------- kept images


def test_images_are_drawn_once(cache: Path, request: pytest.FixtureRequest) -> None:
    first = load(f"procedural:{SMALL}")
    request.getfixturevalue("never_drawn")
    again = load(f"procedural:{SMALL}")
    np.testing.assert_array_equal(pixels(first), pixels(again))
    assert first.to_json() == again.to_json()
    assert first.to_json()["rendering"] == rendering.RENDERING


@pytest.mark.parametrize("damage", ["changed", "cut off", "empty", "gone"])
def test_damaged_images_are_drawn_again(cache: Path, damage: str) -> None:
    first = pixels(load_procedural(SMALL))
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    whole = {"changed": content, "cut off": content[:-100], "empty": b"", "gone": None}[damage]
    file.unlink()  # rather than change what `first` maps
    if whole is not None:
        file.write_bytes(whole)
    np.testing.assert_array_equal(pixels(load_procedural(SMALL)), first)


def test_processes_may_draw_the_same_images_at_once(cache: Path) -> None:
    code = f"""if True:
        import hashlib, numpy as np
        from nas_edge.data.procedural import load_procedural
        data = load_procedural({SMALL!r}, processes=1)
        print(hashlib.sha256(np.stack([data.images[i] for i in range(len(data))]).tobytes()).hexdigest())"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(said) == 1
    assert len(list(cache.iterdir())) == 1


def test_what_was_used_longest_ago_makes_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    for name, age_s in (("stopped", 100_000), ("drawn", 100)):
        (cache / f"{name}.part").write_bytes(bytes(100_000))
        os.utime(cache / f"{name}.part", (time.time() - age_s,) * 2)
    sources = [f"{SMALL},seed={seed}" for seed in range(3)]
    for source in sources[:2]:
        load_procedural(source)
    load_procedural(sources[0])
    monkeypatch.setattr(procedural, "_MAX_CACHE_BYTES", 300_000)  # of 82 kB each
    load_procedural(sources[2])
    kept = {procedural._file(ProceduralSettings.parse(source)).name for source in (sources[0], sources[2])}
    assert {path.name for path in cache.iterdir()} == {*kept, "drawn.part"}


def test_a_process_that_ends_early_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "command", lambda *_: [sys.executable, "-c", "print('x')"])
    with pytest.raises(NasEdgeError, match="ended early"):
        load_procedural(SMALL)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot keep .* Not a directory; let XDG_CACHE_HOME name"):
        load_procedural(SMALL)


def test_a_disk_without_room_is_told_before_drawing(never_drawn: None) -> None:
    with pytest.raises(DataError, match=r"no room .* expected 5\d{5} MB, received"):
        load_procedural("size=512,train=700000")


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("size=8", "size: .* 16; received '8'"),
        ("difficulty=1.5", "difficulty: .* 1; received '1.5'"),
        ("difficulty=nan", "difficulty: .* received 'nan'"),
        ("classes=101", "classes: .* 100; received '101'"),
        ("classes=ten", "classes: .* received 'ten'"),
        ("shapes=3", "no setting 'shapes'; expected one of classes, difficulty, train, test, seed, size"),
        ("size", "NAME=VALUE,.* received 'size'"),
        ("size=32,size=33", "NAME=VALUE,.* received 'size=33'"),
        ("train=15", "as many examples as classes, 16, .* received train=15"),
    ],
)
def test_what_there_is_not_is_refused(text: str, because: str) -> None:
    with pytest.raises(DataError, match=because) as error:
        load(f"procedural:{text}")
    assert "\n" not in str(error.value)
