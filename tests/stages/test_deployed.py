"""Designs that decide how they are deployed: measured so, delivered so, and the best of them found."""

from __future__ import annotations

import pytest

from benchmarks import joint
from device_agents.api import BenchmarkSpec, Conditions, Measurement, Verdict
from nas_edge.config import load_config
from nas_edge.joint.deployment import DeploymentSettings, with_deployments
from nas_edge.latency.source import Candidate
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.stages.context import final_spec, open_devices
from nas_edge.stages.deployed import deployed
from nas_edge.testing.problems import nested_space
from tests.support.agents import FunctionAgent

CONDITIONS = Conditions("device", "phone", "litert", "1", "cpu", 1, "2020-01-01T00:00:00")
CONFIG = load_config("smoke", flags={"joint.kind": "deployment", "device.timing_inputs": 0})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, BenchmarkSpec]]:
    """A device that is quickest with two threads and its delegate; what it is asked."""
    asked: list[tuple[bytes, BenchmarkSpec]] = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        asked.append((model, spec))
        ms = (3.0 if spec.delegate == "none" else 1.0) / spec.threads * (1 + len(model) / 1e6)
        return Measurement(Verdict.OK, samples_ms=(ms,) * 20, conditions=CONDITIONS)

    monkeypatch.setattr("nas_edge.stages.context.open_device", lambda address: FunctionAgent(measure))
    return asked


def test_each_design_is_measured_and_delivered_as_it_decides(asked: list[tuple[bytes, BenchmarkSpec]]) -> None:
    space = with_deployments(DeploymentSettings(), nested_space())
    chosen = {"deployment.threads": 2, "deployment.delegate": "none", "deployment.precision": "float32"}
    design = space.build(space.encode(chosen))
    network = design.needed_network()
    with open_devices(CONFIG) as device:
        latencies_ms = [
            device.submit(Candidate(one)).result(30).latency_ms for one in (design, space.build(space.encode({})))
        ]
        delivered = final_spec(deployed(CONFIG, design), device)
        plain = final_spec(CONFIG, device)
    settings = {(spec.threads, spec.delegate) for model, spec in asked if model == tflite_model(network, "float32")}
    assert settings == {(2, "none")}
    settings = {(spec.threads, spec.delegate) for model, spec in asked if model == tflite_model(network, "int8")}
    assert settings == {(1, "cpu")}
    assert latencies_ms[0] == pytest.approx(1.5, rel=0.05)
    assert latencies_ms[1] == pytest.approx(1.0, rel=0.05)
    assert (delivered.threads, delivered.delegate) == (2, "none")
    assert (plain.threads, plain.delegate) == (1, "cpu")


def test_the_best_deployment_is_found_without_trying_all(asked: list[tuple[bytes, BenchmarkSpec]]) -> None:
    found = joint.deployments(quick=True)
    assert found["pass"]
    assert found["measured_by_search"] < found["configurations"] == 8
    assert found["best"]["deployment.threads"] == 2
    assert found["best"]["deployment.delegate"] == "cpu"
