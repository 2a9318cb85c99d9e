from __future__ import annotations

import pytest

from device_agents.api import BenchmarkSpec
from device_agents.host import HostAgent
from device_agents.worker.litert_c import DELEGATE_OPERATOR, OPERATOR, Event, LiteRtError
from device_agents.worker.profile import summarize_runs
from tests.support import models


def op(tag: str, start_us: int, elapsed_us: int, node: int = 0, kind: int = OPERATOR) -> Event:
    return Event(tag, kind, start_us, elapsed_us, node)


def test_times_are_means_over_the_runs() -> None:
    runs = [
        [op("Invoke", 0, 100, kind=1), op("CONV_2D", 1, 30, 0), op("SOFTMAX", 31, 10, 1)],
        [op("Invoke", 200, 100, kind=1), op("CONV_2D", 201, 50, 0), op("SOFTMAX", 251, 10, 1)],
    ]
    conv, softmax = summarize_runs(runs, {0: "features"})
    assert conv == {"op": "CONV_2D", "name": "features", "mean_ms": 0.04, "share": pytest.approx(0.8)}
    assert softmax == {"op": "SOFTMAX", "name": "operator 1", "mean_ms": 0.01, "share": pytest.approx(0.2)}


def test_operators_inside_another_are_not_counted_twice() -> None:
    run = [
        op("WHILE", 0, 100),
        op("ADD", 10, 20),
        op("Kernel", 40, 5, kind=DELEGATE_OPERATOR),
        op("Kernel A", 100, 7, 0, DELEGATE_OPERATOR),
        op("Kernel B", 100, 3, 1, DELEGATE_OPERATOR),
    ]
    rows = summarize_runs([run], {})
    assert [(row["op"], row["mean_ms"]) for row in rows] == [("WHILE", 0.1), ("Kernel A", 0.007), ("Kernel B", 0.003)]
    assert rows[1]["name"] == "delegate operator 0"


@pytest.mark.parametrize("runs", [[[]], [[op("A", 0, 1)], [op("B", 0, 1)]], [[op("A", 0, 1)], []]])
def test_records_that_make_no_sense_are_refused(runs: list[list[Event]]) -> None:
    with pytest.raises(LiteRtError):
        summarize_runs(runs, {})


@pytest.mark.parametrize("delegate", ["cpu", "none"])
def test_every_convolution_gets_a_time(agent: HostAgent, spec: BenchmarkSpec, delegate: str) -> None:
    measurement = agent.measure(models.conv_model(), spec.replace(profile_ops=True, delegate=delegate))
    if not measurement.profile:  # another release of the runtime
        assert "does not tell" in measurement.profile_note
        return
    assert len(measurement.profile) == 4
    assert all("conv" in op.op.lower() and op.mean_ms > 0 for op in measurement.profile)
    assert sum(op.share for op in measurement.profile) == pytest.approx(1)
    if delegate == "none":
        assert [op.name for op in measurement.profile] == ["out0", "out1", "out2", "out3"]


def test_resized_and_open_inputs_are_profiled(agent: HostAgent, spec: BenchmarkSpec) -> None:
    cases = [
        (models.conv_model(), {"input": (2, 16, 16, 32)}),
        (models.binary_model(signature=(-1, 4)), {"a": (7, 4), "b": (7, 4)}),
        (models.binary_model(dtype=models.T.INT32), {}),
    ]
    for model, shapes in cases:
        measurement = agent.measure(model, spec.replace(profile_ops=True, input_shapes=shapes))
        assert measurement.profile or "does not tell" in measurement.profile_note


def test_string_inputs_have_no_profile_but_a_reason(agent: HostAgent, spec: BenchmarkSpec) -> None:
    measurement = agent.measure(models.string_model(), spec.replace(profile_ops=True))
    assert not measurement.profile
    assert measurement.profile_note
