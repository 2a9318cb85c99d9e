"""Image files: which types are read, how a file is checked before a search, how a part of it becomes pixels.

Files come from anywhere, so only the decoders of `IMAGE_TYPES` are ever run, and whatever they raise is one line that
names the file.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nas_edge.data.dataset import EncodedImage, Pixels, StoredImage
from nas_edge.errors import DataError
from nas_edge.regular_file import open_regular
from nas_edge.terminal import printable


def _png_is_whole(file: BinaryIO, image: Any) -> bool:
    return _last_bytes(file, 8) == b"IEND\xaeB`\x82"


def _jpeg_is_whole(file: BinaryIO, image: Any) -> bool:
    return _last_bytes(file, 2) == b"\xff\xd9"


def _webp_is_whole(file: BinaryIO, image: Any) -> bool:
    file.seek(4)
    return int.from_bytes(file.read(4), "little") + 8 == file.seek(0, io.SEEK_END)


def _bmp_is_whole(file: BinaryIO, image: Any) -> bool:
    decoder, _, offset, arguments = image.tile[0]
    return bool(decoder == "raw" and offset + arguments[1] * image.height <= file.seek(0, io.SEEK_END))


def _gif_is_whole(file: BinaryIO, image: Any) -> bool:
    return _last_bytes(file, 2) == b"\0;"


def _tiff_is_whole(file: BinaryIO, image: Any) -> bool:
    length = file.seek(0, io.SEEK_END)
    for offsets, counts in _TIFF_PLACES:
        if offsets in image.tag_v2 and counts in image.tag_v2:
            parts = zip(image.tag_v2[offsets], image.tag_v2[counts], strict=True)
            return all(offset + count <= length for offset, count in parts)
    return False


# Tags with offsets and lengths of strips, and of tiles.
_TIFF_PLACES = ((273, 279), (324, 325))


def _last_bytes(file: BinaryIO, count: int) -> bytes:
    file.seek(max(0, file.seek(0, io.SEEK_END) - count))
    return file.read()


@dataclass(frozen=True)
class ImageType:
    """A type of image file.

    Attributes:
        name: what people call it.
        suffixes: of its files, in lower case.
        is_whole: tells from the file and its parsed header that it was not cut off, without decoding; a wrong no costs
            time only.
    """

    name: str
    suffixes: tuple[str, ...]
    is_whole: Callable[[BinaryIO, Any], bool]


# By Pillow's name of the decoder.
IMAGE_TYPES: Mapping[str, ImageType] = {
    "PNG": ImageType("PNG", (".png",), _png_is_whole),
    "JPEG": ImageType("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), _jpeg_is_whole),
    "WEBP": ImageType("WebP", (".webp",), _webp_is_whole),
    "BMP": ImageType("BMP", (".bmp",), _bmp_is_whole),
    "GIF": ImageType("GIF", (".gif",), _gif_is_whole),
    "TIFF": ImageType("TIFF", (".tif", ".tiff"), _tiff_is_whole),
}
IMAGE_SUFFIXES = frozenset(suffix for kind in IMAGE_TYPES.values() for suffix in kind.suffixes)
SUPPORTED = ", ".join(kind.name for kind in IMAGE_TYPES.values())
_SUPPORTED_OR = " or ".join(SUPPORTED.rsplit(", ", 1))


# ---------------------------------------------------------------- files


def read_whole(path: Path) -> EncodedImage:
    """Reads an image file.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        with open_regular(path) as stream:
            return EncodedImage(stream.read(), path)
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror or error}") from error


def problem_with_file(path: Path, decode: bool = False) -> str:
    """What is wrong with an image file, naming it; empty if nothing is. See `check_image`."""
    try:
        with open_regular(path) as file:
            check_image(file, path, decode)
    except OSError as error:
        return f"{printable(str(path))} cannot be read: {error.strerror or error}"
    except DataError as error:
        return str(error)
    return ""


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, turned upright as its EXIF orientation says, in pixels.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        with open_regular(path) as file, _decoding(path), Image.open(file, formats=tuple(IMAGE_TYPES)) as image:
            width, height = image.size
            return (height, width) if _is_on_its_side(image) else (width, height)
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror or error}") from error


# ---------------------------------------------------------------- decoding


# Sides of a cut-out in pixels from an image's width and height: left, top, right, bottom.
Box: TypeAlias = tuple[int, int, int, int]
BoxOf: TypeAlias = Callable[[int, int], Box]


def check_image(source: BinaryIO, name: object, decode: bool = False) -> None:
    """Finds unreadable images without decoding them all: the header must parse, and the file must reach its end.

    One that seems cut off is decoded to see: cameras append data to files that are whole.

    Args:
        source: the file.
        name: what it is called in errors.
        decode: decodes it in any case: it may begin and end well and be damaged in between.

    Raises:
        DataError: when it cannot be decoded.
    """
    with _decoding(name), Image.open(source, formats=tuple(IMAGE_TYPES)) as image:
        # MPO, a JPEG file with several images, has a type of its own.
        kind = IMAGE_TYPES.get(image.format or "", IMAGE_TYPES["JPEG"])
        trusted = not decode and not _is_deep(image) and kind.is_whole(source, image)
    if not trusted:
        source.seek(0)
        with _decoding(name), Image.open(source, formats=tuple(IMAGE_TYPES)) as image:
            _refuse_deep(image, name)
            _upright(image, "RGB")


