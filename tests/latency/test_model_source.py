"""`model:FILE` as a latency source: what it answers is predicted, and it stands in for one device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from device_agents.api import BenchmarkSpec, Verdict
from nas_edge.errors import ConfigError, RunError
from nas_edge.latency import LATENCY_SOURCES, LatencyContext, open_latency_source
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.model_file import ModelFile, Provenance, SpaceRecord, measuring_of
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.models.operators import OperatorTable
from nas_edge.latency.source import Candidate
from nas_edge.latency.table import Term
from nas_edge.networks.graph import GraphBuilder
from nas_edge.networks.primitives.conv import Conv2D
from nas_edge.spaces.design import Design
from nas_edge.testing import check_latency_source
from tests.support.agents import FunctionAgent, fake_info
from tests.support.candidates import SPACE, candidate
from tests.support.devices import measure_file, observations

SPEC = BenchmarkSpec()


def model_file(folder: Path, kind: str = "operators") -> str:
    info = fake_info()
    table = OperatorTable.fit(observations(SPACE, 30))
    decisions = DecisionModel(bias_ms=1.0, terms=(Term({"stem.kernel": "k5"}, 0.5),), error=0.01)
    model = table if kind == "operators" else decisions
    assert model is not None
    provenance = Provenance(
        source="fit",
        device=info.model,
        fingerprint=info.fingerprint,
        runtime=f"{info.runtime} {info.runtime_version}",
        precision="int8",
        measuring=measuring_of(SPEC),
        space=SpaceRecord.of(SPACE),
    )
    path = folder / f"{kind}.latency.json"
    path.write_text(ModelFile(provenance=provenance, model=model, half_width=2.0).to_text())
    return str(path)


def opened(text: str, device: DeviceSource | None = None):  # type: ignore[no-untyped-def]
    settings = LATENCY_SOURCES.settings(f"model:{text}")
    return open_latency_source(settings, LatencyContext(SPACE, "int8", device))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["operators", "decisions"])
def test_it_keeps_what_sources_promise(tmp_path: Path, kind: str) -> None:
    file = model_file(tmp_path, kind)
    check_latency_source(lambda: opened(file), SPACE)


def test_an_answer_is_predicted_with_an_interval(tmp_path: Path) -> None:
    with opened(model_file(tmp_path)) as source:
        answer = source.submit(candidate(0)).result()
    assert answer.kind is LatencyKind.PREDICTED
    assert answer.measurement is None
    low_ms, high_ms = answer.interval_ms
    assert 0 < low_ms < answer.latency_ms < high_ms


def test_a_model_of_operators_knows_networks_of_no_space_and_one_of_decisions_does_not(tmp_path: Path) -> None:
    builder = GraphBuilder((8, 8, 3))
    builder.add("conv", Conv2D(8, 3, 2), "input")
    outside = Candidate(Design(builder.build()))
    with opened(model_file(tmp_path)) as source:
        assert source.submit(outside).result().kind is LatencyKind.PREDICTED
    with opened(model_file(tmp_path, "decisions")) as source, pytest.raises(RunError, match="of its space only"):
        source.submit(outside).result()


def test_its_name_changes_with_what_it_predicts(tmp_path: Path) -> None:
    file = model_file(tmp_path, "decisions")
    with opened(file) as source:
        name = source.name
    assert name.startswith("model decisions.latency.json (sha256 ")
    path = Path(file)
    path.write_text(path.read_text().replace('"ms": 0.5', '"ms": 0.6'))
    with opened(file) as source:
        assert source.name != name


def test_it_stands_in_for_the_device_it_is_of_and_no_other(tmp_path: Path) -> None:
    file = model_file(tmp_path)
    with DeviceSource([FunctionAgent(measure_file)], "int8", SPEC) as device, opened(file, device) as source:
        assert source.submit(candidate(0)).result().verdict is Verdict.OK
    other = FunctionAgent(measure_file, replace(fake_info(), model="another phone"))
    with (
        DeviceSource([other], "int8", SPEC) as device,
        pytest.raises(ConfigError, match="is of another device; expected device another phone, received device phone"),
    ):
        opened(file, device)
