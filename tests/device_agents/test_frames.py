from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ProtocolError
from device_agents.worker.frames import MAGIC, Frame, Limits, encode_frame, packed, read_frame, unpacked

headers = st.dictionaries(
    st.text(max_size=8), st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=8), max_size=4
)
frames = st.builds(Frame, headers, st.lists(st.binary(max_size=50), max_size=4).map(tuple))


def parse(data: bytes) -> Frame | None:
    return read_frame(io.BytesIO(data).read)


@given(st.lists(frames, max_size=3))
def test_frames_survive_the_stream(sent: list[Frame]) -> None:
    stream = io.BytesIO(b"".join(map(encode_frame, sent)))
    received = []
    while (frame := read_frame(stream.read)) is not None:
        received.append(frame)
    assert received == sent


@given(frames)
def test_frames_survive_a_stream_that_gives_one_byte_at_a_time(sent: Frame) -> None:
    stream = io.BytesIO(encode_frame(sent))
    assert read_frame(lambda _: stream.read(1)) == sent


def test_a_frame_truncated_at_any_byte_is_refused() -> None:
    data = encode_frame(Frame({"do": "measure"}, (b"model", b"")))
    assert parse(b"") is None
    for end in range(1, len(data)):
        with pytest.raises(ProtocolError):
            parse(data[:end])


@given(st.binary(max_size=200))
def test_rubbish_raises_nothing_but_protocol_errors(data: bytes) -> None:
    for candidate in (data, MAGIC + data):
        with contextlib.suppress(ProtocolError):
            parse(candidate)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_rubbish_headers_raise_nothing_but_protocol_errors(header: bytes, blobs: int) -> None:
    data = struct.pack("<4sII", MAGIC, len(header), blobs) + b"\0" * 8 * blobs + header
    try:
        frame = parse(data)
    except ProtocolError:
        return
    assert frame is not None


@given(frames, st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_raises_nothing_but_protocol_errors(frame: Frame, position: int, bit: int) -> None:
    data = bytearray(encode_frame(frame))
    data[position % len(data)] ^= 1 << bit
    with contextlib.suppress(ProtocolError):
        parse(bytes(data))


@pytest.mark.parametrize(
    "prefix",
    [
        struct.pack("<4sII", MAGIC, 2**32 - 1, 0),
        struct.pack("<4sII", MAGIC, 2, 2**32 - 1),
        struct.pack("<4sIIQ", MAGIC, 2, 1, 2**64 - 1),
        struct.pack("<4sIIQQ", MAGIC, 2, 2, 2**29, 2**30),
    ],
)
def test_lengths_over_the_limits_are_refused_before_reading(prefix: bytes) -> None:
    with pytest.raises(ProtocolError, match="too large"):
        parse(prefix)


def test_memory_grows_only_with_bytes_that_arrived() -> None:
    data = struct.pack("<4sIIQ", MAGIC, 2, 1, 2**30) + b"{}" + b"only a little"
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="ended inside a frame"):
        parse(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * 2**20


@pytest.mark.parametrize(
    "header",
    [b"[1]", b"NaN", b'{"a":NaN}', b'{"a":Infinity}', b"[" * 100_000, b"\xff", b"9" * 10_000, b""],
)
def test_headers_that_are_no_json_object_are_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(struct.pack("<4sII", MAGIC, len(header), 0) + header)


def test_what_is_packed_comes_back_and_what_is_damaged_or_too_large_is_refused() -> None:
    data = b"weights" * 10_000
    assert len(packed(data)) < len(data) / 10
    assert unpacked(packed(data)) == data
    for bad in (b"", b"no zlib", packed(data)[:-1]):
        with pytest.raises(ProtocolError, match="packed blob"):
            unpacked(bad)
    with pytest.raises(ProtocolError, match="at most 100 bytes"):
        unpacked(packed(data), Limits(blob_bytes=100))
