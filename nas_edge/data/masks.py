"""Masks as a network's targets: cut, resized and changed as their images are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.augmentation import Augmentation, Draws
from nas_edge.data.preprocessing import ImagePreprocessing


class MaskView:
    """Masks `uint8 [n, height, width]`, of the size of their images, as `[n, size, size]` of what a network sees.

    What lies beyond an image is `targets.VOID`.
    """

    def __call__(
        self,
        masks: NDArray[np.uint8],
        preprocessing: ImagePreprocessing,
        augmentation: Augmentation | None = None,
        draws: Draws | None = None,
    ) -> NDArray[Any]:
        """Masks as they are seen.

        Args:
            masks: as they are stored.
            preprocessing: of their images.
            augmentation: of their images; None for none.
            draws: theirs, with an augmentation.
        """
        nearest = replace(preprocessing, channels=1, mean=(0.0,), std=(1.0,), resize="nearest")
        pixels = masks[..., None]
        if augmentation is None or draws is None:
            return nearest.fit(pixels)[..., 0]
        return augmentation(pixels, draws, nearest)[..., 0]
