"""From a detector's outputs to boxes: decoding and non-maximum suppression. Requires NumPy only.

The network has outputs for each location: first those of a map of `sides[0]` x `sides[0]` locations that cover the
image evenly, row by row, then those of the next, coarser map, and so on. They are four distances and a score per class:

    exp(output / distance_scale)         distance to the left, top, right and bottom of the box, in the location's sides
    1 / (1 + exp(score_shift - output))  confidence in a box of the class, 0 to 1

Boxes are left, top, right and bottom, in fractions of the square that the network sees, 0 to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # of NumPy


def centres(sides: Any) -> tuple[Array, Array]:
    """Centres of all locations, `[places, 2]` (x, y), and their sides, `[places]`, in fractions of the square.

    Args:
        sides: locations along a side of each map.
    """
    points, lengths = [], []
    for side in sides:
        along = (np.arange(side, dtype=np.float32) + 0.5) / side
        points.append(np.stack([np.tile(along, side), np.repeat(along, side)], axis=1))
        lengths.append(np.full(side * side, 1 / side, np.float32))
    return np.concatenate(points), np.concatenate(lengths)


def detect(outputs: Array, rules: Any) -> tuple[Array, Array, Array]:
    """The objects in one image, the most confident first.

    Args:
        outputs: of the network, real values, `[places, 1, 4 + classes]` or `[places, 4 + classes]`.
        rules: `detection` in the manifest: `sides`, `distance_scale` and `score_shift`, see above; `least_score`;
            `most`, the largest number of boxes; and `overlap`, the IoU above which the less confident of two boxes of a
            class is left out.

    Returns:
        Boxes `[n, 4]`, class numbers `[n]` and scores `[n]`.
    """
    outputs = outputs.reshape(len(outputs), -1).astype(np.float32)
    points, lengths = centres(rules["sides"])
    scores = 1 / (1 + np.exp(np.minimum(np.float32(rules["score_shift"]) - outputs[:, 4:], 80)))
    places, labels = np.nonzero(scores >= rules["least_score"])
    # At most ten times as many as are returned take part in the suppression.
    surest = np.argsort(-scores[places, labels], kind="stable")[: 10 * rules["most"]]
    places, labels = places[surest], labels[surest]
    distances = np.exp(np.clip(outputs[places, :4] / np.float32(rules["distance_scale"]), -20, 20))
    distances = distances * lengths[places, None]
    begins, ends = points[places] - distances[:, :2], points[places] + distances[:, 2:]
    boxes = np.clip(np.concatenate([begins, ends], axis=1), 0, 1)
    kept = suppress(boxes, labels, rules["overlap"], rules["most"])
    return boxes[kept], labels[kept], scores[places, labels][kept]


def suppress(boxes: Array, labels: Array, overlap: float, most: int) -> Array:
    """Non-maximum suppression: indices of the boxes to keep.

    A box is dropped if its IoU with a box of its class that is kept exceeds `overlap`.

    Args:
        boxes: `[n, 4]`, the most confident first.
        labels: their classes, `[n]`.
        overlap: the largest IoU allowed.
        most: how many to keep at most.
    """
    kept: list[Any] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < most:
        first = left[0]
        kept.append(first)
        same = (labels[left] == labels[first]) & (overlaps(boxes[first : first + 1], boxes[left])[0] > overlap)
        same[0] = True
        left = left[~same]
    return np.array(kept, np.int64)


def overlaps(first: Array, second: Array) -> Array:
    """IoU of each of `first` `[n, 4]` with each of `second` `[m, 4]`, `[n, m]`."""
    both = intersections(first, second)
    either = areas(first)[:, None] + areas(second)[None] - both
    return both / np.maximum(either, 1e-12)


def intersections(first: Array, second: Array) -> Array:
    """Area of the intersection of each of `first` `[n, 4]` with each of `second` `[m, 4]`, `[n, m]`."""
    begins = np.maximum(first[:, None, :2], second[None, :, :2])
    ends = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.prod(np.maximum(ends - begins, 0), axis=2)


def areas(boxes: Array) -> Array:
    """Of boxes `[n, 4]`."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
