"""From examples as they are stored to a network's input.

    stored example --fit--> values of the input's shape --(value - mean) / std--> float32

Of an image, `fit` cuts out a centre square and resizes it; in training it may be a random crop, see `augmentation.py`.
`Preprocessing.manifest` describes all an app must do to feed the delivered model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_edge.data.dataset import Dataset, Indices, Pixels, StoredImages
from nas_edge.data.image_files import SILENCED, Box, BoxOf, cut_out
from nas_edge.data.threads import in_threads
from nas_edge.errors import ConfigError, DataError

Inputs: TypeAlias = NDArray[np.float32]  # [batch, height, width, channels]
Filter: TypeAlias = Literal["bilinear", "bicubic", "nearest"]  # the last one of class numbers, see `masks.py`

# Mean and standard deviation converge long before this many images, so a large folder need not be decoded twice.
STATISTICS_IMAGES = 5_000

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

# With the bicubic filter, large JPEGs are decoded at a fraction of their size, with this many pixels per side for one
# of the input's; from 2 on, that can hardly be told from decoding them whole. Bilinear is exact, as it always was.
_REDUCING_GAP = 2.0


class Preprocessing(ABC):
    """How examples become a network's input.

    Attributes:
        kind: name of the way, by which `nas_edge.export.inputs` knows what an app needs for it.
        mean: per channel, in the values that `fit` makes.
        std: likewise.
    """

    kind: ClassVar[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Of one input, `(height, width, channels)`."""

    @abstractmethod
    def fit(self, examples: Any) -> NDArray[Any]:
        """Stored examples as values of the input's shape, before normalising, `[n, height, width, channels]`.

        Raises:
            DataError: when one cannot be decoded.
        """

    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """What an app must do before inference, as JSON values; `kind`, `mean` and `std` among them."""

    def normalize(self, values: NDArray[Any], out: Inputs | None = None) -> Inputs:
        """`(value - mean) / std`, float32 `[n, height, width, channels]`.

        Args:
            values: as `fit` gives them, or changed ones of the same shape.
            out: where to put the result; None for a new array.
        """
        inputs: Inputs = np.empty(values.shape, np.float32) if out is None else out
        # Whole rows at a time: along three channels NumPy is several times slower.
        width = values.shape[2] * values.shape[3]
        mean, std = (np.tile(np.array(of, np.float32), values.shape[2]) for of in (self.mean, self.std))
        rows = inputs.reshape(*values.shape[:2], width)
        np.subtract(values.reshape(*values.shape[:2], width), mean, out=rows)
        np.divide(rows, std, out=rows)
        return inputs

    def __call__(self, examples: Any) -> Inputs:
        """`normalize(fit(examples))`, the input of a trained network."""
        return self.normalize(self.fit(examples))


