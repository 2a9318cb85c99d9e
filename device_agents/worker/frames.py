"""Framed messages between the host and a worker, over any pair of byte streams.

    magic "NASF" | header length u32 | blob count u32 | blob lengths u64 ... | header | blobs

All numbers are little endian. The header is a JSON object; blobs are raw bytes (a model,
tensors, samples). Both sides treat the other as hostile: every length is checked
against `Limits` before anything is read, and memory grows only with bytes that arrived.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Callable, NoReturn, Sequence

from .errors import ProtocolError

MAGIC = b"NASF"
# Of the frames and of what is in them; both sides must have the same.
PROTOCOL_VERSION = 6
_PREFIX = struct.Struct("<4sII")
_CHUNK_BYTES = 1 << 20

Read = Callable[[int], bytes]


@dataclass(frozen=True)
class Limits:
    """Largest frame that is accepted: header bytes, number of blobs, their sum in bytes."""

    header_bytes: int = 1 << 20
    blobs: int = 64
    blob_bytes: int = 1 << 30


@dataclass(frozen=True)
class Frame:
    """One message."""

    header: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def frame_parts(frame: Frame) -> list[bytes]:
    """Returns the bytes of a frame in parts to be written one after the other, blobs uncopied."""
    header = json.dumps(frame.header, allow_nan=False, separators=(",", ":")).encode()
    lengths = struct.pack(f"<{len(frame.blobs)}Q", *map(len, frame.blobs))
    prefix = _PREFIX.pack(MAGIC, len(header), len(frame.blobs))
    return [prefix + lengths + header, *frame.blobs]


def encode_frame(frame: Frame) -> bytes:
    """Returns the bytes of a frame."""
    return b"".join(frame_parts(frame))


def read_frame(read: Read, limits: Limits = Limits()) -> Frame | None:
    """Reads one frame.

    Args:
        read: Returns up to so many bytes, b"" at the end of the stream.
        limits: What is accepted.

    Returns:
        The frame, or None if the stream ended before its first byte.

    Raises:
        ProtocolError: If the stream holds anything but a whole frame within the limits.
    """
    first = read(_PREFIX.size)
    if not first:
        return None
    prefix = first + _read_exactly(read, _PREFIX.size - len(first), "prefix")
    magic, header_bytes, blob_count = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise ProtocolError("Not a frame", expected=f"to start with {MAGIC!r}", received=f"{magic!r}")
    _check_limit("header bytes", header_bytes, limits.header_bytes)
    _check_limit("blobs", blob_count, limits.blobs)
    lengths = struct.unpack(f"<{blob_count}Q", _read_exactly(read, 8 * blob_count, "lengths"))
    _check_limit("blob bytes", sum(lengths), limits.blob_bytes)
    header = _parse_header(_read_exactly(read, header_bytes, "header"))
    return Frame(header, tuple(_read_exactly(read, length, "blob") for length in lengths))


def _check_limit(what: str, received: int, limit: int) -> None:
    if received > limit:
        raise ProtocolError("Frame too large", expected=f"at most {limit} {what}", received=f"{received}")


def _read_exactly(read: Read, count: int, what: str) -> bytes:
    chunks: list[bytes] = []
    missing = count
    while missing:
        chunk = read(min(_CHUNK_BYTES, missing))
        if not chunk:
            raise ProtocolError(
                f"Stream ended inside a frame ({what})", expected=f"{count} bytes", received=f"{count - missing}"
            )
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def _parse_header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    # Deep nesting exhausts the recursion limit; a huge integer exceeds int's digit limit.
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Frame header is not JSON: {str(error)[:200]}") from None
    if not isinstance(header, dict):
        raise ProtocolError("Frame header must be an object", received=f"{type(header).__name__}")
    return header


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def packed(blob: bytes) -> bytes:
    """Returns a blob packed by zlib, quickly rather than well."""
    return zlib.compress(blob, 1)


def unpacked(blob: bytes, limits: Limits = Limits()) -> bytes:
    """Returns what was packed.

    Raises:
        ProtocolError: If it is none, or larger than a frame may be.
    """
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(blob, limits.blob_bytes)
    except zlib.error as error:
        raise ProtocolError(f"A packed blob is damaged: {error}") from None
    if not unpacker.eof:
        raise ProtocolError("A packed blob is too large or not whole", expected=f"at most {limits.blob_bytes} bytes")
    return data


def pop_blobs(frame: Frame, at_least: int) -> Sequence[bytes]:
    """Returns the blobs, or raises ProtocolError if there are fewer than `at_least`."""
    if len(frame.blobs) < at_least:
        raise ProtocolError(expected=f"at least {at_least} blobs", received=f"{len(frame.blobs)}")
    return frame.blobs
