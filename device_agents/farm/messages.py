"""What crosses between an agent here and the far side: frames of JSON and blobs, read without trust.

Hosts may have different versions of this package. A setting that the far side does not know is left out as long as it
has its default; what a newer far side says beyond what is known here is dropped.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from device_agents import errors
from device_agents.api import BenchmarkSpec, Conditions, Measurement
from device_agents.errors import DeviceError, ModelError, ProtocolError, SpecError
from device_agents.worker.frames import Frame, Limits, encode_frame, read_frame

# Raised only when nothing of an older version can be understood any more; all else is told by fields.
PROTOCOL = 1
_LIMITS = Limits(header_bytes=1 << 20, blobs=10_000, blob_bytes=2 << 30)
_ERRORS: dict[str, type[DeviceError]] = {name: getattr(errors, name) for name in errors.__all__ if name[0].isupper()}
_FACTS = ("what", "expected", "received", "fix")
SPEC_FIELDS = tuple(field.name for field in dataclasses.fields(BenchmarkSpec))


def pack(header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """Returns a message as bytes."""
    return encode_frame(Frame(dict(header), tuple(blobs)))


def unpack(data: bytes) -> Frame:
    """Reads what `pack` made.

    Raises:
        ProtocolError: If it is anything else.
    """
    frame = read_frame(io.BytesIO(data).read, _LIMITS)
    if frame is None:
        raise ProtocolError("An empty message")
    return frame


def unpack_answer(data: bytes) -> Frame:
    """Reads the far side's answer.

    Raises:
        DeviceError: As the far side says.
        ProtocolError: If it is anything else than a message.
    """
    answer = unpack(data)
    if "error" in answer.header:
        raise read_error(answer.header)
    return answer


def pack_json(value: Any) -> bytes:
    """Returns a JSON value as a blob, for what may be larger than a frame's header."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def unpack_list(blob: bytes) -> list[Any]:
    """Reads a JSON list out of a blob.

    Raises:
        ProtocolError: If it is none.
    """
    try:
        value = json.loads(blob)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"A message is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, list):
        raise ProtocolError(expected="a JSON list", received=type(value).__name__)
    return value


def spec_to_json(spec: BenchmarkSpec, known: Collection[str], where: str) -> dict[str, Any]:
    """Returns settings for a far side that knows the fields `known`.

    Raises:
        SpecError: If one that it does not know is not at its default.
    """
    data = spec.to_json()
    for name in sorted(set(SPEC_FIELDS) - set(known)):
        if getattr(spec, name) != getattr(BenchmarkSpec(), name):
            raise SpecError(
                f"What serves the devices of {where} is older and does not know the setting {name}",
                received=f"{name}={getattr(spec, name)!r:.80}",
                fix=f"update it there, or leave {name} at {getattr(BenchmarkSpec(), name)!r}",
            )
        del data[name]
    return data


def read_measurement(data: Any) -> Measurement:
    """Reads a measurement, also one of a newer version.

    Raises:
        ProtocolError: If it is none.
    """
    if isinstance(data, dict):
        data = _only(data, Measurement, "schema")
        if isinstance(data.get("conditions"), dict):
            data["conditions"] = _only(data["conditions"], Conditions)
    return Measurement.from_json(data)


def _only(data: Mapping[str, Any], of: type[Any], *others: str) -> dict[str, Any]:
    known = {*others, *(field.name for field in dataclasses.fields(of))}
    return {name: value for name, value in data.items() if name in known}


def describe_error(error: DeviceError) -> dict[str, Any]:
    """Returns an error as JSON."""
    facts = {name: value for name in _FACTS if (value := getattr(error, name)) is not None}
    verdict = {"verdict": error.verdict} if isinstance(error, ModelError) else {}
    return {"error": type(error).__name__, **facts, **verdict}


def read_error(data: Mapping[str, Any]) -> DeviceError:
    """Returns the error that `describe_error` described; one of a newer version as a plain DeviceError."""
    facts = {name: str(data[name])[:2000] for name in _FACTS if data.get(name) is not None}
    what = facts.pop("what", "") or "no reason given"
    cls = _ERRORS.get(str(data.get("error")), DeviceError)
    if issubclass(cls, ModelError):
        return cls(what, str(data.get("verdict", "load_failed")), **facts)
    return cls(what, **facts)
