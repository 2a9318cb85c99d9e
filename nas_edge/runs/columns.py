"""A journal's trials as columns, for whoever looks at many of them at once: lists, selections, reports.

Most of a journal are the samples of the measurements. Unless they are asked for, they are skipped here, unparsed, so
that ten thousand trials are read in about a second; what they come to is there as `latency_ms`, and every record's
checksum is checked all the same. Not through `Trial.from_json`, which checks every sample twice over. What is used is
checked all the same, because a folder may come from anywhere. To have single trials whole, read `journal.read_journal`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from device_agents.api import Measurement, Verdict, median_interval, quantile
from nas_edge.errors import RunError
from nas_edge.formatting import reason
from nas_edge.latency.answer import LatencyKind
from nas_edge.runs.journal import Record, read_journal
from nas_edge.runs.untrusted import LARGEST, count, milliseconds, number, optional_number

# No text of a record can contain this, because a quotation mark in a JSON text has a backslash before it.
_SAMPLES = b'"samples_ms":['
_PARTS = b'"parts":['


@dataclass(frozen=True)
class TrialColumns:
    """Trials, oldest first: entry `i` of every list is of trial `i`. See `search.trials.Trial`.

    Attributes:
        step: search step in which it was proposed.
        rewarded_step: step in which the controller learned from it.
        architecture: its text form.
        quality: in the task's metric, or None.
        kind: how its latency is known, a `LatencyKind`; None when latency was not asked for.
        verdict: of its latency; likewise.
        latency_ms: what the reward is made with, in milliseconds; None unless it may be relied on.
        interval_ms: its 95% interval.
        measured_ms: the latency as it was answered, whatever its verdict; differs from `latency_ms` where that was
            adjusted, see `Trial.adjusted`. Of what was measured in one go and flagged, it is known only where samples
            were asked for, and so is its interval.
        measured_verdict: of that.
        observed_ms: median and 90th percentile of all samples, where those were asked for.
        reward: None for a failed candidate or one the bench could not time.
        usage: value of each resource that the search aims at or limits; empty where they are not all known.
        parts_ms: of a latency on several devices, that on each, see `latency.several`; None where it may not be relied
            on. Empty for one device.
        measurement: everything else of its measurement, see `device_agents.api.Measurement.to_json`, without samples,
            visits and what they come to.
    """

    step: list[int]
    rewarded_step: list[int]
    architecture: list[str]
    quality: list[float | None]
    kind: list[LatencyKind | None]
    verdict: list[str | None]
    latency_ms: list[float | None]
    interval_ms: list[tuple[float, float] | None]
    measured_ms: list[float | None]
    measured_verdict: list[str | None]
    observed_ms: list[tuple[float, float] | None]
    reward: list[float | None]
    usage: list[Mapping[str, float]]
    parts_ms: list[tuple[float | None, ...]]
    measurement: list[Mapping[str, Any] | None]

    def __len__(self) -> int:
        """How many trials there are."""
        return len(self.step)


def read_trials(path: Path, samples: bool = False) -> TrialColumns:
    """Reads a journal of trials; it may be one that a search is writing to.

    Args:
        path: of the journal.
        samples: whether to look at the samples: what was observed, medians of what was flagged, and intervals.

    Raises:
        RunError: when it cannot be read, is damaged, was written by another version, or holds something else.
    """
    records = read_journal(path, _with_interval if samples else _without_samples).records
    columns = TrialColumns(*([] for _ in fields(TrialColumns)))
    for position, record in enumerate(records):
        try:
            _append(columns, record)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise RunError(f"record {position} of {path} is not a trial: {reason(error)}") from None
    return columns


def _part_ms(part: Any) -> float | None:
    """The latency on one of several devices, when it may be relied on."""
    record = _object(part)
    if "kind" in record:
        return _milliseconds(record["latency_ms"])
    return Measurement.from_json(record).latency_ms


def _append(columns: TrialColumns, record: Record) -> None:
    measured, adjusted = _object(record["measurement"]), _object(record.get("adjusted"))
    columns.step.append(count(record["step"]))
    columns.rewarded_step.append(count(record["rewarded_step"]))
    columns.architecture.append(_text(record["architecture"]))
    columns.quality.append(optional_number(record["quality"]))
    columns.reward.append(optional_number(record["reward"]))
    usage = _object(record["usage"]) or {}
    columns.usage.append({str(name): number(value, 0) for name, value in usage.items()})
    columns.measurement.append(measured)
    columns.parts_ms.append(tuple(map(_part_ms, () if measured is None else measured.pop("parts", ()))))
    if measured is None:
        for column in (
            columns.kind,
            columns.verdict,
            columns.latency_ms,
            columns.interval_ms,
            columns.measured_ms,
            columns.measured_verdict,
            columns.observed_ms,
        ):
            column.append(None)
        return
    measured.pop("visits", None)
    verdict, latency_ms = Verdict(measured["verdict"]), measured.pop("latency_ms")
    measured_ms, interval_ms = _milliseconds(latency_ms), _pair(measured.pop("interval_ms", None))
    columns.kind.append(LatencyKind(measured.pop("kind", LatencyKind.MEASURED)))
    columns.measured_ms.append(measured_ms)
    columns.measured_verdict.append(verdict.value)
    columns.observed_ms.append(_pair(measured.pop("observed_ms", None)))
    if adjusted is not None:
        verdict, interval_ms = Verdict(adjusted["verdict"]), _pair(adjusted["interval_ms"])
        measured_ms = milliseconds(adjusted["latency_ms"])
    columns.verdict.append(verdict.value)
    columns.latency_ms.append(measured_ms if verdict in (Verdict.OK, Verdict.CORRECTED) else None)
    columns.interval_ms.append(interval_ms)


def _milliseconds(value: Any) -> float | None:
    return None if value is None else milliseconds(value)


def _pair(value: Any) -> tuple[float, float] | None:
    return None if value is None else (number(value[0], 0), number(value[1], 0))


def _object(value: Any) -> Any:
    if not isinstance(value, (dict, type(None))):
        raise TypeError(f"expected an object or null, received {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, received {type(value).__name__}")
    return value


def _without_samples(body: bytes) -> Record:
    """A trial, with its latency in place of its measurement's samples."""
    start = body.find(_SAMPLES)
    if start < 0 or _PARTS in body:
        record: Record = json.loads(body)
        return record
    start += len(_SAMPLES)
    end = body.index(b"]", start)
    record = json.loads(b"%s%s" % (body[:start], body[end:]))
    measured = record["measurement"]
    del measured["samples_ms"]
    if _take_quiet(measured):
        return record
    measured["latency_ms"] = None
    if measured["verdict"] == "ok" and end > start:
        # What the objectives were given is that same median.
        latency_ms = (record["usage"] or {}).get("latency_ms")
        if latency_ms is None:
            latency_ms = Measurement(Verdict.OK, samples_ms=tuple(json.loads(b"[%s]" % body[start:end]))).latency_ms
        measured["latency_ms"] = latency_ms
    return record


def _take_quiet(measured: Any) -> bool:
    """Puts the quiet latency, if there is one, where that of an estimate is; returns whether there is."""
    quiet = measured.pop("quiet", None)
    if quiet is None:
        return False
    measured |= {"latency_ms": quiet["latency_ms"], "interval_ms": quiet["interval_ms"]}
    return True


def _with_interval(body: bytes) -> Record:
    """A trial, with latency, interval and what was observed in place of its measurement's samples."""
    record: Record = json.loads(body)
    measured = record["measurement"]
    if isinstance(measured, dict) and "samples_ms" in measured:
        # Not `Measurement.statistics`, which works out much that is not told here.
        ordered: list[float] = sorted(measured.pop("samples_ms"))
        if ordered and not (0 < ordered[0] <= ordered[-1] <= LARGEST and math.isfinite(sum(ordered))):
            raise ValueError(f"expected samples between 0 and {LARGEST:g} ms")
        observed_ms = (quantile(ordered, 0.5), quantile(ordered, 0.9)) if ordered else None
        if not _take_quiet(measured):
            measured["latency_ms"] = None if observed_ms is None else observed_ms[0]
            measured["interval_ms"] = median_interval(ordered)
        measured["observed_ms"] = observed_ms
    return record
