"""Image files: which types are read, how a file is checked before a search, how it is decoded.

Files come from anywhere, so only the decoders of `IMAGE_TYPES` are ever run, and whatever they raise is one line that
names the file.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nas_edge.data.dataset import Indices, Pixels
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


class FolderImages:
    """Image files, decoded when asked for, so that memory is bounded by a batch.

    Args:
        files: one per image.
        size: side of the square they are brought to.
    """

    def __init__(self, files: Sequence[Path], size: int) -> None:
        self.files = tuple(files)
        self._size = size

    @property
    def shape(self) -> tuple[int, ...]:
        """`[n, size, size, 3]`."""
        return (len(self.files), self._size, self._size, 3)

    def __getitem__(self, indices: Indices, /) -> Pixels:
        pixels = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for row, index in enumerate(indices):
            file = self.files[int(index)]
            try:
                with open_regular(file) as stream:
                    pixels[row] = read_image(stream, file, self._size)
            except OSError as error:
                raise DataError(f"{printable(str(file))} cannot be read: {error.strerror or error}") from error
        return pixels


def problem_with_file(path: Path, size: int) -> str:
    """What is wrong with an image file, naming it; empty if nothing is. See `check_image`."""
    try:
        with open_regular(path) as file:
            check_image(file, path, size)
    except OSError as error:
        return f"{printable(str(path))} cannot be read: {error.strerror or error}"
    except DataError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------- decoding


def check_image(source: BinaryIO, name: object, size: int) -> None:
    """Finds unreadable images without decoding them all: the header must parse, and the file must reach its end.

    One that seems cut off is decoded to see: cameras append data to files that are whole. Arguments and errors are
    those of `read_image`.
    """
    with _decoding(name), Image.open(source, formats=tuple(IMAGE_TYPES)) as image:
        # MPO, a JPEG file with several images, has a type of its own.
        kind = IMAGE_TYPES.get(image.format or "", IMAGE_TYPES["JPEG"])
        trusted = not _is_deep(image) and kind.is_whole(source, image)
    if not trusted:
        source.seek(0)
        read_image(source, name, size)


def read_image(source: BinaryIO, name: object, size: int) -> Pixels:
    """Decodes one image to `uint8 [size, size, 3]`, upright as its EXIF orientation says; of several frames the first.

    Args:
        source: the file.
        name: what it is called in errors.
        size: side of the square it is brought to.

    Raises:
        DataError: when it cannot be decoded.
    """
    with _decoding(name), Image.open(source, formats=tuple(IMAGE_TYPES)) as file:
        if _is_deep(file):
            raise DataError(
                f"{printable(str(name))} has more than 8 bits per channel ({file.mode}); convert it to 8 bits"
            )
        upright = ImageOps.exif_transpose(file)
        if upright.has_transparency_data:  # a palette's transparency must be resolved before it can be dropped
            upright = upright.convert("RGBA")
        return np.asarray(fit_square(upright.convert("RGB"), size))


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


@contextmanager
def _decoding(name: object) -> Iterator[None]:
    """Gives every error of a decoder the form of this package."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and large images; they would break the progress line
            yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{printable(str(name))} is not a {_SUPPORTED_OR} image") from error
    except Exception as error:  # for damaged files, decoders raise whatever they stumble over
        reason = str(error) if isinstance(error, (OSError, ValueError, Image.DecompressionBombError)) else ""
        raise DataError(f"{printable(str(name))} cannot be decoded ({printable(reason) or 'damaged'})") from error


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """The centre square of an image, resized to `size` pixels with a bilinear filter (averaging when it shrinks)."""
    if image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Not resize(box=...), whose filter reaches outside the box.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BILINEAR)