@dataclass(frozen=True)
class ImagePreprocessing(Preprocessing):
    """How images become a network's input.

    Attributes:
        input_size: side of the square input, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        mean: per channel, in pixel values 0..255.
        std: per channel, in pixel values.
        crop: side of the centre square that is seen, as a fraction of the image's shorter side.
        resize: the filter, which averages when it shrinks.
    """

    kind = "image"

    input_size: int
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    resize: Filter = "bilinear"

    def __post_init__(self) -> None:
        if self.input_size < 1 or self.channels not in (1, 3):
            raise ConfigError(
                f"expected a positive input size and 1 or 3 channels, received {self.input_size} and {self.channels}"
            )
        if not len(self.mean) == len(self.std) == self.channels or not all(s > 0 for s in self.std):
            raise ConfigError(
                f"expected {self.channels} mean(s) and positive std(s); received mean {self.mean} and std {self.std}"
            )
        if not 0 < self.crop <= 1 or self.resize not in _FILTERS:
            raise ConfigError(
                f"expected a crop in (0, 1] and one of {', '.join(_FILTERS)}; received {self.crop} and {self.resize}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one input: `(size, size, channels)`."""
        return (self.input_size, self.input_size, self.channels)

    def fit(self, examples: StoredImages) -> Pixels:
        """The centre squares of images at the input's size and channels, `uint8 [n, size, size, channels]`.

        Grey images get three equal channels; colour is converted to grey with ITU-R 601 luma, as in Pillow.

        Raises:
            DataError: when one cannot be decoded.
        """
        size, channels = self.input_size, self.channels
        if isinstance(examples, np.ndarray) and examples.shape[1:] == (size, size, channels) and self.crop == 1:
            return examples
        return self.cut(examples, [self.centre] * len(examples))

    def cut(
        self,
        images: StoredImages,
        boxes: Sequence[BoxOf],
        mirrored: Sequence[bool] | None = None,
        reducing_gap: float = _REDUCING_GAP,
    ) -> Pixels:
        """Parts of images at the input's size and channels, `uint8 [n, size, size, channels]`.

        Args:
            images: as they are stored.
            boxes: which part of each.
            mirrored: which of them to mirror left to right; None for none.
            reducing_gap: see `image_files.cut_out`; used with the bicubic filter only.

        Raises:
            DataError: when one cannot be decoded.
        """
        size, channels = self.input_size, self.channels
        gap = reducing_gap if self.resize == "bicubic" else None
        fitted = np.empty((len(images), size, size, channels), np.uint8)
        with SILENCED:  # once, rather than for each of them
            for row, (image, box_of) in enumerate(zip(images, boxes, strict=True)):
                picture = cut_out(image, box_of, size, channels, _FILTERS[self.resize], gap)
                if mirrored is not None and mirrored[row]:
                    picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                fitted[row] = np.asarray(picture).reshape(size, size, channels)
        return fitted

    def centre(self, width: int, height: int) -> Box:
        """The part of an image that evaluation sees."""
        side = max(1, round(min(width, height) * self.crop))
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side

    def manifest(self) -> dict[str, Any]:
        """The preprocessing an app must do before inference, as JSON values."""
        return {
            "kind": self.kind,
            "input_size": self.input_size,
            "channels": self.channels,
            "colour": "grey (ITU-R 601 luma)" if self.channels == 1 else "red, green, blue",
            "crop": "centre square" + ("" if self.crop == 1 else f" of {self.crop:.1%} of the shorter side"),
            "crop_fraction": self.crop,
            "resize": f"{self.resize}, antialiased",
            "pixel_range": [0, 255],
            "formula": "(pixel - mean) / std",
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> ImagePreprocessing:
        """The inverse of `manifest`, also of those of earlier versions, which say no `crop_fraction`."""
        return cls(
            manifest["input_size"],
            manifest["channels"],
            tuple(manifest["mean"]),
            tuple(manifest["std"]),
            manifest.get("crop_fraction", 1.0),
            manifest["resize"].partition(",")[0],
        )


def to_unit_range(
    input_size: int, channels: Literal[1, 3], crop: float = 1.0, resize: Filter = "bilinear"
) -> ImagePreprocessing:
    """Preprocessing that maps pixels to [-1, 1], independent of the data."""
    return ImagePreprocessing(input_size, channels, (127.5,) * channels, (127.5,) * channels, crop, resize)


def standardize(
    dataset: Dataset,
    train: Indices,
    input_size: int,
    channels: Literal[1, 3],
    crop: float = 1.0,
    resize: Filter = "bilinear",
    workers: int = 0,
) -> ImagePreprocessing:
    """Preprocessing to mean 0 and standard deviation 1 per channel, computed on training images only.

    Args:
        dataset: the images.
        train: indices of the training images, of which at most `STATISTICS_IMAGES`, evenly spaced, are read.
        input_size: side of the network's input.
        channels: of the network's input.
        crop: see `ImagePreprocessing`.
        resize: see `ImagePreprocessing`.
        workers: threads that decode; they do not change the result.

    Raises:
        DataError: when a channel is constant.
    """
    plain = to_unit_range(input_size, channels, crop, resize)
    mean, std = moments(dataset, train, plain, workers)
    if not (std > 1e-3).all():
        raise DataError("the training images have a constant colour channel; check the data")
    return ImagePreprocessing(input_size, channels, tuple(mean.tolist()), tuple(std.tolist()), crop, resize)


def moments(
    dataset: Dataset, train: Indices, plain: Preprocessing, workers: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per channel of what `plain.fit` makes of training examples, `[channels]` each.

    Args:
        dataset: the examples.
        train: indices of those to train with, of which at most `STATISTICS_IMAGES`, evenly spaced, are read.
        plain: makes the values.
        workers: threads that decode; they do not change the result.
    """
    height, width, channels = plain.shape
    chosen = train[:: -(-len(train) // STATISTICS_IMAGES)]
    total, squares = np.zeros(channels), np.zeros(channels)
    parts = [chosen[start : start + 256] for start in range(0, len(chosen), 256)]
    for sums in in_threads(partial(_sums, dataset, plain), parts, workers):
        total += sums[0]
        squares += sums[1]
    count = len(chosen) * height * width
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))


def _sums(dataset: Dataset, plain: Preprocessing, indices: Indices) -> NDArray[np.float64]:
    """Sums of the values and of their squares, `[2, channels]`; exact for pixels, which are whole numbers."""
    total, squares = np.zeros(plain.shape[-1]), np.zeros(plain.shape[-1])
    for start in range(0, len(indices), 32):
        values = plain.fit(dataset.stored(indices[start : start + 32])).astype(np.float64)
        total += values.sum(axis=(0, 1, 2))
        squares += np.square(values).sum(axis=(0, 1, 2))
    return np.stack([total, squares])
