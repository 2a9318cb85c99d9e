"""Reads a worker's answer into a `Measurement`, trusting nothing in it."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from device_agents.api import (
    BenchmarkSpec,
    Conditions,
    DeviceInfo,
    Measurement,
    OpTime,
    Verdict,
)
from device_agents.errors import ProtocolError
from device_agents.verdicts import assess
from device_agents.worker.frames import Frame

_LONGEST_TEXT = 500


def read_measurement(frame: Frame, info: DeviceInfo, spec: BenchmarkSpec, started_utc: str) -> Measurement:
    """Returns the assessed measurement out of the worker's last frame.

    Raises:
        ProtocolError: If a field is missing, of a wrong type, negative or not finite.
    """
    facts = _answer_to("measure", frame)
    measurement = _measurement(facts, _samples(frame.blobs[0]), _conditions(facts, info, spec, started_utc))
    if not measurement.ok:
        return measurement
    return assess(measurement, spec, info.cores)


def read_visits(
    frame: Frame, info: DeviceInfo, specs: Sequence[BenchmarkSpec], started_utc: str
) -> tuple[list[Measurement], set[str]]:
    """Returns what was measured in each visit, and the keys of the models that are loaded now.

    Args:
        frame: The worker's last frame.
        info: What the device is.
        specs: The settings of each visit.
        started_utc: When the first began.

    Raises:
        ProtocolError: If a field is missing, of a wrong type, negative or not finite.
    """
    facts = _answer_to("visit", frame)
    rows, loaded = facts.get("visits"), facts.get("loaded")
    if not isinstance(rows, list) or len(rows) != len(specs) or not isinstance(loaded, list):
        raise ProtocolError(expected=f"{len(specs)} visits and what is loaded", received=f"{type(rows).__name__}")
    samples_ms, taken = _samples(frame.blobs[0]), 0
    visits = []
    for row, spec in zip(rows, specs, strict=True):
        if not isinstance(row, dict):
            raise ProtocolError("A visit must be an object", received=f"{type(row).__name__}")
        runs = _optional_count(row, "runs") or 0
        conditions = replace(_conditions(facts, info, spec, started_utc), wait_share=_wait_share(row))
        conditions = replace(conditions, delegate_kernels=_optional_count(row, "delegate_kernels"), inputs=_inputs(row))
        visits.append(_measurement(row, samples_ms[taken : taken + runs], conditions))
        taken += runs
    if taken != len(samples_ms):
        raise ProtocolError("Samples that belong to no visit", received=f"{len(samples_ms)} samples, {taken} expected")
    return visits, {str(key) for key in loaded}


def _inputs(row: Mapping[str, Any]) -> str | None:
    return None if row.get("inputs") is None else _text(row, "inputs")


def _wait_share(row: Mapping[str, Any]) -> float | None:
    return _ratio(_optional_number(row, "waited_s"), _optional_number(row, "busy_s"))


def _answer_to(request: str, frame: Frame) -> Mapping[str, Any]:
    if frame.header.get("done") != request or len(frame.blobs) != 1:
        raise ProtocolError(expected=f"the answer to {request!r}", received=f"{frame.header.get('done')!r:.80}")
    return frame.header


def _measurement(facts: Mapping[str, Any], samples_ms: tuple[float, ...], conditions: Conditions) -> Measurement:
    """What happened to a model, `ok` if it did not fail."""
    failure = _optional_mapping(facts, "failure")
    measurement = Measurement(
        verdict=Verdict.OK,
        samples_ms=samples_ms,
        init_ms=_optional_number(facts, "init_ms"),
        first_inference_ms=_optional_number(facts, "first_inference_ms"),
        warmup_runs=_optional_count(facts, "warmup_runs"),
        busy_s=_optional_number(facts, "busy_s") or 0.0,
        peak_memory_bytes=_optional_count(facts, "peak_memory_bytes"),
        energy_mj=_optional_number(facts, "energy_mj"),
        energy_note=_text(facts, "energy_note") if "energy_note" in facts else "",
        profile=_profile(facts.get("profile")),
        profile_note=_text(facts, "profile_note"),
        conditions=conditions,
    )
    return measurement if failure is None else measurement.with_verdict(*read_failure(failure))


def read_device_info(hello: Mapping[str, Any], address: str, kind: str) -> DeviceInfo:
    """Returns what a device is, out of what its worker says of itself.

    Args:
        hello: The worker's answer to `hello`.
        address: The address that opened the device.
        kind: The way it is reached, for example "ssh".

    Raises:
        ProtocolError: If a field is missing or of a wrong type.
    """
    device = _optional_mapping(hello, "device") or {}
    cores = _optional_count(device, "cores")
    if not cores:
        raise ProtocolError("cores must be 1 or more", received=f"{cores!r}")
    return DeviceInfo(
        address=address,
        kind=kind,
        model=_text(device, "model"),
        soc=_text(device, "soc"),
        cores=cores,
        memory_bytes=_optional_count(device, "memory_bytes"),
        os=_text(device, "os"),
        runtime=_text(hello, "runtime"),
        runtime_version=_text(hello, "runtime_version"),
    )


def read_capacities(hello: Mapping[str, Any]) -> dict[int, int]:
    """Returns the relative speeds of a device's CPUs by their ids, out of what its worker says of itself.

    Raises:
        ProtocolError: If they are malformed.
    """
    capacities = _optional_mapping(_optional_mapping(hello, "device") or {}, "capacities") or {}
    if not all(re.fullmatch(r"[0-9]{1,4}", core) for core in capacities):
        raise ProtocolError("capacities must be by CPU id", received=f"{list(capacities)!r:.80}")
    return {int(core): _optional_count(capacities, core) or 0 for core in capacities}


def read_failure(failure: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Returns verdict and reason of a failure the worker reported.

    Raises:
        ProtocolError: If it is malformed.
    """
    stage, kind = _text(failure, "stage"), _text(failure, "kind")
    if stage not in _STAGE_VERDICTS or kind not in ("error", "out_of_memory"):
        raise ProtocolError("Unknown failure", received=f"stage {stage!r:.40}, kind {kind!r:.40}")
    verdict = Verdict.OUT_OF_MEMORY if kind == "out_of_memory" else _STAGE_VERDICTS[stage]
    return verdict, _text(failure, "message")


