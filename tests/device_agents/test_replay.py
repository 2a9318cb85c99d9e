from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec, DeviceInfo, Verdict
from device_agents.devices import open_device
from device_agents.errors import ModelError
from device_agents.replay import ReplayAgent, model_key, write_recording
from tests.support.measurements import MEASUREMENT


def test_a_recording_answers_with_the_same_measurements(tmp_path: Path, info: DeviceInfo) -> None:
    path = tmp_path / "times.json"
    write_recording(path, info, {model_key(b"model"): MEASUREMENT})
    with open_device(f"replay:{path}") as agent:
        assert agent.info().fingerprint == info.fingerprint
        assert not agent.info().measures_on_host
        assert agent.measure(b"model", BenchmarkSpec()) == MEASUREMENT


def test_replaying_takes_as_long_as_the_recording_says(info: DeviceInfo) -> None:
    waited: list[float] = []
    recorded = {model_key(b"model"): MEASUREMENT}
    ReplayAgent(info, recorded, sleep=waited.append).measure(b"model", BenchmarkSpec())
    ReplayAgent(info, recorded, 0.25, waited.append).measure(b"model", BenchmarkSpec())
    assert waited == [MEASUREMENT.busy_s, 0.25]


def test_an_unknown_model_is_a_verdict_and_running_one_an_error(info: DeviceInfo) -> None:
    agent = ReplayAgent(info, {})
    assert agent.measure(b"new", BenchmarkSpec()).verdict is Verdict.LOAD_FAILED
    with pytest.raises(ModelError, match="not outputs"):
        agent.run(b"new", [])
