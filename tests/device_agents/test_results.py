from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.api import BenchmarkSpec, DeviceInfo, Verdict
from device_agents.errors import ProtocolError
from device_agents.results import read_failure, read_measurement
from device_agents.worker.frames import Frame

INFO = DeviceInfo("host:", "host", "CPU", "x86", 2, None, "Linux", "litert", "1")
SNAPSHOT = {
    "clock_s": 10.0,
    "own_s": 5.0,
    "busy_s": 100.0,
    "wait_s": 1.0,
    "cpu_mhz": 2000.0,
    "temperature_c": 50.0,
    "throttle_events": 0,
    "load_average": 0.5,
    "governor": "performance",
}
FACTS: dict[str, Any] = {
    "done": "measure",
    "failure": None,
    "init_ms": 1.0,
    "first_inference_ms": 2.0,
    "warmup_runs": 4,
    "busy_s": 0.5,
    "peak_memory_bytes": 1000,
    "delegate_kernels": 1,
    "before": SNAPSHOT,
    "after": {**SNAPSHOT, "clock_s": 12.0, "own_s": 6.5, "busy_s": 102.5, "wait_s": 1.1},
    "profile": [],
    "profile_note": "",
}
SAMPLES = struct.pack("<20d", *[1.0] * 20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def read(facts: dict[str, Any], *blobs: bytes) -> Any:
    return read_measurement(Frame(facts, blobs), INFO, BenchmarkSpec(), "now")


def test_conditions_are_the_difference_of_the_snapshots() -> None:
    measurement = read(FACTS, SAMPLES)
    assert measurement.ok
    assert measurement.latency_ms == 1.0
    assert measurement.conditions.wait_share == pytest.approx(0.05)
    assert measurement.conditions.other_load_cores == pytest.approx(0.5)
    assert measurement.conditions.governor == "performance"


def test_what_the_device_could_not_read_stays_unknown() -> None:
    blank = dict.fromkeys(SNAPSHOT)
    conditions = read({**FACTS, "before": blank, "after": blank}, SAMPLES).conditions
    assert conditions.wait_share is None
    assert conditions.other_load_cores is None
    assert conditions.temperature_c_before is None


def test_reported_failure_becomes_its_verdict_and_stays_one_line() -> None:
    failure = {"stage": "run", "kind": "error", "message": "bad\nmodel\x1b[31m"}
    measurement = read({**FACTS, "failure": failure}, b"")
    assert measurement.verdict is Verdict.RUN_FAILED
    assert measurement.detail == "bad model [31m"
    assert read_failure({**failure, "kind": "out_of_memory"})[0] is Verdict.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("change", "blobs"),
    [
        ({"done": "run"}, (SAMPLES,)),
        ({}, ()),
        ({}, (b"123",)),
        ({}, (struct.pack("<d", float("nan")),)),
        ({}, (struct.pack("<d", -1.0),)),
        ({"init_ms": -1}, (SAMPLES,)),
        ({"init_ms": True}, (SAMPLES,)),
        ({"warmup_runs": 1.5}, (SAMPLES,)),
        ({"before": [1]}, (SAMPLES,)),
        ({"profile": [{"op": "A", "name": "b"}]}, (SAMPLES,)),
        ({"failure": {"stage": "nap", "kind": "error", "message": ""}}, (SAMPLES,)),
    ],
)
def test_malformed_answers_are_refused(change: dict[str, Any], blobs: tuple[bytes, ...]) -> None:
    with pytest.raises(ProtocolError):
        read({**FACTS, **change}, *blobs)


@given(st.data())
def test_hostile_answers_raise_nothing_but_protocol_errors(data: st.DataObject) -> None:
    facts = {**FACTS, "before": dict(SNAPSHOT), "after": dict(SNAPSHOT)}
    target = data.draw(st.sampled_from([facts, facts["before"], facts["after"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(json_values)
    try:
        measurement = read(facts, data.draw(st.just(SAMPLES) | st.binary(max_size=64)))
    except ProtocolError:
        return
    assert isinstance(measurement.verdict, Verdict)