_STAGE_VERDICTS = {"load": Verdict.LOAD_FAILED, "run": Verdict.RUN_FAILED}


def stage_verdict(stage: str) -> Verdict:
    """Returns what a failure in this stage is called."""
    return _STAGE_VERDICTS.get(stage, Verdict.LOAD_FAILED)


def _conditions(facts: Mapping[str, Any], info: DeviceInfo, spec: BenchmarkSpec, started_utc: str) -> Conditions:
    before = _Snapshot.read(_optional_mapping(facts, "before"))
    after = _Snapshot.read(_optional_mapping(facts, "after"))
    wall_s = _difference(after.clock_s, before.clock_s)
    own_s = _difference(after.own_s, before.own_s)
    busy_s = _difference(after.busy_s, before.busy_s)
    others_s = None if busy_s is None or own_s is None else max(0.0, busy_s - own_s)
    waited_s = _difference(after.wait_s, before.wait_s)
    throttle_events = _difference(after.throttle_events, before.throttle_events)
    return Conditions(
        device_fingerprint=info.fingerprint,
        device_model=info.model,
        runtime=info.runtime,
        runtime_version=info.runtime_version,
        delegate=spec.delegate,
        threads=spec.threads,
        started_utc=started_utc,
        delegate_kernels=_optional_count(facts, "delegate_kernels"),
        cores=spec.cores,
        governor=before.governor,
        cpu_mhz_before=before.cpu_mhz,
        cpu_mhz_after=after.cpu_mhz,
        temperature_c_before=before.temperature_c,
        temperature_c_after=after.temperature_c,
        throttle_events=None if throttle_events is None else int(throttle_events),
        load_average_before=before.load_average,
        load_average_after=after.load_average,
        other_load_cores=_ratio(others_s, wall_s),
        wait_share=_ratio(waited_s, wall_s),
        inputs=_inputs(facts),
    )


@dataclass(frozen=True)
class _Snapshot:
    """`worker.system.snapshot`, checked."""

    clock_s: float | None = None
    own_s: float | None = None
    busy_s: float | None = None
    wait_s: float | None = None
    cpu_mhz: float | None = None
    temperature_c: float | None = None
    throttle_events: float | None = None
    load_average: float | None = None
    governor: str | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any] | None) -> _Snapshot:
        if raw is None:
            return cls()
        names = [name for name in cls.__dataclass_fields__ if name != "governor"]
        governor = None if raw.get("governor") is None else _text(raw, "governor")
        return cls(governor=governor, **{name: _optional_number(raw, name) for name in names})


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else max(0.0, after - before)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _samples(blob: bytes) -> tuple[float, ...]:
    if len(blob) % 8:
        raise ProtocolError("Samples must be float64 values", received=f"{len(blob)} bytes")
    samples = struct.unpack(f"<{len(blob) // 8}d", blob)
    if not all(0 <= sample < 1e9 for sample in samples):
        raise ProtocolError("A sample is negative, infinite or not a number")
    return samples


def _profile(rows: Any) -> tuple[OpTime, ...]:
    if not isinstance(rows, list):
        raise ProtocolError("profile must be a list", received=f"{type(rows).__name__}")
    return tuple(_op_time(row) for row in rows)


def _op_time(row: Any) -> OpTime:
    if not isinstance(row, dict):
        raise ProtocolError("A profile row must be an object", received=f"{type(row).__name__}")
    mean_ms, share = _optional_number(row, "mean_ms"), _optional_number(row, "share")
    if mean_ms is None or share is None:
        raise ProtocolError("A profile row lacks mean_ms or share")
    return OpTime(_text(row, "op"), _text(row, "name"), mean_ms, share)


def _optional_mapping(facts: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = facts.get(name)
    if value is not None and not isinstance(value, dict):
        raise ProtocolError(f"{name} must be an object", received=f"{type(value).__name__}")
    return value


def _optional_number(facts: Mapping[str, Any], name: str) -> float | None:
    value = facts.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e18:
        raise ProtocolError(f"{name} must be a number >= 0", received=f"{value!r:.80}")
    return float(value)


def _optional_count(facts: Mapping[str, Any], name: str) -> int | None:
    value = _optional_number(facts, name)
    if value is not None and not value.is_integer():
        raise ProtocolError(f"{name} must be a whole number", received=f"{value!r}")
    return None if value is None else int(value)


def _text(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} must be text", received=f"{type(value).__name__}")
    printable = "".join(c if c.isprintable() else " " for c in value[:_LONGEST_TEXT])
    return printable.strip()
