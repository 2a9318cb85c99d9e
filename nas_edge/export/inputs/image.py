"""Images: a centre square, resized."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from nas_edge.data.dataset import Pixels, StoredImage
from nas_edge.data.image_files import decode
from nas_edge.data.preprocessing import ImagePreprocessing
from nas_edge.errors import DataError
from nas_edge.export.inputs.base import InputKind, Rules

# Images are kept at most this many times as large as the input, so that a bundle stays small.
_MOST_TIMES = 4

# Numbers of `metadata_schema.fbs`: image properties, and colour spaces by channels.
_IMAGE_PROPERTIES, _COLOURS = 2, {3: 1, 1: 2}


def _golden(image: StoredImage, preprocessing: ImagePreprocessing) -> tuple[Pixels, bytes]:
    pixels = _pixels(image, preprocessing)
    return pixels, _png(pixels)


def _pixels(image: StoredImage, preprocessing: ImagePreprocessing) -> Pixels:
    """An image as uint8 `[height, width, channels]`, upright, and no larger than it needs to be."""
    if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3):
        raise DataError(
            "a golden image has the wrong shape or type",
            expected="uint8 [height, width, channels]",
            received=f"{image.dtype} {image.shape}",
        )
    picture = decode(image, preprocessing.channels)
    times = min(picture.size) / (_MOST_TIMES * preprocessing.input_size)
    if times > 1:
        picture = picture.resize((round(picture.width / times), round(picture.height / times)))
    return np.asarray(picture).reshape(picture.height, picture.width, preprocessing.channels)


def _png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def _steps(rules: Rules) -> list[str]:
    size, channels = rules["input_size"], rules["channels"]
    colours = "1 channel" if channels == 1 else f"{channels} channels"
    return [
        f"Crop to the {rules['crop']}, resize to {size} x {size} ({rules['resize']}), {colours}: "
        f"{rules['colour']}. Pixels are 0 to 255."
    ]


def _says(rules: Rules) -> str:
    return f"{rules['crop']}, resized to {rules['input_size']} pixels ({rules['resize']}), {rules['colour']}"


def _properties(rules: Rules) -> tuple[int, dict[int, int]]:
    return _IMAGE_PROPERTIES, {0: _COLOURS[rules["channels"]]}


def _kotlin(rules: Rules) -> str:
    bicubic = "true" if rules["resize"].startswith("bicubic") else "false"
    size: Any = rules["input_size"]
    return f"Preprocessing({size}, MEAN, STD, {float(rules['crop_fraction'])!r}, {bicubic})"


IMAGE = InputKind(
    example="image",
    suffix=".png",
    golden=_golden,
    packages=("pillow",),
    steps=_steps,
    value="pixel",
    says=_says,
    properties=_properties,
    kotlin=_kotlin,
    other_source="other cameras, light, or content",
)
