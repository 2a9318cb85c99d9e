"""A journal's trials as columns, for whoever looks at many of them at once: lists, selections, reports.

Most of a journal are the samples of the measurements. They are skipped here, unparsed, so that ten thousand trials are
read in about a second; their median is there as `latency_ms`, and the checksum of every record is checked all the same.
To have the samples of single trials, read `journal.read_journal`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.api import Measurement, Verdict
from nas_edge.errors import RunError
from nas_edge.runs.journal import Record, read_journal
from nas_edge.runs.untrusted import count, milliseconds, optional_number

# No text of a record can contain this, because a quotation mark in a JSON text has a backslash before it.
_SAMPLES = b'"samples_ms":['


@dataclass(frozen=True)
class TrialColumns:
    """Trials, oldest first: entry `i` of every list is of trial `i`. See `search.trials.Trial`.

    Attributes:
        step: search step in which it was proposed.
        rewarded_step: step in which the controller learned from it.
        architecture: its text form.
        quality: 0 to 1, or None.
        verdict: of its measurement; None when latency was not asked for.
        latency_ms: median, in milliseconds; None unless the verdict is `ok`.
        reward: None for a failed candidate or one the bench could not time.
        measurement: everything else of its measurement, see `device_agents.api.Measurement.to_json`, without samples.
    """

    step: list[int]
    rewarded_step: list[int]
    architecture: list[str]
    quality: list[float | None]
    verdict: list[str | None]
    latency_ms: list[float | None]
    reward: list[float | None]
    measurement: list[Mapping[str, Any] | None]

    def __len__(self) -> int:
        """How many trials there are."""
        return len(self.step)


def read_trials(path: Path) -> TrialColumns:
    """Reads a journal of trials; it may be one that a search is writing to.

    Raises:
        RunError: when it cannot be read, is damaged, was written by another version, or holds something else.
    """
    records = read_journal(path, _without_samples).records
    try:
        measurements = [_measurement(record["measurement"]) for record in records]
        latencies = [None if measured is None else measured.pop("latency_ms") for measured in measurements]
        return TrialColumns(
            step=[count(record["step"]) for record in records],
            rewarded_step=[count(record["rewarded_step"]) for record in records],
            architecture=[_text(record["architecture"]) for record in records],
            quality=[optional_number(record["quality"], 0, 1) for record in records],
            verdict=[None if measured is None else Verdict(measured["verdict"]).value for measured in measurements],
            latency_ms=[None if latency_ms is None else milliseconds(latency_ms) for latency_ms in latencies],
            reward=[optional_number(record["reward"]) for record in records],
            measurement=measurements,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} holds records that are no trials of this version: {error!r:.200}") from None


def _measurement(value: Any) -> Any:
    if not isinstance(value, (dict, type(None))):
        raise TypeError(f"expected an object or null, received {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, received {type(value).__name__}")
    return value


def _without_samples(body: bytes) -> Record:
    """A trial, with the median in place of its measurement's samples."""
    start = body.find(_SAMPLES)
    if start < 0:
        record: Record = json.loads(body)
        return record
    start += len(_SAMPLES)
    end = body.index(b"]", start)
    record = json.loads(b"%s%s" % (body[:start], body[end:]))
    measured = record["measurement"]
    del measured["samples_ms"]
    measured["latency_ms"] = None
    if measured["verdict"] == "ok" and end > start:
        # What the objectives were given is that same median.
        latency_ms = (record["usage"] or {}).get("latency_ms")
        if latency_ms is None:
            latency_ms = Measurement(Verdict.OK, samples_ms=tuple(json.loads(b"[%s]" % body[start:end]))).latency_ms
        measured["latency_ms"] = latency_ms
    return record
