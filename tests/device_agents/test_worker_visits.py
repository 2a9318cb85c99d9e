"""Visits by the real worker and the real runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from device_agents.api import BenchmarkSpec, Verdict
from device_agents.errors import SpecError
from device_agents.host import HostAgent
from device_agents.probe_models import PROBE_MODELS
from device_agents.quiet import VisitSettings
from device_agents.worker.visits import MAX_LOADED_MODELS
from tests.support import models

SPEC = VisitSettings().of_visit(BenchmarkSpec()).replace(min_duration_s=0.0, max_duration_s=1e-6)


@pytest.fixture(scope="module")
def agent() -> Iterator[HostAgent]:
    with HostAgent() as opened:
        yield opened


def test_every_probe_runs_and_each_visit_has_its_runs(agent: HostAgent) -> None:
    requests = [(model(), SPEC) for model in PROBE_MODELS.values()]
    found = agent.measure_all(requests * 2)
    assert [one.verdict for one in found] == [Verdict.OK] * 6
    assert all(len(one.samples_ms) >= 3 for one in found)
    assert all(one.conditions is not None and one.conditions.runtime for one in found)


def test_a_model_is_loaded_at_its_first_visit_only(agent: HostAgent) -> None:
    model = models.conv_model(layers=1, channels=3, side=5)
    first, second = agent.measure_all([(model, SPEC.replace(delegate="none"))] * 2)
    again = agent.measure_all([(model, SPEC.replace(delegate="none"))])[0]
    assert first.init_ms is not None
    assert first.first_inference_ms is not None
    assert (second.init_ms, again.init_ms) == (None, None)
    assert first.peak_memory_bytes == second.peak_memory_bytes == again.peak_memory_bytes
    other = agent.measure_all([(model, SPEC.replace(threads=2, delegate="none"))])[0]
    assert other.init_ms is not None  # other settings, another interpreter


def test_a_broken_file_is_its_own_fault_and_the_others_are_visited(agent: HostAgent) -> None:
    good = PROBE_MODELS["cache"]()
    found = agent.measure_all([(good, SPEC), (good[:200], SPEC), (good, SPEC)])
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.LOAD_FAILED, Verdict.OK]


def test_a_model_that_ends_the_worker_is_blamed_and_no_other(agent: HostAgent) -> None:
    good = PROBE_MODELS["cache"]()
    hungry = SPEC.replace(memory_limit_bytes=1)
    found = agent.measure_all([(good, SPEC), (PROBE_MODELS["memory"]() + b"unseen", hungry), (good, SPEC)])
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OUT_OF_MEMORY, Verdict.OK]


def test_a_worker_that_dies_between_visits_is_replaced(agent: HostAgent) -> None:
    request = (PROBE_MODELS["cache"](), SPEC)
    assert agent.measure_all([request])[0].ok
    assert agent._worker is not None
    agent._worker.channel.kill()
    found = agent.measure_all([request])[0]
    assert found.samples_ms
    assert found.init_ms is not None


def test_what_is_no_longer_visited_is_unloaded(agent: HostAgent) -> None:
    model = PROBE_MODELS["cache"]()
    for number in range(MAX_LOADED_MODELS + 2):
        # Another file each time: the runtime does not read what follows the model.
        assert agent.measure_all([(model + bytes([number]) * 16, SPEC)])[0].ok
    assert len(agent._loaded) <= MAX_LOADED_MODELS


def test_cores_that_are_not_there_are_the_callers_mistake(agent: HostAgent) -> None:
    with pytest.raises(SpecError, match="4000"):
        agent.measure_all([(PROBE_MODELS["cache"](), SPEC.replace(cores=(4000,)))])
