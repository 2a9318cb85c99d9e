"""Candidates through a pool of (fake) devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from device_agents.api import BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.probe_models import PROBE_MODELS
from device_agents.quiet import VisitSettings
from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.source import Candidate
from nas_edge.networks.precisions import Precision
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces.design import Design
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
        assert spec.settings_hash == VisitSettings().of_visit(SPEC).settings_hash
        files.append(model)
        return steady(1.0)

    with device_source(measure) as source:
        answer = source.submit(candidate(0)).result(timeout=30)
    written = tflite_model(candidate(0).network, "int8")
    assert written in files
    assert set(files) - {written} == {model() for model in PROBE_MODELS.values()}
    assert answer.kind is LatencyKind.MEASURED
    assert (answer.verdict, answer.latency_ms, answer.interval_ms) == (Verdict.OK, 1.0, (1.0, 1.0))
    assert answer.measurement is not None
    assert len(answer.measurement.visits) >= VisitSettings().agreeing
    assert LatencyAnswer.from_json(answer.to_json()) == answer


def test_candidates_that_are_asked_for_together_share_rounds() -> None:
    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        return steady(1.0)

    with device_source(measure) as source:
        asked = [source.submit(candidate(index)) for index in range(4)]
        measured = [future.result(timeout=30).measurement for future in asked]
    rounds = [{visit.round for visit in one.visits} for one in measured if one is not None]
    assert len(rounds) == 4
    assert all(one == rounds[0] for one in rounds)


def test_a_design_may_decide_how_it_is_measured() -> None:
    asked: list[tuple[bytes, int]] = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        asked.append((model, spec.threads))
        return steady(1.0)

    def measuring(design: Design) -> tuple[Precision, BenchmarkSpec]:
        return "float32", SPEC.replace(threads=int(design.extras["threads"]))

    network = candidate(0).network
    with DeviceSource([FunctionAgent(measure)], "int8", SPEC, measuring=measuring) as source:
        for threads in (1, 2):
            assert source.submit(Candidate(Design(network, {"threads": threads}))).result(timeout=30).ok
    written = tflite_model(network, "float32")
    assert {threads for model, threads in asked if model == written} == {1, 2}
    assert tflite_model(network, "int8") not in {model for model, _ in asked}


def test_key_names_everything_but_the_network() -> None:
    with device_source(lambda *_: steady(1.0)) as source:
        key = source.key
    assert key.precision == "int8"
    assert key.device == fake_info().fingerprint
    assert key.runtime == "litert 1"
    assert key.settings == f"{SPEC.settings_hash} {VisitSettings().digest}"


@pytest.mark.parametrize("other", [{"model": "another phone"}, {"runtime_version": "2"}])
def test_devices_that_differ_never_share_a_column_of_latencies(other: dict[str, str]) -> None:
    infos = [fake_info("fake:1"), replace(fake_info("fake:2"), **other)]
    agents = [FunctionAgent(lambda *_: steady(1.0), info) for info in infos]
    with pytest.raises(ConfigError, match="must be interchangeable"):
        DeviceSource(agents, "int8", SPEC)
    assert all(agent.closed for agent in agents)
