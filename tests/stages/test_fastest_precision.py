"""The precision that an export chooses: the fastest of those that keep the budget and that the hardware runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from device_agents.api import Measurement, MeasureRequest, Verdict
from nas_edge.config import load_config
from nas_edge.errors import ExportError
from nas_edge.networks.precisions import PRECISIONS
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.progress import Reporter
from nas_edge.stages.fastest_precision import TriedPrecision, fastest_precision
from nas_edge.tasks.classification import ACCURACY
from nas_edge.testing.trainings import small_network
from tests.support.measurements import MEASUREMENT

NETWORK = small_network()
FILES = {precision: tflite_model(NETWORK, precision) for precision in PRECISIONS}
QUALITY = dict.fromkeys(PRECISIONS, 0.9) | {"int8": 0.85}
NOT_MEASURED = replace(MEASUREMENT, samples_ms=(), verdict=Verdict.TIMEOUT)
TIMES_MS = {"int8": 1.0, "int8-float-io": 2.0, "int16x8": 9.0, "float16": 3.0, "dynamic": 4.0, "float32": 5.0}


def choose(
    times_ms: dict[str, float | None] = TIMES_MS, missing: str = "", **export: Any
) -> tuple[TriedPrecision, ...]:  # type: ignore[assignment] # floats are fine
    """What is chosen where a stand-in for a device answers `times_ms`."""
    names = {file: precision for precision, file in FILES.items()}

    def make(precision: str) -> bytes:
        if precision == missing:
            raise ExportError("there is no such kernel")
        return FILES[precision]

    def measure(requests: Sequence[MeasureRequest]) -> Sequence[Measurement]:
        found = [times_ms[names[file]] for file, _ in requests]
        return [
            replace(
                MEASUREMENT, samples_ms=() if ms is None else (ms,) * 3, verdict=Verdict.OK if ms else Verdict.TIMEOUT
            )
            for ms in found
        ]

    flags = {f"export.{name}": value for name, value in export.items()}
    config = load_config("smoke", flags=flags)
    agent = SimpleNamespace(info=lambda: SimpleNamespace(measures_on_host=False))
    device: Any = SimpleNamespace(spec=config.measure.spec(config.device), agent=agent)
    reporter = Reporter(Console(file=io.StringIO()))
    quality = {FILES[precision]: value for precision, value in QUALITY.items()}.__getitem__
    return fastest_precision(config, ACCURACY, device, make, quality, reporter, measure)


def test_the_fastest_that_keeps_the_budget_is_chosen() -> None:
    first, *others = choose()
    assert (first.precision, first.latency_ms, first.why_not) == ("int8-float-io", 2.0, "")
    assert first.size_bytes == len(FILES["int8-float-io"])
    why = {one.precision: one.why_not for one in others}
    assert why["int8"] == "costs more than the budget of 1.00%"
    assert why["float32"] == "slower"
    assert len(why) == len(PRECISIONS) - 1
    assert choose(accuracy_budget=0.06)[0].precision == "int8"


def test_what_cannot_be_made_run_or_measured_is_left_out_with_the_reason() -> None:
    found = choose(missing="int8-float-io")
    assert found[0].precision == "float16"
    assert {one.precision: one.why_not for one in found}["int8-float-io"] == "there is no such kernel"
    assert choose({**TIMES_MS, "int8-float-io": None})[0].precision == "float16"
    on_edgetpu = choose(hardware="edgetpu", accuracy_budget=0.06)
    assert on_edgetpu[0].precision == "int8"
    assert {one.precision for one in on_edgetpu if one.latency_ms is not None} == {"int8"}


def test_where_nothing_can_be_measured_it_is_said() -> None:
    with pytest.raises(ExportError, match=r"no precision could be chosen: float32: accuracy 90.00%, - ms"):
        choose(dict.fromkeys(PRECISIONS))
