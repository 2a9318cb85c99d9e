"""Candidates through a pool of (fake) devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from device_agents.anchor_watch import AnchorSettings
from device_agents.api import BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.probe_models import compute_model
from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.cache import CachedSource
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.networks.tflite_model import tflite_model
from tests.support.agents import FunctionAgent, fake_info
from tests.support.candidates import candidate

CONDITIONS = Conditions("device", "phone", "litert", "1", "cpu", 1, "2020-01-01T00:00:00")
SPEC = BenchmarkSpec()


def device_source(measure: Callable[[bytes, BenchmarkSpec], Measurement]) -> DeviceSource:
    return DeviceSource([FunctionAgent(measure)], "int8", SPEC)


def steady(latency_ms: float) -> Measurement:
    return Measurement(Verdict.OK, samples_ms=(latency_ms,) * 20, conditions=CONDITIONS)


def test_a_candidate_is_measured_as_the_file_that_is_written_of_it() -> None:
    files: list[bytes] = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        assert spec == SPEC
        files.append(model)
        return steady(1.0)

    with device_source(measure) as source:
        answer = source.submit(candidate(0)).result(timeout=30)
    assert files[:2] == [compute_model(), tflite_model(candidate(0).network, "int8")]
    assert answer.kind is LatencyKind.MEASURED
    assert answer.measurement is not None
    assert answer.measurement.conditions is not None
    assert answer.measurement.conditions.anchor_ratio == 1.0


def test_key_names_everything_but_the_network() -> None:
    with device_source(lambda *_: steady(1.0)) as source:
        key = source.key
    assert key.precision == "int8"
    assert key.device == fake_info().fingerprint
    assert key.runtime == "litert 1"
    assert key.settings == SPEC.settings_hash


def test_after_a_drift_the_cache_forgets_and_the_search_gets_what_is_measured_again(tmp_path: Path) -> None:
    slowdown = 1.0
    with device_source(lambda *_: steady(slowdown)) as device:
        cached = CachedSource(RetryingSource(device), tmp_path / "cache.sqlite", device.key)
        device.on_drift(cached.forget_since)
        every = AnchorSettings().every
        for index in range(every):
            assert cached.submit(candidate(index)).result(timeout=30).ok
        assert cached.hits == 0
        slowdown = 2.0
        assert cached.submit(candidate(every)).result(timeout=30).verdict is Verdict.DRIFTED
        slowdown = 1.01
        again = cached.submit(candidate(0)).result(timeout=30)
        assert again.latency_ms == 1.01
        cached.close()


@pytest.mark.parametrize("other", [{"model": "another phone"}, {"runtime_version": "2"}])
def test_devices_that_differ_never_share_a_column_of_latencies(other: dict[str, str]) -> None:
    infos = [fake_info("fake:1"), replace(fake_info("fake:2"), **other)]
    agents = [FunctionAgent(lambda *_: steady(1.0), info) for info in infos]
    with pytest.raises(ConfigError, match="must be interchangeable"):
        DeviceSource(agents, "int8", SPEC)
    assert all(agent.closed for agent in agents)