def cut_out(
    stored: StoredImage,
    box_of: BoxOf,
    size: int,
    channels: int,
    resampling: Image.Resampling,
    reducing_gap: float | None = None,
) -> Image.Image:
    """Cuts a part out of one image and resizes it to a square.

    Files are turned upright as their EXIF orientation says; of several frames the first counts. Grey images get three
    equal channels; colour becomes grey by ITU-R 601 luma.

    Args:
        stored: the image.
        box_of: the part, of the upright image.
        size: side of the result, in pixels.
        channels: of the result, 1 or 3.
        resampling: the filter, which averages when it shrinks.
        reducing_gap: lets a JPEG be decoded at a half, a quarter or an eighth of its size, as long as the part keeps
            this many times the pixels per side that are asked for; None decodes it whole.

    Raises:
        DataError: when it cannot be decoded.
    """
    mode = "L" if channels == 1 else "RGB"
    if isinstance(stored, np.ndarray):
        picture = _of_array(stored, mode)
        return _resized(picture, box_of(*picture.size), size, resampling)
    with _decoding(stored.name), Image.open(io.BytesIO(stored.content), formats=tuple(IMAGE_TYPES)) as file:
        _refuse_deep(file, stored.name)
        width, height = file.size[::-1] if _is_on_its_side(file) else file.size
        box = box_of(width, height)
        if reducing_gap is not None and file.format == "JPEG":
            shrink = min(box[2] - box[0], box[3] - box[1]) / (size * reducing_gap)
            if shrink >= 2:
                file.draft(None, (int(file.width / shrink), int(file.height / shrink)))
        picture = _upright(file, mode)
        if picture.size != (width, height):
            across, down = picture.width / width, picture.height / height
            box = (round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down))
        return _resized(picture, box, size, resampling)


def decode(stored: StoredImage, channels: int) -> Image.Image:
    """A whole image, upright, of 1 or 3 channels as `cut_out` makes them.

    Raises:
        DataError: when it cannot be decoded.
    """
    mode = "L" if channels == 1 else "RGB"
    if isinstance(stored, np.ndarray):
        return _of_array(stored, mode)
    with _decoding(stored.name), Image.open(io.BytesIO(stored.content), formats=tuple(IMAGE_TYPES)) as file:
        _refuse_deep(file, stored.name)
        return _upright(file, mode)


def _of_array(pixels: Pixels, mode: str) -> Image.Image:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return picture if picture.mode == mode else picture.convert(mode)


# EXIF's tag, and the first of its values that exchange width and height.
_ORIENTATION, _FIRST_ON_ITS_SIDE = 0x0112, 5


def _resized(picture: Image.Image, box: Box, size: int, resampling: Image.Resampling) -> Image.Image:
    # Not resize(box=...), whose filter reaches outside the box.
    if box != (0, 0, *picture.size):
        picture = picture.crop(box)
    if picture.size != (size, size):
        picture = picture.resize((size, size), resampling)
    return picture


def _upright(file: Image.Image, mode: str) -> Image.Image:
    """Decodes an image, turns it upright and brings it to grey or colour."""
    if file.getexif().get(_ORIENTATION, 1) != 1:
        ImageOps.exif_transpose(file, in_place=True)
    picture = file
    if picture.mode != mode:
        if picture.has_transparency_data:  # a palette's transparency must be resolved before it can be dropped
            picture = picture.convert("RGBA")
        picture = picture.convert("RGB")
        if mode != "RGB":
            picture = picture.convert(mode)
    picture.load()
    return picture


def _is_on_its_side(image: Image.Image) -> bool:
    return bool(image.getexif().get(_ORIENTATION, 1) >= _FIRST_ON_ITS_SIDE)


def _refuse_deep(image: Image.Image, name: object) -> None:
    if _is_deep(image):
        raise DataError(f"{printable(str(name))} has more than 8 bits per channel ({image.mode}); convert it to 8 bits")


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


class _Silenced:
    """Ignores Pillow's warnings, of odd metadata and large images, which would break the progress line.

    Python's `catch_warnings` must not be used in several threads at once: the last to leave restores what another has
    changed.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._filter = warnings.filters[0]

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._filter in warnings.filters:
                warnings.filters.remove(self._filter)  # type: ignore[attr-defined] # It is a list.


SILENCED = _Silenced()


@contextmanager
def _decoding(name: object) -> Iterator[None]:
    """Gives every error of a decoder the form of this package."""
    try:
        with SILENCED:
            yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{printable(str(name))} is not a {_SUPPORTED_OR} image") from error
    except Exception as error:  # for damaged files, decoders raise whatever they stumble over
        reason = str(error) if isinstance(error, (OSError, ValueError, Image.DecompressionBombError)) else ""
        raise DataError(f"{printable(str(name))} cannot be decoded ({printable(reason) or 'damaged'})") from error
