"""`result.json`: written and read by one place, of every version, from anywhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.config import load_config
from nas_edge.errors import RunError
from nas_edge.hardware.gate import HardwareCheck, OperatorProblem
from nas_edge.latency.answer import LatencyKind
from nas_edge.resources import ResourceUse
from nas_edge.rewards import Objective
from nas_edge.runs.paired_result import PairedResult
from nas_edge.runs.reselect import Candidate
from nas_edge.runs.result import (
    LatencyEstimate,
    OnDeviceCheck,
    Outcome,
    ResourceResult,
    ResultRow,
    RunResult,
    read_result,
)
from nas_edge.runs.run import Run
from nas_edge.spaces.decisions import Architecture
from tests.support.measurements import MEASUREMENT

SIZE, ENERGY = ResourceUse(84_000.0, "measured", "the TFLite file"), ResourceUse(None, "measured", "no counters")
CHECK = OnDeviceCheck(4, True, "reference", 0.01, 1.0, 0.75)
WINNER = ResultRow(
    "winner",
    "2:0",
    0.6,
    {"int8": 0.7, "float32": 0.71},
    {"int8": MEASUREMENT},
    accuracy_interval={"int8": (0.67, 0.73), "float32": (0.68, 0.74)},
    quantized_vs_float=PairedResult("McNemar", 1000, 0.4),
    resources={"int8": {"file_size_bytes": SIZE, "energy_mj": ENERGY}},
)
RIVAL = ResultRow(
    "mobilenet-v2",
    "mobilenet-v2",
    None,
    {"int8": 0.6},
    {"int8": Measurement(Verdict.TIMEOUT, "slow")},
    accuracy_interval={"int8": (0.57, 0.63)},
    accuracy_vs_winner=PairedResult("McNemar", 1000, 0.001),
)
DELIVERED = RunResult(
    target_ms=4.0,
    precision="int8",
    hard_limit=True,
    rows=(WINNER, RIVAL),
    device="a phone",
    latency_estimate=LatencyEstimate("a predictor", 3.5, LatencyKind.PREDICTED),
    on_device_check={"int8": CHECK, "float32": OnDeviceCheck(4, problem="no such operator")},
    test_images=1000,
    hardware_check=HardwareCheck("edgetpu", 60, (), (OperatorProblem("se.multiply", "MUL", "gates an image"),)),
    front=(Candidate(Architecture((1, 0)), 0.5, 2.5, 1, True), Candidate(Architecture((2, 0)), 0.6, 3.5, 3, True)),
    resources=(
        ResourceResult(Objective("file_size_bytes", 90_000.0, limit=True), SIZE),
        ResourceResult(Objective("energy_mj", 2.0), ENERGY),
    ),
)
FOUND = RunResult(
    target_ms=4.0,
    precision="int8",
    hard_limit=False,
    rows=(ResultRow("winner", "2:0", 93.1, {}, {}, 5.0),),
    device=None,
    latency_estimate=LatencyEstimate("column 'ms'", 5.0),
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with Run.create(tmp_path / "run", load_config("smoke")) as run:
        return run


def through_json(result: RunResult) -> Any:
    return json.loads(json.dumps(result.to_json(), allow_nan=False))


@pytest.mark.parametrize("result", [DELIVERED, FOUND])
def test_a_result_comes_back(run: Run, result: RunResult) -> None:
    assert read_result(run) is None
    run.write_json("result.json", result.to_json())
    assert read_result(run) == result
    assert through_json(result)["schema_version"] == 2


def test_intervals_and_tests_are_data() -> None:
    winner, rival = through_json(DELIVERED)["rows"]
    assert winner["accuracy_interval"] == {"int8": [0.67, 0.73], "float32": [0.68, 0.74]}
    assert (winner["accuracy_vs_winner"], winner["latency_differs"]) == (None, None)
    assert winner["quantized_vs_float"] == {"test": "McNemar", "examples": 1000, "p_value": 0.4}
    assert rival["accuracy_vs_winner"] == {"test": "McNemar", "examples": 1000, "p_value": 0.001}
    assert DELIVERED.comparisons() == [
        {
            "network": "mobilenet-v2",
            "accuracy": 0.6,
            "accuracy_interval": (0.57, 0.63),
            "accuracy_vs_winner": {"test": "McNemar", "examples": 1000, "p_value": 0.001},
            "latency_ms": None,
            "latency_differs": None,
        }
    ]


def test_an_earlier_result_gets_intervals_where_its_images_were_counted_and_says_nothing_of_tests(run: Run) -> None:
    content = DELIVERED.to_json()
    for row in content["rows"]:
        for later in ("accuracy_interval", "accuracy_vs_winner", "quantized_vs_float", "latency_differs"):
            del row[later]
    run.write_json("result.json", content)
    result = read_result(run)
    assert result is not None
    assert result.winner.accuracy_text("int8", ".1%") == "70.0% [67.1, 72.8]"
    assert result.winner.accuracy_text("int4", ".1%") == "-"
    assert [(row.accuracy_vs_winner, row.quantized_vs_float) for row in result.rows] == [(None, None)] * 2
    run.write_json("result.json", {**content, "test_images": None})
    result = read_result(run)
    assert result is not None
    assert result.winner.accuracy_text("int8", ".1%") == "70.0%"


def test_what_is_delivered_is_what_was_measured() -> None:
    assert DELIVERED.winner is WINNER
    assert DELIVERED.measurement == MEASUREMENT
    assert DELIVERED.latency_ms == 2.0, "of the device, not of what the search went by"
    assert DELIVERED.outcome is Outcome.UNKNOWN, "three samples have no interval"
    assert not DELIVERED.meets_limit
    assert RIVAL.best_ms("int8") is None
    assert RIVAL.best_ms("float32") is None


def test_what_is_found_takes_as_long_as_the_search_was_told() -> None:
    assert FOUND.measurement is None
    assert FOUND.latency_ms == 5.0
    assert not FOUND.meets_target
    assert FOUND.meets_limit, "its target is no limit"


@pytest.mark.parametrize("judged", [None, {"source": "table a", "latency_ms": 3.5}])
def test_a_result_of_the_first_schema_is_read(run: Run, judged: dict[str, Any] | None) -> None:
    content = through_json(DELIVERED)
    for name in ("schema_version", "latency_estimate", "test_images", "on_device_check"):
        del content[name]
    for row in content["rows"]:
        del row["estimate_ms"]
    run.write_json("result.json", {**content, "judged": judged})
    result = read_result(run)
    assert result is not None
    assert result.rows == DELIVERED.rows
    assert (result.test_images, result.on_device_check) == (None, {})
    expected = None if judged is None else LatencyEstimate("table a", 3.5, LatencyKind.LOOKED_UP)
    assert result.latency_estimate == expected
    assert RunResult.from_json(through_json(result)) == result


def setting(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


HOSTILE = [
    setting("schema_version", value=3),
    setting("schema_version", value="2"),
    setting("target_ms", value="fast"),
    setting("target_ms", value=-1),
    setting("target_ms", value=float("1e300")),
    setting("rows", value=[]),
    setting("rows", value=3),
    setting("rows", value=[3]),
    setting("rows", 0, "accuracy", "int8", value=1.5),
    setting("rows", 0, "accuracy_interval", "int8", value=[0.1, 0.2]),
    setting("rows", 0, "accuracy_interval", "int8", value=[0.7]),
    setting("rows", 0, "accuracy_interval", "int4", value=[0.1, 0.2]),
    setting("rows", 1, "accuracy_vs_winner", value={"test": "McNemar", "examples": 1000}),
    setting("rows", 0, "accuracy", value=[0.7]),
    setting("rows", 0, "quality", value="good"),
    setting("rows", 0, "latency", "int8", value=3),
    setting("rows", 0, "latency", "int8", "verdict", value="splendid"),
    setting("rows", 0, "latency", "int8", "samples_ms", value=[-1]),
    setting("rows", 0, "estimate_ms", value=-1),
    setting("latency_estimate", value=3),
    setting("latency_estimate", "kind", value="guessed"),
    setting("latency_estimate", "latency_ms", value="x"),
    setting("on_device_check", value=["int8"]),
    setting("on_device_check", "int8", "same_answer", value=2),
    setting("test_images", value=-1),
    lambda content: content.pop("rows"),
    lambda content: content.pop("device"),
    lambda content: content["rows"][0].pop("name"),
    lambda content: content["on_device_check"]["int8"].pop("problem"),
]


@pytest.mark.parametrize("change", HOSTILE)
def test_whatever_is_in_the_file_it_is_one_line_with_its_name(run: Run, change: Callable[[Any], object]) -> None:
    content = copy.deepcopy(through_json(DELIVERED))
    change(content)
    run.path("result.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"result\.json is damaged") as refusal:
        read_result(run)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("content", ["", "[]", "3", "null", "{", "\x00", '{"rows": NaN}', "[" * 100_000])
def test_what_is_no_object_is_damaged(run: Run, content: str) -> None:
    run.path("result.json").write_text(content)
    with pytest.raises(RunError, match=r"result\.json"):
        read_result(run)
