"""What `remote_agent` and `serve` say to each other: errors, devices, measurements and checks, as JSON in frames.

Nothing that is read is trusted: it came from another host.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

from device_agents import errors
from device_agents.api import DeviceInfo, Measurement, Verdict
from device_agents.checks import Check, State
from device_agents.errors import DeviceError, ModelError, ProtocolError
from device_agents.scheme import DeviceRow
from device_agents.worker.frames import Limits, packed, unpacked

# Any number of models may be measured together.
LIMITS = Limits(blobs=100_000)
_LONGEST_TEXT = 2000
_ERRORS: Mapping[str, type[DeviceError]] = {
    name: getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)
}


def error_json(error: DeviceError) -> dict[str, Any]:
    """Returns an error with all that it says."""
    data = {"what": error.what, "expected": error.expected, "received": error.received, "fix": error.fix}
    if isinstance(error, ModelError):
        data["verdict"] = error.verdict
    # A class of another package is told as the class of the tree that it is made from.
    known = next(cls.__name__ for cls in type(error).__mro__ if _ERRORS.get(cls.__name__) is cls)
    return {"kind": known, **data}


def read_error(raw: object, reworded: Callable[[str], str] = str) -> DeviceError:
    """Returns the error that `error_json` was given.

    Args:
        raw: What came.
        reworded: Makes of what was to be done there what is to be done here.

    Raises:
        ProtocolError: If it is something else.
    """
    data = _mapping("error", raw)
    cls = _ERRORS.get(_text(data, "kind"))
    if cls is None:
        raise ProtocolError("Unknown error", received=f"{data.get('kind')!r:.80}")
    facts = {name: None if data.get(name) is None else _text(data, name) for name in ("expected", "received", "fix")}
    facts["fix"] = None if facts["fix"] is None else reworded(facts["fix"])
    if issubclass(cls, ModelError):
        verdict = _text(data, "verdict")
        if verdict not in {known.value for known in Verdict}:
            raise ProtocolError("Unknown verdict", received=f"{verdict!r:.80}")
        return cls(_text(data, "what"), verdict, **facts)
    return cls(_text(data, "what"), **facts)


def info_json(info: DeviceInfo) -> dict[str, Any]:
    """Returns what a device is."""
    return asdict(info)


def read_info(raw: object) -> DeviceInfo:
    """Returns the device that `info_json` was given.

    Raises:
        ProtocolError: If it is something else.
    """
    data = _mapping("device", raw)
    texts = {
        name: _text(data, name) for name in ("address", "kind", "model", "soc", "os", "runtime", "runtime_version")
    }
    memory_bytes = None if data.get("memory_bytes") is None else read_count(data, "memory_bytes")
    return DeviceInfo(
        **texts,
        cores=read_count(data, "cores", at_least=1),
        memory_bytes=memory_bytes,
        measures_on_host=read_flag(data, "measures_on_host"),
    )


def measurements_blob(measurements: Iterable[Measurement]) -> bytes:
    """Returns measurements; there may be far more than a frame's header takes."""
    return packed(json.dumps([measurement.to_json() for measurement in measurements]).encode())


def read_measurements(blobs: Sequence[bytes], count: int) -> list[Measurement]:
    """Returns the measurements that `measurements_blob` was given.

    Raises:
        ProtocolError: If it is something else, or not so many.
    """
    try:
        (blob,) = blobs
        rows = json.loads(unpacked(blob, LIMITS))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Measurements are not JSON: {str(error)[:200]}") from None
    if not isinstance(rows, list) or len(rows) != count:
        raise ProtocolError(expected=f"{count} measurements", received=f"{len(rows) if isinstance(rows, list) else 0}")
    found = [Measurement.from_json(row) for row in rows]
    return [replace(one, detail=_printable(one.detail), profile_note=_printable(one.profile_note)) for one in found]


def checks_json(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Returns what a doctor says."""
    return [asdict(check) for check in checks]


def read_checks(raw: object) -> list[Check]:
    """Returns the checks that `checks_json` was given.

    Raises:
        ProtocolError: If it is something else.
    """
    checks = []
    for row in _list("checks", raw):
        data = _mapping("check", row)
        state = next((known for known in get_args(State) if known == data.get("state")), None)
        if state is None:
            raise ProtocolError("Unknown state of a check", received=f"{data.get('state')!r:.80}")
        checks.append(Check(_text(data, "name"), state, _text(data, "found"), _text(data, "fix")))
    return checks


def rows_json(rows: Iterable[DeviceRow]) -> list[dict[str, Any]]:
    """Returns a list of devices."""
    return [asdict(row) for row in rows]


def read_rows(raw: object) -> list[DeviceRow]:
    """Returns the list that `rows_json` was given.

    Raises:
        ProtocolError: If it is something else.
    """
    names = ("address", "kind", "model", "state", "detail", "fix")
    rows = [_mapping("device", row) for row in _list("devices", raw)]
    return [DeviceRow(**{name: _text(row, name) for name in names}, present=read_flag(row, "present")) for row in rows]


def read_lines(raw: object) -> list[str]:
    """Returns single lines of text.

    Raises:
        ProtocolError: If it is something else.
    """
    return [_text({"line": line}, "line") for line in _list("lines", raw)]


def read_facts(raw: object) -> list[tuple[str, str]]:
    """Returns pairs of a word and a fact.

    Raises:
        ProtocolError: If it is something else.
    """
    pairs = [read_lines(pair) for pair in _list("facts", raw)]
    if not all(len(pair) == 2 for pair in pairs):
        raise ProtocolError("A fact must have a word")
    return [(word, fact) for word, fact in pairs]


def read_count(data: Mapping[str, Any], name: str, at_least: int = 0) -> int:
    """Returns a whole number.

    Raises:
        ProtocolError: If it is something else.
    """
    value = data.get(name)
    if type(value) is not int or not at_least <= value < 2**63:
        raise ProtocolError(f"{name} must be a whole number >= {at_least}", received=f"{value!r:.80}")
    return value


def read_flag(data: Mapping[str, Any], name: str) -> bool:
    """Returns a truth value.

    Raises:
        ProtocolError: If it is something else.
    """
    value = data.get(name)
    if not isinstance(value, bool):
        raise ProtocolError(f"{name} must be true or false", received=f"{value!r:.80}")
    return value


def _mapping(what: str, raw: object) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise ProtocolError(f"The {what} must be an object", received=f"{raw!r:.80}")
    return raw


def _list(what: str, raw: object) -> list[Any]:
    if not isinstance(raw, list):
        raise ProtocolError(f"The {what} must be a list", received=f"{raw!r:.80}")
    return raw


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} must be text", received=f"{value!r:.80}")
    return _printable(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_TEXT]).strip()
