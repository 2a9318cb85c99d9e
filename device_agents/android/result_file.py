"""The file that newer builds of `benchmark_model` write for programs to read, with --result_file_path.

A protocol buffer of type tflite.tools.benchmark.BenchmarkResult (tensorflow/lite/tools/benchmark/proto of TensorFlow
2.19 and later, and of LiteRT). LiteRT's own tool prints some of it to Android's log only, so the file is where these
numbers can be had. Few fields of two types: they are read here, as https://protobuf.dev/programming-guides/encoding has
it, rather than with a dependency on protobuf.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

# Field numbers in benchmark_result.proto: BenchmarkResult, LatencyMetrics (ms), MemoryMetrics (kB), MiscMetrics.
_LATENCY, _MEMORY, _MISC = 2, 3, 4
_NAMES = {
    _LATENCY: {
        1: "avg_ms", 2: "min_ms", 3: "max_ms", 4: "stddev_ms", 5: "median_ms", 6: "p5_ms", 7: "p95_ms", 8: "init_ms",
        9: "first_inference_ms", 10: "average_warm_up_ms",
    },
    _MEMORY: {1: "init_footprint_kb", 2: "overall_footprint_kb"},
    _MISC: {2: "num_runs", 3: "num_warmup_runs"},
}  # fmt: skip
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST = 1e15


def read_result_file(data: bytes) -> dict[str, float]:
    """Returns the numbers in a result file by their names in benchmark_result.proto; {} if it is none.

    Unknown fields are skipped, and so are numbers that are negative, not finite or absurd.
    """
    numbers: dict[str, float] = {}
    try:
        for group, value in _fields(data):
            if group in _NAMES and isinstance(value, bytes):
                found = ((_NAMES[group].get(number), field) for number, field in _fields(value))
                numbers |= {
                    name: float(field)
                    for name, field in found
                    if name and not isinstance(field, bytes) and math.isfinite(field) and 0 <= field < _LARGEST
                }
    except ValueError:
        return {}
    return numbers


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yields number and value of each field: a whole number, a float32 or bytes.

    Raises:
        ValueError: If the data are no protocol buffer.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        length = {_FIXED32: 4, _FIXED64: 8}.get(kind)
        if kind == _BYTES:
            length, position = _varint(data, position)
        if length is None or position + length > len(data):
            raise ValueError(f"no field ends at byte {position}")
        content = data[position : position + length]
        position += length
        yield number, struct.unpack("<f", content)[0] if kind == _FIXED32 else content


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns a number of up to ten bytes, seven bits each, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"no number ends at byte {position}")
