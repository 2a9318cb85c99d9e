"""Random changes to training examples that preserve their class; here those of images.

Digits and signs are turned, zoomed and shifted a little; of photographs a random part is cut out of the original file.
All that is random about a batch is drawn at once, from a generator that nothing else uses, so a batch does not depend
on how many threads make it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nas_edge.data.dataset import Pixels, StoredImages
from nas_edge.data.image_files import Box
from nas_edge.data.preprocessing import ImagePreprocessing, Preprocessing
from nas_edge.data.targets import VOID
from nas_edge.errors import ConfigError

# Shapes of random crops, width to height, and how often one that does not fit is drawn again.
_LEAST_ASPECT, _GREATEST_ASPECT = 3 / 4, 4 / 3
_ATTEMPTS = 10

# A random crop may be decoded with as few pixels as the input has, see `image_files.cut_out`.
_REDUCING_GAP = 1.0


class Changes(Protocol):
    """Random changes to training examples, each on its own."""

    def draw(self, n: int, preprocessing: Preprocessing, rng: np.random.Generator, /) -> Any:
        """Makes all random draws for `n` examples; slices of the result are the draws for some of them."""

    def __call__(self, examples: Any, draws: Any, preprocessing: Any, /) -> NDArray[Any]:
        """Changed copies of stored examples, as `Preprocessing.fit` gives them."""


@dataclass(frozen=True)
class Draws:
    """All that is random about some images.

    Attributes:
        angle: radians, `[n]`.
        scale: `[n]`.
        down: pixels, `[n]`.
        right: pixels, `[n]`.
        mirrored: bool, `[n]`.
        crops: area, shape, left and top of each attempt, 0 to 1, `[n, attempts, 4]`.
    """

    angle: NDArray[np.float64]
    scale: NDArray[np.float64]
    down: NDArray[np.float64]
    right: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    crops: NDArray[np.float64]

    def __getitem__(self, part: slice) -> Draws:
        """Those of some of the images."""
        return Draws(*(getattr(self, field.name)[part] for field in fields(self)))


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images.

    A part of the image is cut out, unless `crop_area` is 1, in which case it is the centre square that evaluation sees.
    It is rotated, zoomed and shifted in one bilinear resampling, filled with black, and then mirrored or not.

    Attributes:
        shift: by up to this fraction of the size in each direction.
        rotation_degrees: by up to this angle in each direction.
        zoom: in or out by up to this fraction.
        flip: mirror half of the images left to right. Off by default, as a mirrored digit, letter or sign may belong to
            another class; turn it on for photographs of objects.
        crop_area: the least share of the image's area that is cut out, in a shape of 3:4 to 4:3. Source: Szegedy et
            al., 2015 (arXiv:1409.4842), section 6; 0.08 there.
    """

    shift: float = 0.1
    rotation_degrees: float = 0.0
    zoom: float = 0.0
    flip: bool = False
    crop_area: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 1:
            raise ConfigError(
                f"augmentation shift must be in [0, 1), a fraction of the image size; received {self.shift}"
            )
        if not 0 <= self.zoom < 1:
            raise ConfigError(
                f"augmentation zoom must be in [0, 1), a fraction of the image size; received {self.zoom}"
            )
        if not 0 <= self.rotation_degrees <= 180:
            raise ConfigError(f"augmentation rotation must be 0 to 180 degrees; received {self.rotation_degrees}")
        if not 0 < self.crop_area <= 1:
            raise ConfigError(f"augmentation crop_area must be in (0, 1], received {self.crop_area}")

    def draw(self, n: int, preprocessing: Preprocessing, rng: np.random.Generator) -> Draws:
        """Draws all that is random about `n` images.

        Args:
            n: number of images.
            preprocessing: says the size of the network's input.
            rng: what of it is drawn first does not depend on what is drawn later, so that the streams of runs of
                earlier versions stay what they were.
        """
        size = preprocessing.shape[0]
        angle = np.radians(rng.uniform(-self.rotation_degrees, self.rotation_degrees, n))
        scale = np.reciprocal(rng.uniform(1.0 - self.zoom, 1.0 + self.zoom, n))
        down = rng.uniform(-self.shift, self.shift, n) * size
        right = rng.uniform(-self.shift, self.shift, n) * size
        mirrored = rng.random(n) < 0.5 if self.flip else np.zeros(n, np.bool_)
        attempts = _ATTEMPTS if self.crop_area < 1 else 0
        return Draws(angle, scale, down, right, mirrored, rng.random((n, attempts, 4)))

    def __call__(self, images: StoredImages, draws: Draws, preprocessing: ImagePreprocessing) -> Pixels:
        """Changed copies of images, `uint8 [n, size, size, channels]`.

        Args:
            images: as they are stored.
            draws: theirs.
            preprocessing: size, channels and filter.

        Raises:
            DataError: when one cannot be decoded.
        """
        turned = bool(self.shift or self.rotation_degrees or self.zoom)
        if self.crop_area < 1:
            boxes = [partial(crop_box, self.crop_area, attempts) for attempts in draws.crops.tolist()]
            # Mirrored while they are Pillow's, where nothing else comes in between, which is ten times as fast.
            mirrored = None if turned else draws.mirrored.tolist()
            pixels = preprocessing.cut(images, boxes, mirrored, _REDUCING_GAP)
        else:
            pixels = preprocessing.fit(images)
        if turned:
            is_mask = preprocessing.resize == "nearest"
            pixels = _resample(pixels, draws.angle, draws.scale, draws.down, draws.right, VOID if is_mask else None)
        if (turned or self.crop_area == 1) and draws.mirrored.any():
            pixels = np.where(draws.mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
        return pixels


def crop_box(least_area: float, attempts: Sequence[Sequence[float]], width: int, height: int) -> Box:
    """A random part of an image: the first attempt that fits, or else the largest centre part of an allowed shape.

    Args:
        least_area: of the part, as a share of the image's.
        attempts: area, shape, left and top of each, 0 to 1.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    for area, shape, left, top in attempts:
        pixels = width * height * (least_area + area * (1 - least_area))
        aspect = _LEAST_ASPECT * (_GREATEST_ASPECT / _LEAST_ASPECT) ** shape
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(left * (width - w + 1)), int(top * (height - h + 1))
            return x, y, x + w, y + h
    w = min(width, max(1, round(height * _GREATEST_ASPECT)))
    h = min(height, max(1, round(width / _LEAST_ASPECT)))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def _resample(
    pixels: Pixels,
    angle: NDArray[np.float64],
    scale: NDArray[np.float64],
    down: NDArray[np.float64],
    right: NDArray[np.float64],
    void: int | None = None,
) -> Pixels:
    """Reads each image `[height, width, channels]` at rotated, scaled and shifted places, all `[n]`, bilinearly.

    Of masks, for which `void` is given, it reads the nearest class, and that beyond them.
    """
    n, height, width, _ = pixels.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = np.mgrid[:height, :width] - np.array([middle_y, middle_x])[:, None, None]
    cos, sin = (scale * np.cos(angle))[:, None, None], (scale * np.sin(angle))[:, None, None]
    # A border of one black pixel, which everything further out reads.
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=void or 0).astype(np.float32)
    from_y = np.clip(cos * y - sin * x + middle_y + down[:, None, None] + 1, 0, height + 0.999)  # [n, height, width]
    from_x = np.clip(sin * y + cos * x + middle_x + right[:, None, None] + 1, 0, width + 0.999)
    if void is not None:
        from_y, from_x = np.rint(from_y), np.rint(from_x)
    top, left = np.minimum(from_y.astype(int), height), np.minimum(from_x.astype(int), width)
    part_y, part_x = (from_y - top)[..., None], (from_x - left)[..., None]
    image = np.arange(n)[:, None, None]
    upper = (1 - part_x) * padded[image, top, left] + part_x * padded[image, top, left + 1]
    lower = (1 - part_x) * padded[image, top + 1, left] + part_x * padded[image, top + 1, left + 1]
    resampled: Pixels = np.rint((1 - part_y) * upper + part_y * lower).astype(np.uint8)
    return resampled
