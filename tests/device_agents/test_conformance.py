"""Every agent that works without a device attached keeps what agents promise; Android's is in `android`."""

from __future__ import annotations

from pathlib import Path

from device_agents.api import BenchmarkSpec
from device_agents.devices import open_device
from device_agents.host import HostAgent
from device_agents.probe_models import compute_model
from device_agents.replay import model_key, write_recording
from device_agents.visiting import VisitingAgent
from nas_edge.testing import check_device_agent


def test_the_host_conforms() -> None:
    check_device_agent(lambda: open_device("host:"))


def test_a_recording_conforms(tmp_path: Path, agent: HostAgent, spec: BenchmarkSpec) -> None:
    model = compute_model()
    write_recording(tmp_path / "times.json", agent.info(), {model_key(model): agent.measure(model, spec)})
    check_device_agent(lambda: open_device(f"replay:{tmp_path / 'times.json'}"))


def test_a_visiting_agent_conforms() -> None:
    check_device_agent(lambda: VisitingAgent(HostAgent()))
