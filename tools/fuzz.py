"""Coverage-guided fuzzing of what reads untrusted bytes, with atheris (`pip install 'nas-edge[fuzz]'`).

    python tools/fuzz.py frames|model|measurement|operators [-max_total_time=60] [libFuzzer options] [corpus folder]

Whatever is thrown at a parser, it may only answer or raise the error it documents. Anything else is a crash, and
libFuzzer writes the input to a file. The property tests in `tests/` look for the same with hypothesis, everywhere.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any

import atheris

with atheris.instrument_imports(include=["device_agents", "nas_edge.networks.tflite_model"]):
    from device_agents.api import Conditions, Measurement, Verdict
    from device_agents.errors import DeviceError
    from device_agents.tflite_file import inspect_model
    from device_agents.worker.errors import ProtocolError
    from device_agents.worker.frames import read_frame
    from nas_edge.networks.tflite_model import operators

CONDITIONS = Conditions("fingerprint", "a device", "a runtime", "1.0", "cpu", 1, "2026-01-01T00:00:00+00:00")


def frames(data: bytes) -> None:
    """A stream of frames, as a worker may send it."""
    stream = io.BytesIO(data)
    with contextlib.suppress(ProtocolError):
        while read_frame(stream.read) is not None:
            pass


def model(data: bytes) -> None:
    """A TFLite file before it is loaded."""
    for content in (data, b"\x1c\x00\x00\x00TFL3" + data):
        with contextlib.suppress(DeviceError):
            inspect_model(content)


def measurement(data: bytes) -> None:
    """A measurement as JSON, some of its fields replaced by anything."""
    provider = atheris.FuzzedDataProvider(data)
    record = Measurement(Verdict.OK, samples_ms=(1.0, 2.0), conditions=CONDITIONS).to_json()
    for _ in range(provider.ConsumeIntInRange(1, 4)):
        part = record["conditions"] if provider.ConsumeBool() and isinstance(record["conditions"], dict) else record
        part[provider.PickValueInList([*part, "unknown"])] = _anything(provider, depth=3)
    with contextlib.suppress(ProtocolError):
        Measurement.from_json(record)


def _anything(provider: Any, depth: int) -> Any:
    kind = provider.ConsumeIntInRange(0, 7 if depth else 5)
    if kind == 6:
        return [_anything(provider, depth - 1) for _ in range(provider.ConsumeIntInRange(0, 3))]
    if kind == 7:
        return {provider.ConsumeUnicode(4): _anything(provider, depth - 1)}
    makers: list[Callable[[], Any]] = [
        lambda: None,
        provider.ConsumeBool,
        lambda: provider.ConsumeInt(8),
        provider.ConsumeFloat,
        lambda: provider.ConsumeUnicode(8),
        lambda: 10**400,
    ]
    return makers[kind]()


def list_operators(data: bytes) -> None:
    """The operators of a TFLite file."""
    for content in (data, b"\x1c\x00\x00\x00TFL3" + data):
        with contextlib.suppress(ValueError):
            operators(content)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "model": model,
    "measurement": measurement,
    "operators": list_operators,
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"fuzz.py: expected one of {', '.join(TARGETS)}; received {sys.argv[1:2]}")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
