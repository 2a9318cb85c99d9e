from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.api import DeviceInfo, Measurement, QuietLatency, Verdict, Visit
from device_agents.errors import ProtocolError
from tests.support.measurements import MEASUREMENT

numbers = st.floats(0, 1e6)


@given(
    st.sampled_from(Verdict),
    st.text(),
    st.lists(numbers, max_size=20),
    st.none() | numbers,
    st.integers(1, 9),
)
def test_measurement_survives_json(
    verdict: Verdict, detail: str, samples: list[float], init_ms: float | None, attempts: int
) -> None:
    measurement = replace(
        MEASUREMENT,
        verdict=verdict,
        detail=detail,
        samples_ms=tuple(samples),
        init_ms=init_ms,
        attempts=attempts,
    )
    assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement


@pytest.mark.parametrize("verdict", [v for v in Verdict if v not in (Verdict.OK, Verdict.CORRECTED)])
def test_only_a_measurement_to_rely_on_has_a_latency(verdict: Verdict) -> None:
    flagged = MEASUREMENT.with_verdict(verdict, "why")
    assert MEASUREMENT.latency_ms == 2.0
    assert flagged.latency_ms is None
    assert not flagged.ok
    assert flagged.statistics is not None
    assert flagged.statistics.median_ms == 2.0


def test_the_latency_of_visits_is_the_quiet_one_and_the_statistics_are_of_all_samples() -> None:
    quiet = QuietLatency(1.0, (0.98, 1.03), 3)
    visits = tuple(Visit(samples=1, round=number, at_s=float(number), wait_share=None) for number in (1, 2, 3))
    measured = replace(MEASUREMENT, samples_ms=(1.0, 2.0, 3.0), visits=visits, quiet=quiet)
    assert (measured.latency_ms, measured.interval_ms) == (1.0, (0.98, 1.03))
    assert measured.with_verdict(Verdict.CORRECTED, "why").latency_ms == 1.0
    contended = measured.with_verdict(Verdict.CONTENDED, "why")
    assert (contended.latency_ms, contended.best_ms) == (None, 1.0)
    assert measured.statistics is not None
    assert measured.statistics.median_ms == 2.0
    assert Measurement.from_json(json.loads(json.dumps(measured.to_json()))) == measured


def test_records_from_before_there_were_visits_are_read() -> None:
    record = MEASUREMENT.to_json()
    del record["visits"], record["quiet"]
    assert Measurement.from_json(record) == MEASUREMENT


@pytest.mark.parametrize(
    "change",
    [
        {"visits": [[1, 2, 3]]},
        {"visits": [[-1, 1, 0.0, None]]},
        {"visits": [[1, 1, float("nan"), None]]},
        {"visits": "none"},
        {"quiet": {"latency_ms": 1.0, "interval_ms": [1.0], "visits": 3}},
        {"quiet": {"latency_ms": -1.0, "interval_ms": [1.0, 2.0], "visits": 3}},
        {"quiet": {"latency_ms": 1.0}},
    ],
)
def test_visits_are_untrusted(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Measurement.from_json({**MEASUREMENT.to_json(), **change})


def test_failed_measurement_has_neither_latency_nor_statistics() -> None:
    failed = Measurement(Verdict.LOAD_FAILED, "broken")
    assert failed.latency_ms is None
    assert failed.statistics is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 99},
        {"verdict": "splendid"},
        {"samples_ms": [float("nan")]},
        {"samples_ms": [-1.0]},
        {"samples_ms": [True]},
        {"samples_ms": "1,2"},
        {"init_ms": float("inf")},
        {"init_ms": 10**400},
        {"attempts": -1},
        {"conditions": {}},
        {"profile": [{}]},
        {"surprise": 1},
        {"detail": None},
    ],
)
def test_malformed_measurement_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Measurement.from_json({**MEASUREMENT.to_json(), **change})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.data())
def test_hostile_measurement_raises_nothing_but_protocol_errors(data: st.DataObject) -> None:
    valid = MEASUREMENT.to_json()
    target = data.draw(st.sampled_from([valid, valid["conditions"], valid["profile"][0]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(json_values)
    try:
        measurement = Measurement.from_json(valid)
    except ProtocolError:
        return
    assert measurement.latency_ms is None or measurement.latency_ms >= 0


def test_fingerprint_ignores_address_and_runtime_but_not_the_hardware(info: DeviceInfo) -> None:
    assert replace(info, address="host:2").fingerprint == info.fingerprint
    assert replace(info, runtime_version="9").fingerprint == info.fingerprint
    assert replace(info, model="other").fingerprint != info.fingerprint
    assert replace(info, os="Linux 7.0").fingerprint != info.fingerprint


def test_records_from_before_there_were_blocks_hold_single_runs() -> None:
    data = Measurement(Verdict.OK, samples_ms=(1.0, 2.0)).to_json()
    del data["runs_per_sample"]
    assert Measurement.from_json(data).runs == 2
    assert Measurement.from_json({**data, "runs_per_sample": 5}).runs == 10
    assert Measurement.from_json({**data, "runs_per_sample": None}).runs is None
    with pytest.raises(ProtocolError, match="runs_per_sample"):
        Measurement.from_json({**data, "runs_per_sample": -1})
