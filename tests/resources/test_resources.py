"""What networks use beside time: how each is known, and what is said where it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_agents.api import Measurement
from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.quality.source import FunctionQuality, Quality
from nas_edge.resources import COMPUTED, MEASURED, RESOURCES, Used, other_uses
from nas_edge.rewards import REWARDS, Objective
from nas_edge.search.evaluation import Evaluator
from nas_edge.spaces.decisions import Architecture
from tests.support.sources import FunctionSource, timed
from tests.support.spaces import tiny_space

SPACE = tiny_space()
FIRST = SPACE.canonical(Architecture((0,) * len(SPACE.decisions)))
NETWORK = SPACE.decode(FIRST)
TOLD = replace(timed(3.0), peak_memory_bytes=50_000, energy_mj=1.5, energy_note="of the package")


def used(measurement: Measurement | None = TOLD, file: bytes | None = None) -> Used:
    answer = None if measurement is None else LatencyAnswer.measured(measurement)
    return Used(NETWORK, "int8", answer, made=file)


def test_each_says_how_it_is_known() -> None:
    uses = other_uses(used())
    assert all(use.kind == RESOURCES[name].kind for name, use in uses.items())
    assert set(uses) == {name for name, resource in RESOURCES.items() if resource.of_networks} - {"latency_ms"}
    known = {name: (use.value, use.kind) for name, use in uses.items()}
    assert known["file_size_bytes"] == (len(tflite_model(NETWORK, "int8")), MEASURED)
    assert known["resident_memory_bytes"] == (50_000, MEASURED)
    assert known["energy_mj"] == (1.5, MEASURED)
    assert uses["energy_mj"].note == "of the package"
    assert {known[name][1] for name in ("macs", "parameters", "peak_memory_bytes")} == {COMPUTED}
    predicted = Used(NETWORK, "int8", LatencyAnswer.estimated(LatencyKind.PREDICTED, 2.0))
    use = RESOURCES["latency_ms"].use(predicted)
    assert (use.value, use.kind) == (2.0, "predicted")


def test_of_a_delivered_file_it_is_that_files_size() -> None:
    assert RESOURCES["file_size_bytes"].use(used(file=b"x" * 77)).value == 77


def test_what_is_not_told_has_a_reason_and_no_number() -> None:
    bare = other_uses(used(timed(3.0)))
    assert str(bare["resident_memory_bytes"]).startswith("not available: the device does not report")
    assert str(bare["energy_mj"]) == "not available: it was not requested (device.energy)"
    refused = replace(timed(3.0), energy_note="/sys/x: Permission denied")
    assert str(other_uses(used(refused))["energy_mj"]) == "not available: /sys/x: Permission denied"
    assert str(other_uses(used(None))["energy_mj"]) == "not available: nothing was measured"
    assert other_uses(used(replace(TOLD, peak_memory_bytes=0)))["resident_memory_bytes"].value == 4096


def test_on_several_devices_the_most_counts_and_all_have_to_tell() -> None:
    other = replace(TOLD, energy_mj=4.0)
    answer = replace(LatencyAnswer.measured(TOLD), parts=tuple(map(LatencyAnswer.measured, (TOLD, other))))
    assert RESOURCES["energy_mj"].use(Used(NETWORK, "int8", answer)).value == 4.0
    silent = replace(answer, parts=tuple(map(LatencyAnswer.measured, (other, timed(3.0)))))
    assert RESOURCES["energy_mj"].use(Used(NETWORK, "int8", silent)).value is None


@pytest.mark.parametrize(("name", "value", "shown"), [("file_size_bytes", 1e6, "1,000,000 bytes"), ("macs", 7.0, "7")])
def test_values_have_their_unit(name: str, value: float, shown: str) -> None:
    assert RESOURCES[name].text(value) == shown
    assert RESOURCES["energy_mj"].text(0.12345) == "0.1235 mJ"


def evaluator(measurement: Measurement, *objectives: Objective) -> Evaluator:
    quality = FunctionQuality("a function", lambda candidate: Quality(0.5))
    source = FunctionSource(lambda candidate: measurement)
    return Evaluator(SPACE, quality, source, objectives, REWARDS["absolute"], precision="int8")


def test_candidates_are_rewarded_by_what_was_measured() -> None:
    limit = Objective("energy_mj", 1.0, -0.2, limit=True)
    trial = evaluator(TOLD, Objective("resident_memory_bytes", 50_000), limit).evaluate(FIRST, 0)
    assert trial.usage == {"resident_memory_bytes": 50_000, "energy_mj": 1.5}
    assert trial.reward == pytest.approx(0.5 - 0.2 * 0.5)
    assert not limit.allows(trial.usage)


def test_a_candidate_without_a_value_ends_the_search_with_the_reason() -> None:
    silent = replace(TOLD, energy_mj=None, energy_note="the phone does not run on its battery")
    with pytest.raises(RunError, match="energy_mj of a candidate is not available: the phone does not run on its"):
        evaluator(silent, Objective("energy_mj", 1.0)).evaluate(FIRST, 0)
