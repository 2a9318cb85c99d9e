"""From stored pixels to a network's input, in batches whose order can be resumed exactly.

    pixels uint8 --centre square, resize--> --channels--> --augment (training only)--> --(pixel - mean) / std--> float32

`Preprocessing.manifest` describes all an app must do to feed the delivered model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_edge.data.dataset import Dataset, Indices, Pixels
from nas_edge.data.image_files import fit_square
from nas_edge.errors import ConfigError, DataError

Inputs: TypeAlias = NDArray[np.float32]  # [batch, height, width, channels]
Labels: TypeAlias = NDArray[np.int32]  # [batch]

# Mean and standard deviation converge long before this many images, so a large folder need not be decoded twice.
STATISTICS_IMAGES = 5_000


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a network's input.

    Attributes:
        input_size: side of the square input, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        mean: per channel, in pixel values 0..255.
        std: per channel, in pixel values.
    """

    input_size: int
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.input_size < 1 or self.channels not in (1, 3):
            raise ConfigError(
                f"expected a positive input size and 1 or 3 channels, received {self.input_size} and {self.channels}"
            )
        if not len(self.mean) == len(self.std) == self.channels or not all(s > 0 for s in self.std):
            raise ConfigError(
                f"expected {self.channels} mean(s) and positive std(s); received mean {self.mean} and std {self.std}"
            )

    def fit(self, pixels: Pixels) -> Pixels:
        """Converts pixels to the input's size and channels. `[n, h, w, c] -> uint8 [n, size, size, channels]`.

        Grey images get three equal channels; colour is converted to grey with ITU-R 601 luma, as in Pillow.
        """
        size, channels = self.input_size, self.channels
        if pixels.shape[1:] == (size, size, channels):
            return pixels
        mode = "L" if channels == 1 else "RGB"
        fitted = np.empty((len(pixels), size, size, channels), np.uint8)
        for row, image in enumerate(pixels):
            pil_image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert(mode)
            fitted[row] = np.asarray(fit_square(pil_image, size)).reshape(size, size, channels)
        return fitted

    def normalize(self, pixels: Pixels) -> Inputs:
        """`(pixel - mean) / std`. `uint8 [n, size, size, channels] -> float32`, the same shape."""
        mean: Inputs = np.array(self.mean, np.float32)
        std: Inputs = np.array(self.std, np.float32)
        return (pixels.astype(np.float32) - mean) / std

    def __call__(self, pixels: Pixels) -> Inputs:
        """`normalize(fit(pixels))`, the input of a trained network."""
        return self.normalize(self.fit(pixels))

    def manifest(self) -> dict[str, Any]:
        """The preprocessing an app must do before inference, as JSON values."""
        return {
            "input_size": self.input_size,
            "channels": self.channels,
            "colour": "grey (ITU-R 601 luma)" if self.channels == 1 else "red, green, blue",
            "crop": "centre square",
            "resize": "bilinear, antialiased",
            "pixel_range": [0, 255],
            "formula": "(pixel - mean) / std",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `manifest`."""
        return cls(manifest["input_size"], manifest["channels"], tuple(manifest["mean"]), tuple(manifest["std"]))


def to_unit_range(input_size: int, channels: Literal[1, 3]) -> Preprocessing:
    """Preprocessing that maps pixels to [-1, 1], independent of the data."""
    return Preprocessing(input_size, channels, (127.5,) * channels, (127.5,) * channels)


def standardize(dataset: Dataset, train: Indices, input_size: int, channels: Literal[1, 3]) -> Preprocessing:
    """Preprocessing to mean 0 and standard deviation 1 per channel, computed on training images only.

    Args:
        dataset: the images.
        train: indices of the training images, of which at most `STATISTICS_IMAGES`, evenly spaced, are read.
        input_size: side of the network's input.
        channels: of the network's input.

    Raises:
        DataError: when a channel is constant.
    """
    plain = to_unit_range(input_size, channels)
    chosen = train[:: -(-len(train) // STATISTICS_IMAGES)]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(chosen), 256):
        pixels = plain.fit(dataset.images[chosen[start : start + 256]]).astype(np.float64)
        total += pixels.sum(axis=(0, 1, 2))
        squares += np.square(pixels).sum(axis=(0, 1, 2))
        count += pixels[..., 0].size
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    if not (std > 1e-3).all():
        raise DataError("the training images have a constant colour channel; check the data")
    return Preprocessing(input_size, channels, tuple(mean.tolist()), tuple(std.tolist()))


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images that preserve their class.

    Each image is rotated, zoomed and shifted in one bilinear resampling, filled with black, and then mirrored or not.

    Attributes:
        shift: by up to this fraction of the size in each direction.
        rotation_degrees: by up to this angle in each direction.
        zoom: in or out by up to this fraction.
        flip: mirror half of the images left to right. Off by default, as a mirrored digit, letter or sign may belong to
            another class; turn it on for photographs of objects.
    """

    shift: float = 0.1
    rotation_degrees: float = 0.0
    zoom: float = 0.0
    flip: bool = False

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

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Augmented copies of `pixels`, `[n, height, width, channels]`."""
        n, height, width, _ = pixels.shape
        angle = np.radians(rng.uniform(-self.rotation_degrees, self.rotation_degrees, n))
        scale = np.reciprocal(rng.uniform(1.0 - self.zoom, 1.0 + self.zoom, n))
        down = rng.uniform(-self.shift, self.shift, n) * height
        right = rng.uniform(-self.shift, self.shift, n) * width
        changed = _resample(pixels, angle, scale, down, right)
        if self.flip:
            mirrored = rng.random(n) < 0.5
            changed[mirrored] = changed[mirrored, :, ::-1]
        return changed


def _resample(
    pixels: Pixels,
    angle: NDArray[np.float64],
    scale: NDArray[np.float64],
    down: NDArray[np.float64],
    right: NDArray[np.float64],
) -> Pixels:
    """Reads each image `[height, width, channels]` at rotated, scaled and shifted places, all `[n]`, bilinearly."""
    n, height, width, _ = pixels.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = np.mgrid[:height, :width] - np.array([middle_y, middle_x])[:, None, None]
    cos, sin = (scale * np.cos(angle))[:, None, None], (scale * np.sin(angle))[:, None, None]
    # A border of one black pixel, which everything further out reads.
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float32)
    from_y = np.clip(cos * y - sin * x + middle_y + down[:, None, None] + 1, 0, height + 0.999)  # [n, height, width]
    from_x = np.clip(sin * y + cos * x + middle_x + right[:, None, None] + 1, 0, width + 0.999)
    top, left = from_y.astype(int), from_x.astype(int)
    part_y, part_x = (from_y - top)[..., None], (from_x - left)[..., None]
    image = np.arange(n)[:, None, None]
    upper = (1 - part_x) * padded[image, top, left] + part_x * padded[image, top, left + 1]
    lower = (1 - part_x) * padded[image, top + 1, left] + part_x * padded[image, top + 1, left + 1]
    resampled: Pixels = np.rint((1 - part_y) * upper + part_y * lower).astype(np.uint8)
    return resampled


class Batches:
    """An endless stream of shuffled batches, each image once per epoch.

    A batch is a pure function of the stream's seed and its number, so the whole state is two integers and a restored
    stream is bit-identical to an uninterrupted one. Batches are always full: one may span two epochs.

    Args:
        dataset: the images.
        indices: the images to use.
        batch_size: images per batch.
        rng: draws the seed, and is not used afterwards.
        preprocessing: turns pixels into inputs.
        augmentation: of the images, or None.

    Raises:
        ConfigError: when `batch_size` is not positive.
        DataError: when there are no images.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Indices,
        batch_size: int,
        rng: np.random.Generator,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, received {batch_size}")
        if len(indices) == 0:
            raise DataError("no images to make batches from")
        self._dataset = dataset
        self._indices = indices
        self._batch_size = batch_size
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = int(rng.integers(2**63))
        self._number = 0
        self._shuffled: tuple[int, Indices] | None = None  # epoch and its order, recomputed when missing

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Inputs, Labels]:
        """Inputs `[batch, size, size, channels]` and labels `[batch]`."""
        first = self._number * self._batch_size
        chosen = self._indices_at(first, first + self._batch_size)
        pixels = self._preprocessing.fit(self._dataset.images[chosen])
        if self._augmentation is not None:
            pixels = self._augmentation(pixels, np.random.default_rng([self._seed, 1, self._number]))
        self._number += 1
        return self._preprocessing.normalize(pixels), self._dataset.labels[chosen]

    @property
    def epoch(self) -> float:
        """Number of passes over the images so far."""
        return self._number * self._batch_size / len(self._indices)

    def state(self) -> dict[str, int]:
        """The position in the stream, as JSON values."""
        return {"seed": self._seed, "number": self._number}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continues from a position that `state` returned."""
        self._seed, self._number = int(state["seed"]), int(state["number"])
        self._shuffled = None

    def _indices_at(self, first: int, last: int) -> Indices:
        """Images at positions `first..last` of the concatenated epochs."""
        n = len(self._indices)
        parts = []
        for epoch in range(first // n, (last - 1) // n + 1):
            start, stop = max(first - epoch * n, 0), min(last - epoch * n, n)
            parts.append(self._order(epoch)[start:stop])
        return np.concatenate(parts)

    def _order(self, epoch: int) -> Indices:
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = (epoch, np.random.default_rng([self._seed, 0, epoch]).permutation(self._indices))
        return self._shuffled[1]


def in_order(
    dataset: Dataset, indices: Indices, batch_size: int, preprocessing: Preprocessing
) -> Iterator[tuple[Inputs, Labels]]:
    """Every image once, in order, for evaluation; the last batch may be smaller."""
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        yield preprocessing(dataset.images[chosen]), dataset.labels[chosen]
