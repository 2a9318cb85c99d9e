"""Average precision by values worked out by hand, and those of the COCO API."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nas_edge.tasks.average_precision import OVERLAPS, RIGHT, UNCOUNTED, WRONG, Curves, outcomes


def targets(*boxes: Any) -> Any:
    """Rows of class, left, top, right, bottom, ignored, and one without a box."""
    return np.array([*boxes, (-1, 0, 0, 0, 0, 0)], np.float32)


def detected(*found: Any) -> Any:
    """Boxes, classes and scores of rows of class, left, top, right, bottom, score."""
    rows = np.array(found, np.float32).reshape(-1, 6)
    return rows[:, 1:5], rows[:, 0].astype(int), rows[:, 5]


def by_class(*images: Any) -> dict[int, Any]:
    rows = [outcomes(detected(*found), targets(*boxes)) for found, boxes in images]
    of = np.repeat(np.arange(len(rows)), list(map(len, rows)))
    return Curves(np.concatenate(rows), of).by_class(np.ones(len(rows), int))


WHOLE = (0, 0, 1, 1)
LEFT, RIGHT_HALF = (0, 0, 0.5, 1), (0.5, 0, 1, 1)


def test_a_detection_counts_up_to_its_overlap() -> None:
    found = by_class(([(0, 0, 0, 0.72, 1, 0.9)], [(0, *WHOLE, 0)]))
    np.testing.assert_array_equal(found[0], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0])  # 0.5, 0.55, ... 0.7


def test_precision_is_the_best_of_any_recall_as_high() -> None:
    # Right, wrong, right, right of 4 boxes: precision 1, 1/2, 2/3, 3/4 at recall 1/4, 1/4, 2/4, 3/4; 0 beyond. Of the
    # 101 recalls, 26 are up to 1/4, and 50 up to 3/4 after that.
    boxes = [(0, x, 0, x + 0.1, 1, 0) for x in (0.0, 0.2, 0.4, 0.6)]
    guesses = [(0, 0.0, 0, 0.1, 1, 0.9), (0, 0.8, 0, 0.9, 1, 0.8), (0, 0.2, 0, 0.3, 1, 0.7), (0, 0.4, 0, 0.5, 1, 0.6)]
    found = by_class((guesses, boxes))
    np.testing.assert_allclose(found[0], (26 * 1 + 50 * 3 / 4) / 101)


def test_a_box_is_found_once_and_classes_are_apart() -> None:
    twice = [(0, *LEFT, 0.9), (0, *LEFT, 0.8), (0, *RIGHT_HALF, 0.7), (1, *LEFT, 0.95)]
    found = by_class((twice, [(0, *LEFT, 0), (0, *RIGHT_HALF, 0), (2, *WHOLE, 0)]))
    # Of class 0 precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: 51 recalls, and 50. Class 1 has no boxes, 2 is missed.
    assert set(found) == {0, 2}
    np.testing.assert_allclose(found[0], (51 + 50 * 2 / 3) / 101)
    np.testing.assert_array_equal(found[2], 0)


def test_detections_of_a_crowd_do_not_count() -> None:
    found = [(0, 0, 0, 0.1, 0.5, 0.9), (0, 0.1, 0.5, 0.3, 1, 0.8), (0, *RIGHT_HALF, 0.7), (0, *RIGHT_HALF, 0.6)]
    rows = outcomes(detected(*found), targets((0, *LEFT, 1), (0, *RIGHT_HALF, 0)))
    np.testing.assert_array_equal(rows[:, 2], [UNCOUNTED, UNCOUNTED, RIGHT, WRONG, 1])
    assert rows.shape == (5, 2 + len(OVERLAPS))


def test_images_may_count_several_times() -> None:
    first, second = ([(0, *LEFT, 0.9)], [(0, *LEFT, 0)]), ([(0, *LEFT, 0.95)], [(0, *RIGHT_HALF, 0)])
    rows = [outcomes(detected(*found), targets(*boxes)) for found, boxes in (first, second)]
    curves = Curves(np.concatenate(rows), np.repeat([0, 1], list(map(len, rows))))
    for times in ((1, 0), (1, 1), (2, 1), (0, 3)):
        repeated = [one for one, count in zip((first, second), times, strict=True) for _ in range(count)]
        assert curves.mean(np.array(times)) == pytest.approx(np.mean(by_class(*repeated)[0]))
    assert curves.mean(np.array([0, 0])) == 0


def drawn_images(seed: int) -> list[Any]:
    """Detections and boxes, crowds among them, of 60 images of 1000 pixels, of three classes."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(60):
        boxes, found = [], []
        for _ in range(rng.integers(0, 6)):
            (x, y), (width, height) = rng.uniform(0, 600, 2), rng.uniform(20, 380, 2)
            label, crowd = int(rng.integers(3)), int(rng.random() < 0.15)
            x, y, width, height = (float(np.float32(side)) for side in (x, y, width, height))
            boxes.append((label, x, y, x + width, y + height, crowd))
        for label, *box, _ in boxes:
            for _ in range(rng.integers(0, 4)):
                near = np.array(box) + rng.normal(0, 25, 4)
                if near[2] - near[0] > 2 and near[3] - near[1] > 2:
                    other = label if rng.random() < 0.85 else int(rng.integers(3))
                    found.append((other, *near, rng.random()))
        for _ in range(rng.integers(0, 5)):
            (x, y), (width, height) = rng.uniform(0, 600, 2), rng.uniform(20, 380, 2)
            found.append((int(rng.integers(3)), x, y, x + width, y + height, rng.random()))
        images.append((sorted(found, key=lambda one: -one[5]), boxes))
    return images


@pytest.mark.parametrize(
    ("seed", "expected"), [(0, (0.07817272, 0.23046214, 0.02616403)), (2, (0.09700462, 0.25254834, 0.06845896))]
)
def test_values_are_those_of_the_coco_api(seed: int, expected: Any) -> None:
    """AP, AP50 and AP75 by pycocotools 2.0.11, of the same boxes and detections."""
    known = by_class(*drawn_images(seed))
    found = [np.mean([part[which] for part in known.values()]) for which in (slice(None), 0, 5)]
    np.testing.assert_allclose(found, expected, atol=2e-5)
