"""From an image file to the network's input, as in training. Requires NumPy and Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

EXAMPLE = "image"

# Tolerance for other machines: another version of Pillow may round a resized pixel the other way.
TOLERANCE, UNIT = 1.01, "of 255"


def read(file):
    """Reads an image file as an upright Pillow image."""
    with Image.open(file) as image:
        return ImageOps.exif_transpose(image)


def preprocess(image, rules):
    """A Pillow image as a network's input, float32 [1, size, size, channels]; `rules` is the manifest's."""
    size = rules["input_size"]
    image = image.convert("RGB" if len(rules["mean"]) == 3 else "L")
    side = max(1, round(min(image.size) * rules["crop_fraction"]))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    resampling = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[rules["resize"].split(",")[0]]
    if image.size != (size, size):
        image = image.resize((size, size), resampling)
    pixels = np.asarray(image, np.float32).reshape(1, size, size, len(rules["mean"]))
    return (pixels - np.float32(rules["mean"])) / np.float32(rules["std"])
