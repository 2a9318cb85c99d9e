"""Input tensors for timing, and arrays as blobs of a frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ProtocolError

if TYPE_CHECKING:  # boards may have a NumPy without `numpy.typing`
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    Array = np.ndarray

_DTYPES = (
    *("bool", "float16", "float32", "float64", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
# Values of unquantized integers are often indices; 0 and 1 are valid in nearly any table.
_LARGEST_INDEX = 1


def wanted_shapes(
    details: Sequence[Mapping[str, Any]], overrides: Sequence[tuple[str, tuple[int, ...]]]
) -> dict[int, tuple[int, ...]]:
    """Returns the shape to give to each input that needs one, by tensor index.

    Args:
        details: `Interpreter.get_input_details()`.
        overrides: (input name, shape) pairs; other open dimensions become 1.

    Raises:
        ValueError: If an override names no input.
    """
    by_name = {str(detail["name"]): detail for detail in details}
    shapes: dict[int, tuple[int, ...]] = {}
    for detail in details:
        signature = [int(d) for d in detail.get("shape_signature", detail["shape"])]
        if any(d < 0 for d in signature):
            shapes[int(detail["index"])] = tuple(1 if d < 0 else d for d in signature)
    for name, shape in overrides:
        if name not in by_name:
            raise ValueError(f"No input is named {name}; the inputs are {', '.join(sorted(by_name))}")
        shapes[int(by_name[name]["index"])] = shape
    return shapes


def random_input(detail: Mapping[str, Any], rng: np.random.Generator) -> Array:
    """Returns a plausible value for an input, given its entry of `get_input_details()`."""
    shape = tuple(int(d) for d in detail["shape"])
    if detail["dtype"] in (np.bytes_, np.str_, bytes, str):
        return np.full(shape, b"text", dtype=object)
    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return np.asarray(rng.random(shape, dtype=np.float32)).astype(dtype)
    if dtype.kind == "c":
        return np.asarray(rng.random(shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    is_quantized = len(detail.get("quantization_parameters", {}).get("scales", ())) > 0
    if is_quantized and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return np.asarray(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))
    return np.asarray(rng.integers(0, _LARGEST_INDEX, shape, dtype, endpoint=True))


def encode_arrays(arrays: Sequence[Array]) -> tuple[list[dict[str, Any]], tuple[bytes, ...]]:
    """Returns a JSON description and a blob for each array."""
    descriptions = [{"dtype": _dtype_name(a), "shape": list(a.shape)} for a in arrays]
    return descriptions, tuple(_encode(a) for a in arrays)


def decode_arrays(descriptions: Any, blobs: Sequence[bytes]) -> list[Array]:
    """Reads what `encode_arrays` wrote, trusting nothing.

    Raises:
        ProtocolError: If descriptions and blobs do not fit together.
    """
    if not isinstance(descriptions, list) or len(descriptions) != len(blobs):
        raise ProtocolError("Tensors without a description", expected=f"one for each of {len(blobs)} tensors")
    return [_decode(d, blob) for d, blob in zip(descriptions, blobs)]


def _dtype_name(array: Array) -> str:
    return "string" if array.dtype.kind in "OSU" else array.dtype.name


def _encode(array: Array) -> bytes:
    if array.dtype.kind not in "OSU":
        return np.ascontiguousarray(array).tobytes()
    return json.dumps([_as_bytes(x).hex() for x in array.ravel().tolist()]).encode()


def _as_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _decode(description: Any, blob: bytes) -> Array:
    if not isinstance(description, dict):
        raise ProtocolError("A tensor description must be an object", received=f"{description!r:.80}")
    name, shape = description.get("dtype"), description.get("shape")
    is_shape = isinstance(shape, list) and len(shape) <= 32
    if not is_shape or not all(type(d) is int and 0 <= d < 2**31 for d in shape or ()):
        raise ProtocolError("A tensor shape must be a list of dimensions", received=f"{shape!r:.80}")
    assert isinstance(shape, list)
    if name == "string":
        return _decode_strings(shape, blob)
    if name not in _DTYPES:
        raise ProtocolError(expected=f"a tensor dtype out of {_DTYPES}", received=f"{name!r:.80}")
    dtype = np.dtype(name)
    expected = _elements(shape) * dtype.itemsize
    if expected != len(blob):
        raise ProtocolError(f"Tensor {name}{shape} needs {expected} bytes", received=f"{len(blob)}")
    return np.frombuffer(blob, dtype).reshape(shape)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def _decode_strings(shape: list[int], blob: bytes) -> Array:
    try:
        values = [bytes.fromhex(text) for text in json.loads(blob)]
    except (ValueError, TypeError, RecursionError):
        raise ProtocolError("A string tensor must be a JSON list of hexadecimal texts") from None
    if len(values) != _elements(shape):
        raise ProtocolError(f"String tensor {shape} does not have {len(values)} elements")
    flat = np.empty(len(values), dtype=object)
    flat[:] = values
    return flat.reshape(shape)
