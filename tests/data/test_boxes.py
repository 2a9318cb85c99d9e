"""Boxes: refused where they are wrong, drawn by rule, moved as their images are, and read from COCO's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nas_edge.data.augmentation import Augmentation
from nas_edge.data.boxes import BOX, CLASS, IGNORED, BoxView
from nas_edge.data.preprocessing import to_unit_range
from nas_edge.data.rendering import Rules, draw
from nas_edge.data.sources import load
from nas_edge.data.targets import BOXES, CLASSES, NONE
from nas_edge.errors import BadImagesError, DataError

# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0, 1], r"must be \[n, boxes, 5 or 6\]: class, left"),
        ([[[0, 1, 2, 1, 4]], [[0, 0, 0, 1, 1]]], r"box 0 of image 0 must be .* left < right.* received \[0.0, 1.0, 2"),
        ([[[0, 0, 0, 1, 1]], [[0.5, 0, 0, 1, 1]]], "box 0 of image 1 must be a class number"),
        ([[[0, 0, 0, 1, float("nan")]]] * 2, "box 0 of image 0"),
        ([[[0, 6, 0, 9, 2]]] * 2, r"box 0 of image 0 of y lies outside of its image in x; expected .* 6 x 4"),
        ([[[-1, 0, 0, 0, 0]]] * 2, "has no boxes"),
        ([[[2, 0, 0, 1, 1], [0, 0, 0, 1, 1]]] * 2, "no box has the class 1"),
    ],
)
def test_boxes_that_cannot_be_used_are_refused(tmp_path: Path, y: Any, says: str) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 4, 6, 3), np.uint8), y=np.array(y, float))
    with pytest.raises(DataError, match=says):
        load(str(tmp_path / "data.npz"), kind=BOXES)


def test_boxes_are_cut_at_their_images_and_parts_may_have_more_of_them(tmp_path: Path) -> None:
    x = np.zeros((1, 4, 6), np.uint8)
    more = [[[1, -1, 1, 3, 9], [0, 0, 0, 1, 1], [-1, 0, 0, 0, 0]]]
    np.savez(tmp_path / "data.npz", x_train=x, y_train=more, x_test=x, y_test=[[[0, 2, 1, 5, 3, 1]]])
    found = load(str(tmp_path / "data.npz"), kind=BOXES)
    assert found.class_names == ("0", "1")
    assert found.labels[0].tolist()[0] == [1, 0, 1, 3, 4, 0, 6, 4]
    assert found.labels[1].tolist() == [[0, 2, 1, 5, 3, 1, 6, 4], *[[NONE, 0, 0, 0, 0, 0, 6, 4]] * 2]


# ---------------------------------------------------------------- drawn by rule


def test_boxes_of_figures_are_around_what_is_seen_of_them() -> None:
    rules = Rules(48, 9, 0.5, 0, figures=4)
    counts = []
    for number in range(12):
        drawn = draw(rules, "train", number)
        counts.append(len(drawn.boxes))
        for outline, left, top, right, bottom, ignored in drawn.boxes.astype(int):
            inside = drawn.outlines[top:bottom, left:right] == 1 + outline
            assert all(inside[edge].any() for edge in (0, -1, (slice(None), 0), (slice(None), -1)))
            assert ignored in (0, 1)
        covered = np.zeros_like(drawn.outlines, bool)
        for left, top, right, bottom in drawn.boxes[:, BOX].astype(int):
            covered[top:bottom, left:right] = True
        assert covered[drawn.outlines > 0].all()
    assert len(set(counts)) > 2
    assert max(counts) <= 4 + 3


def test_several_figures_have_no_class() -> None:
    with pytest.raises(DataError, match="images of several figures have no classes; expected figures=1"):
        load("procedural:size=16,train=20,test=20,figures=2", kind=CLASSES)


# ---------------------------------------------------------------- as the network sees them


def framed(sizes: Any, rng: Any) -> tuple[list[Any], Any]:
    """Black images with a white rectangle each, and its box as it is stored."""
    images, boxes = [], []
    for width, height in sizes:
        left, top = rng.integers(0, width // 2), rng.integers(0, height // 2)
        right, bottom = left + rng.integers(8, width // 2), top + rng.integers(8, height // 2)
        image = np.zeros((height, width, 1), np.uint8)
        image[top:bottom, left:right] = 255
        images.append(image)
        boxes.append([[0, left, top, right, bottom, 0, width, height], [NONE, *[0] * 5, width, height]])
    return images, np.array(boxes, np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        None,
        {"shift": 0.0, "flip": True},
        {"shift": 0.2, "zoom": 0.3, "flip": True},
        {"shift": 0.0, "crop_area": 0.4, "flip": True},
        {"shift": 0.1, "crop_area": 0.5},
        {"shift": 0.1, "zoom": 0.2, "rotation_degrees": 180},
    ],
)
def test_boxes_are_changed_as_their_images_are(changes: Any) -> None:
    rng, size = np.random.default_rng(0), 64
    images, boxes = framed([(96, 64), (64, 96), (80, 80), (100, 50)] * 5, rng)
    seen = to_unit_range(size, 1, crop=0.9)
    augmentation = None if changes is None else Augmentation(**changes)
    draws = None if augmentation is None else augmentation.draw(len(images), seen, rng)
    pixels = seen.fit(images) if augmentation is None or draws is None else augmentation(images, draws, seen)
    found = BoxView()(boxes, seen, augmentation, draws)
    assert found.shape == (20, 2, 6)
    assert (found[:, 1, CLASS] == NONE).all()
    checked, turned = 0, bool(changes and "rotation_degrees" in changes)
    for image, row in zip(pixels[..., 0] > 127, found[:, 0], strict=True):
        rows, columns = np.nonzero(image)
        if row[CLASS] == NONE or not len(rows):
            assert len(rows) < 40  # at most a sliver
            continue
        there = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / size
        if turned:  # around the corners; an edge of the input may have cut one off
            assert (row[BOX][:2] <= there[:2] + 0.04).all()
            assert (row[BOX][2:] >= there[2:] - 0.04).all()
        else:
            np.testing.assert_allclose(row[BOX], there, atol=0.04)
        checked += 1
    assert checked >= 12


def test_a_box_of_which_little_is_seen_is_ignored_and_one_outside_is_none() -> None:
    sides = [90, 60]
    stored = np.array(
        [[[0, 0, 0, 20, 60, 0, *sides], [1, 0, 0, 14, 9, 0, *sides], [2, 20, 30, 50, 60, 0, *sides]]], "f"
    )
    (seen,) = BoxView()(stored, to_unit_range(32, 3))  # columns 15 to 75
    np.testing.assert_allclose(seen[0], [0, 0, 0, 5 / 60, 1, 0])
    assert seen[1].tolist() == [NONE, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(seen[2], [2, 5 / 60, 0.5, 35 / 60, 1, 0], rtol=1e-6)
    stored[0, 0, 3] = 19  # 4 of 19 columns
    assert BoxView()(stored, to_unit_range(32, 3))[0, 0, IGNORED] == 1


# ---------------------------------------------------------------- COCO's format


def coco(folder: Path, **parts: Any) -> Path:
    """Writes three images for each part, 40 x 30 pixels, and annotations that are those of `valid`, changed."""
    (folder / "annotations").mkdir(parents=True)
    for name, changed in parts.items():
        (folder / name).mkdir()
        for number in range(3):
            shade = np.full((30, 40, 3), 60 * number, np.uint8)
            Image.fromarray(shade).save(folder / name / f"{number}.png")
        content = json.dumps(changed) if isinstance(changed, dict) else changed
        (folder / "annotations" / f"instances_{name}.json").write_text(content)
    return folder


def annotations(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 10 + n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(3)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 5, "name": "unseen"}],
        "annotations": [
            {"image_id": 11, "category_id": 7, "bbox": [4, 5, 10, 12.5]},
            {"image_id": 11, "category_id": 3, "bbox": [30, 20, 50, 5], "iscrowd": 0},
            {"image_id": 10, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1, "segmentation": {}},
            {"image_id": 10, "category_id": 5, "bbox": [3, 3, 0, 7]},  # no area
        ],
        **changes,
    }


def test_boxes_are_read_from_cocos_format(tmp_path: Path) -> None:
    other = annotations(
        categories=[{"id": 1, "name": "cat"}], annotations=[{"image_id": 12, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    )
    found = load(f"coco:{coco(tmp_path / 'set', train2017=annotations(), val2017=other)}", kind=BOXES)
    assert found.class_names == ("cat", "dog")
    assert (len(found), found.test_start, found.validation_start) == (6, 3, None)
    assert found.labels.shape == (6, 2, 8)
    assert found.labels[0].tolist()[0] == [0, 0, 0, 40, 30, 1, 40, 30]
    assert found.labels[1].tolist() == [[1, 4, 5, 14, 17.5, 0, 40, 30], [0, 30, 20, 40, 25, 0, 40, 30]]
    assert found.labels[5].tolist() == [[0, 1, 2, 4, 6, 0, 40, 30], [NONE, 0, 0, 0, 0, 0, 40, 30]]
    assert (found.labels[2, :, CLASS] == NONE).all()
    assert to_unit_range(8, 3).fit(found.stored(np.array([5])))[0, 0, 0].tolist() == [120, 120, 120]


IMAGE, BOX_OF = {"id": 1, "file_name": "0.png", "width": 40, "height": 30}, {"image_id": 10, "category_id": 7}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("{", "train.json is not JSON: "),
        ("[" * 10_000, "train.json is not JSON: "),
        ("[1, 2]", "is not in COCO's format; expected lists `images`"),
        ({"images": {}}, "is not in COCO's format"),
        ({"images": [{}]}, r"images\[0\]: expected an object with an integer `id`; received \{\}"),
        ({"images": [IMAGE, IMAGE]}, r"images\[1\]: has the same `id` as images\[0\]; received 1"),
        ({"images": [{**IMAGE, "file_name": "../0.png"}]}, r"images\[0\]: `file_name` must be a path within"),
        ({"images": [{**IMAGE, "width": 4.5}]}, r"images\[0\]: expected `width` and `height` from 1 to 65535 pixels"),
        ({"categories": [{"id": 7}]}, r"categories\[0\]: expected a non-empty string as `name`; received None"),
        ({"categories": [{"id": 7, "name": "a\nb"}]}, "a class name must be one line"),
        ({"annotations": [7]}, r"annotations\[0\]: expected an object; received 7"),
        (
            {"annotations": [{**BOX_OF, "image_id": 4}]},
            r"annotations\[0\]: `image_id` is not the `id` of any of the im",
        ),
        ({"annotations": [{**BOX_OF, "bbox": [1, 2, 3]}]}, r"annotations\[0\]: `bbox` must be left, top, width and he"),
        ({"annotations": [{**BOX_OF, "bbox": [1, 2, 3, 1e400]}]}, r"`bbox` must be .*received \[1, 2, 3, inf\]"),
        ({"annotations": [{**BOX_OF, "bbox": [1, 2, 3, 4], "iscrowd": "no"}]}, "`iscrowd` must be 0 or 1"),
        ({"annotations": []}, "has no boxes to train on"),
    ],
)
def test_annotations_that_cannot_be_used_are_one_line(tmp_path: Path, changes: Any, says: str) -> None:
    content = changes if isinstance(changes, str) else annotations(**changes)
    with pytest.raises(DataError, match=says) as raised:
        load(f"coco:{coco(tmp_path / 'set', train=content)}", kind=BOXES)
    assert len(str(raised.value).splitlines()) == 1


def test_images_that_are_not_as_annotated_are_refused_or_skipped(tmp_path: Path) -> None:
    folder = coco(tmp_path / "set", train=annotations())
    (folder / "train" / "0.png").write_bytes(b"")
    Image.new("RGB", (30, 40)).save(folder / "train" / "2.png")
    with pytest.raises(BadImagesError, match=r"2 of 3 images .*0\.png is not .*2\.png is 30 x 40 pixels .* as 40 x 30"):
        load(f"coco:{folder}", kind=BOXES)
    found = load(f"coco:{folder}", skip_bad=True, kind=BOXES)
    assert (len(found), len(found.left_out.skipped)) == (1, 2)
    assert found.labels[0, 0].tolist() == [1, 4, 5, 14, 17.5, 0, 40, 30]


def test_a_folder_must_have_annotations_of_boxes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"annotations holds no instances_train\*\.json; expected .* received none"):
        load(f"coco:{tmp_path}", kind=BOXES)
    with pytest.raises(DataError, match=r"has boxes only; expected classes: .* --task detection"):
        load(f"coco:{tmp_path}", kind=CLASSES)
    folder = coco(
        tmp_path / "set",
        train=annotations(),
        val=annotations(categories=[{"id": n, "name": str(n)} for n in (3, 7, 5)]),
    )
    with pytest.raises(DataError, match=r"instances_val\.json has boxes of '3', but .* has none"):
        load(f"coco:{folder}", kind=BOXES)


SCALARS = st.none() | st.booleans() | st.integers(-2, 50) | st.floats() | st.text(max_size=3)
ENTRY = st.dictionaries(
    st.sampled_from(["id", "name", "image_id", "category_id", "bbox", "iscrowd"]),
    SCALARS | st.lists(SCALARS, max_size=5),
)


@given(
    name=st.sampled_from(["images", "categories", "annotations"]),
    entries=st.lists(ENTRY | SCALARS, max_size=3) | SCALARS,
    keeps=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_annotations_hold_they_are_read_or_refused(
    tmp_path: Path, name: str, entries: Any, keeps: bool
) -> None:
    folder = tmp_path / "set"
    if not folder.exists():
        coco(folder, train=annotations())
    content = annotations()
    # Entries of their own, or valid ones of which some fields are others.
    if keeps and isinstance(entries, list):
        pairs = zip(content[name], entries, strict=False)
        entries = [{**valid, **(entry if isinstance(entry, dict) else {})} for valid, entry in pairs]
    (folder / "annotations" / "instances_train.json").write_text(json.dumps({**content, name: entries}))
    refused = ""
    try:
        found = load(f"coco:{folder}", kind=BOXES)
    except DataError as error:
        refused = str(error)
    if refused:
        assert len(refused.splitlines()) == 1
        return
    stored = found.labels[found.labels[..., CLASS] != NONE]
    assert (stored[:, 1:3] < stored[:, 3:5]).all()
    assert (stored[:, 1:3] >= 0).all()
    assert (stored[:, 3:5] <= stored[:, 6:8]).all()
