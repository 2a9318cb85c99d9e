"""Average precision of detected boxes, as COCO defines it.

Detections of an image and class are matched to its boxes, the most confident first, each to the free box with the
largest IoU that is above the threshold. Precision is interpolated at 101 recalls (at each, the best precision at that
recall or a higher one) and averaged over recalls, classes, and ten IoU thresholds from 0.5 to 0.95.

Boxes that are ignored (crowds) may be matched by any number of detections, which then count neither for nor against;
their overlap is the share of the detection that lies inside. Source: https://cocodataset.org/#detection-eval, and
`cocoeval.py` of the COCO API.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas_edge.tasks.detections import areas, intersections, overlaps

Array: TypeAlias = NDArray[Any]

# IoU thresholds.
OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)

# Outcome of a detection at one threshold.
RIGHT, WRONG, UNCOUNTED = 1.0, 0.0, -1.0

# In place of a score, in rows that count boxes.
BOXES = -1.0


def outcomes(detected: tuple[Array, Array, Array], targets: Array) -> Array:
    """The outcomes of the detections of one image.

    Args:
        detected: boxes `[n, 4]`, classes `[n]` and scores `[n]`, the most confident first.
        targets: `[boxes, 6]`, see `data.boxes`.

    Returns:
        Rows `[rows, 12]`: class, score, and `RIGHT`, `WRONG` or `UNCOUNTED` at each of `OVERLAPS`, of every detection;
        and of every class that has boxes, `BOXES` for the score, and how many at each of `OVERLAPS`.
    """
    boxes, labels, scores = detected
    rows = [np.zeros((0, 2 + len(OVERLAPS)))]
    for label in np.unique(np.concatenate([labels, targets[targets[:, 0] >= 0, 0]])):
        mine, actual = labels == label, targets[targets[:, 0] == label]
        actual = actual[np.argsort(actual[:, 5], kind="stable")]  # those that count first
        found = _matched(boxes[mine].astype(np.float64), actual[:, 1:5].astype(np.float64), actual[:, 5] > 0)
        facts = np.stack([np.full(mine.sum(), label), scores[mine]], axis=1)
        rows.append(np.concatenate([facts, found], axis=1))
        count = np.count_nonzero(actual[:, 5] == 0)
        if count:
            rows.append(np.array([[label, BOXES, *[count] * len(OVERLAPS)]]))
    return np.concatenate(rows)


def _matched(boxes: Array, actual: Array, ignored: Array) -> Array:
    """Outcomes of the detections of one image and class, `[n, overlaps]`; ignored boxes come last."""
    result = np.full((len(boxes), len(OVERLAPS)), WRONG)
    if not len(boxes) or not len(actual):
        return result
    shared = overlaps(boxes, actual)
    inside = intersections(boxes, actual) / np.maximum(areas(boxes), 1e-12)[:, None]
    shared = np.where(ignored, inside, shared)
    counted, crowds = shared[:, ~ignored], shared[:, ignored]
    least = np.minimum(OVERLAPS, 1 - 1e-10)
    if crowds.size:
        result[crowds.max(axis=1)[:, None] >= least] = UNCOUNTED
    free = np.ones((len(OVERLAPS), counted.shape[1]), bool)
    columns = np.arange(len(OVERLAPS))
    # The others cannot be matched at any overlap.
    for row in np.flatnonzero((counted >= least[0]).any(axis=1)):
        candidates = np.where(free, counted[row], -1.0)
        # The last of equals, as in the COCO API.
        best = counted.shape[1] - 1 - candidates[:, ::-1].argmax(axis=1)
        matched = candidates[columns, best] >= least
        free[columns[matched], best[matched]] = False
        result[row, matched] = RIGHT
    return result


class Curves:
    """Average precision of rows of `outcomes`, which may count several times.

    Args:
        rows: of `outcomes`, of all images.
        images: which image each row is of.
    """

    def __init__(self, rows: Array, images: Array) -> None:
        self._classes: list[tuple[int, Array, Array, Array, Array]] = []
        for label in np.unique(rows[:, 0]):
            mine = rows[:, 0] == label
            counts = mine & (rows[:, 1] == BOXES)
            if not counts.any():
                continue
            found = np.flatnonzero(mine & (rows[:, 1] != BOXES))
            found = found[np.argsort(-rows[found, 1], kind="stable")]
            outcome = rows[found, 2:].T.copy()
            self._classes.append((int(label), outcome, images[found], rows[counts, 2], images[counts]))

    def by_class(self, times: Array) -> dict[int, Array]:
        """Average precision at each of `OVERLAPS`, by class, of those that have boxes.

        Args:
            times: how often each image counts, `[images]`.
        """
        known = {}
        for label, found, of_image, boxes, boxes_of in self._classes:
            count = float((boxes * times[boxes_of]).sum())
            if count:
                weights = times[of_image].astype(np.float64)
                right = np.cumsum((found == RIGHT) * weights, axis=1)
                wrong = np.cumsum((found == WRONG) * weights, axis=1)
                known[label] = np.array([_averaged(*pair, count) for pair in zip(right, wrong, strict=True)])
        return known

    def mean(self, times: Array) -> float:
        """The mean over classes and overlaps; 0 where there are no boxes."""
        known = self.by_class(times)
        return float(np.mean(list(known.values()))) if known else 0.0


def _averaged(right: Array, wrong: Array, count: float) -> float:
    """Average precision from cumulative numbers of right and wrong detections, given the number of boxes."""
    if not len(right):
        return 0.0
    precision = right / np.maximum(right + wrong, np.spacing(1))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / count, _RECALLS, side="left")
    return float(np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0.0).mean())
