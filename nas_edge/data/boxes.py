"""Boxes around objects as targets: cropped, resized and augmented as their images are.

A target is an array of a fixed number of rows, one per box. Images with fewer boxes have rows of the class `NONE`.

    given    class, left, top, right, bottom, ignored                    in pixels of the image
    stored   the same, and the image's width and height
    seen     class, left, top, right, bottom, ignored                    in fractions of the network's input, 0 to 1

Boxes that are `ignored` (1, else 0) are neither trained on nor counted: crowds, and objects that are mostly outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.augmentation import Augmentation, Draws, crop_box
from nas_edge.data.preprocessing import ImagePreprocessing
from nas_edge.data.targets import NONE

# Columns.
CLASS, BOX, IGNORED, SIZE = 0, slice(1, 5), 5, slice(6, 8)

# Objects of which a smaller share of the box's area is visible are ignored.
LEAST_SEEN = 0.25


class BoxView:
    """Turns stored boxes, float32 `[n, boxes, 8]`, into those that a network sees, `[n, boxes, 6]`."""

    def __call__(
        self,
        boxes: NDArray[np.float32],
        preprocessing: ImagePreprocessing,
        augmentation: Augmentation | None = None,
        draws: Draws | None = None,
    ) -> NDArray[np.float32]:
        """Boxes as the network sees them.

        A rotated box becomes the upright box around its corners.

        Args:
            boxes: stored boxes.
            preprocessing: of their images.
            augmentation: of their images; None for none.
            draws: the augmentation's draws.
        """
        crops = _crops(boxes[:, 0, SIZE].astype(int).tolist(), preprocessing, augmentation, draws)
        begins, sides = np.tile(crops[:, None, :2], 2), np.tile(crops[:, None, 2:] - crops[:, None, :2], 2)
        whole = (boxes[..., BOX] - begins) / sides  # in fractions of the crop
        inside = np.clip(whole, 0, 1)
        share = _share(inside, whole)
        if augmentation is not None and draws is not None:
            # Corners [n, boxes, 4, x and y].
            corners = inside[..., [0, 1, 2, 1, 2, 3, 0, 3]].reshape(*boxes.shape[:2], 4, 2)
            corners = _moved(corners, draws, preprocessing.input_size)
            moved = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=-1)
            inside = np.clip(moved, 0, 1)
            share = share * _share(inside, moved)
        seen = np.zeros((*boxes.shape[:2], 6), np.float32)
        seen[..., BOX] = inside
        there = (boxes[..., CLASS] != NONE) & (share > 0)
        seen[..., CLASS] = np.where(there, boxes[..., CLASS], NONE)
        seen[..., IGNORED] = np.where(share < LEAST_SEEN, 1, boxes[..., IGNORED])
        seen[~there, 1:] = 0
        return seen


def _crops(
    sizes: Sequence[Sequence[int]],
    preprocessing: ImagePreprocessing,
    augmentation: Augmentation | None,
    draws: Draws | None,
) -> NDArray[np.float64]:
    """The crop of each image, given widths and heights, `[n, 4]`."""
    if augmentation is None or draws is None or augmentation.crop_area == 1:
        cut = [preprocessing.centre(width, height) for width, height in sizes]
    else:
        tried = draws.crops.tolist()
        cut = [crop_box(augmentation.crop_area, one, *size) for one, size in zip(tried, sizes, strict=True)]
    return np.array(cut, np.float64).reshape(-1, 4)


def _moved(corners: NDArray[Any], draws: Draws, input_size: int) -> NDArray[Any]:
    """Where `Augmentation` moves corners: the inverse of its map, which says where each pixel is read from."""
    shape = (len(corners), 1, 1)
    cos, sin = ((draws.scale * part(draws.angle)).reshape(shape) for part in (np.cos, np.sin))
    across = corners[..., 0] - 0.5 - draws.right.reshape(shape) / input_size
    along = corners[..., 1] - 0.5 - draws.down.reshape(shape) / input_size
    squares = cos**2 + sin**2
    x, y = (cos * across - sin * along) / squares + 0.5, (cos * along + sin * across) / squares + 0.5
    x = np.where(draws.mirrored.reshape(shape), 1 - x, x)
    return np.stack([x, y], axis=-1)


def _share(inside: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    """The share of the area of `whole` boxes that is `inside`."""
    areas = [(one[..., 2] - one[..., 0]) * (one[..., 3] - one[..., 1]) for one in (inside, whole)]
    share: NDArray[Any] = areas[0] / np.maximum(areas[1], 1e-12)
    return share
