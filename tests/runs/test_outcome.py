"""Whether a target was met: known only where the whole interval says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from device_agents.api import Measurement, QuietLatency, Verdict, Visit
from nas_edge.cli.base import check_limit
from nas_edge.errors import NasEdgeError
from nas_edge.latency.answer import LatencyKind
from nas_edge.report import result_text
from nas_edge.resources import ResourceUse
from nas_edge.rewards import Objective
from nas_edge.runs.result import LatencyEstimate, Outcome, ResourceResult, ResultRow, RunResult
from nas_edge.tasks.classification import ACCURACY

RUN, METRIC = Path("runs/one"), ACCURACY


def measured(low_ms: float, high_ms: float, verdict: Verdict = Verdict.OK) -> Measurement:
    """One whose median's interval has these ends, and whose median is in the middle of them."""
    return Measurement(verdict, "" if verdict is Verdict.OK else "noise", samples_ms=(low_ms,) * 10 + (high_ms,) * 10)


def visited(low_ms: float, high_ms: float, observed_ms: float, verdict: Verdict = Verdict.OK) -> Measurement:
    """One whose quiet latency has this interval, while half of its runs took `observed_ms`."""
    quiet = QuietLatency((low_ms + high_ms) / 2, (low_ms, high_ms), 3)
    samples_ms = (low_ms, *[observed_ms] * 8)
    return Measurement(verdict, "noise", samples_ms=samples_ms, visits=(Visit(9, 1, 0.0),), quiet=quiet)


def result(measurement: Measurement | None, hard: bool = True) -> RunResult:
    latency = {} if measurement is None else {"int8": measurement}
    return RunResult(1.0, "int8", hard, (ResultRow("winner", "0", 0.5, {}, latency),), "phone")


def estimated(latency_ms: float | None, interval_ms: tuple[float, float] | None = None) -> RunResult:
    row = ResultRow("winner", "0:1", 0.5, {}, {}, latency_ms)
    estimate = LatencyEstimate("column ms of t.csv", latency_ms, LatencyKind.LOOKED_UP, interval_ms)
    return RunResult(1.0, "int8", True, (row,), None, estimate)


def limited(value: float | None, target: float, limit: bool = True, hard: bool = True) -> RunResult:
    """A result that meets its latency, with something asked of the size of its file."""
    use = ResourceUse(value, "measured", "no file" if value is None else "")
    asked = ResourceResult(Objective("file_size_bytes", target, limit=limit), use)
    return replace(result(measured(0.8, 0.9), hard), resources=(asked,))


CASES = [
    (limited(1000.0, 1000.0), Outcome.MET, 0),
    (limited(1001.0, 1000.0), Outcome.MISSED, 3),
    (limited(1001.0, 1000.0, hard=False), Outcome.MISSED, 3),
    (limited(1001.0, 1000.0, limit=False), Outcome.MET, 0),
    (result(measured(0.8, 0.9)), Outcome.MET, 0),
    (result(measured(0.8, 1.0)), Outcome.MET, 0),
    (result(measured(1.1, 1.2)), Outcome.MISSED, 3),
    (result(measured(0.9, 1.05)), Outcome.UNKNOWN, 4),
    (result(measured(0.95, 1.2)), Outcome.UNKNOWN, 4),
    *((result(measured(0.1, 0.2, flag)), Outcome.UNKNOWN, 4) for flag in (Verdict.UNSTEADY, Verdict.DRIFTED)),
    (result(measured(1.1, 1.2, Verdict.THROTTLED)), Outcome.UNKNOWN, 4),
    (result(Measurement(Verdict.OK, samples_ms=(0.5,) * 5)), Outcome.UNKNOWN, 4),
    (result(Measurement(Verdict.DEVICE_LOST, "gone")), Outcome.UNKNOWN, 4),
    (result(None), Outcome.UNKNOWN, 4),
    (result(visited(0.8, 0.9, 0.95)), Outcome.MET, 0),
    (result(visited(0.8, 0.9, 1.5)), Outcome.MET, 0),
    (result(visited(0.9, 1.05, 0.95)), Outcome.UNKNOWN, 4),
    (result(visited(1.1, 1.2, 0.9)), Outcome.MISSED, 3),
    (result(visited(0.8, 0.9, 1.5, Verdict.CORRECTED)), Outcome.MET, 0),
    (result(visited(0.9, 1.05, 1.5, Verdict.CORRECTED)), Outcome.UNKNOWN, 4),
    (result(visited(0.1, 0.2, 0.3, Verdict.CONTENDED)), Outcome.UNKNOWN, 4),
    (result(measured(1.1, 1.2), hard=False), Outcome.MISSED, 0),
    (result(measured(0.9, 1.2), hard=False), Outcome.UNKNOWN, 0),
    (estimated(0.99), Outcome.MET, 0),
    (estimated(1.01), Outcome.MISSED, 3),
    (estimated(0.9, (0.8, 1.1)), Outcome.UNKNOWN, 4),
    (estimated(0.9, (0.8, 0.95)), Outcome.MET, 0),
    (estimated(None), Outcome.UNKNOWN, 4),
]


@pytest.mark.parametrize(("found", "outcome", "code"), CASES)
def test_outcome_and_exit_code(found: RunResult, outcome: Outcome, code: int) -> None:
    assert found.outcome is outcome
    written = found.to_json()
    assert (written["outcome"], written["meets_target"]) == (outcome.value, outcome is Outcome.MET)
    assert RunResult.from_json(written).outcome is outcome
    shown = result_text.table(found, RUN, METRIC)
    assert ("not known whether" in shown) == (outcome is Outcome.UNKNOWN)
    if code == 0:
        check_limit(found)
    else:
        with pytest.raises(NasEdgeError) as ended:
            check_limit(found)
        assert ended.value.exit_code == code
        assert str(ended.value) not in shown, "the same line is not printed twice"


def test_a_limit_that_is_met_only_where_nothing_disturbs_comes_with_a_warning() -> None:
    """The quiet latency decides, and the page, the table and the file say what was observed."""
    for found, warned in (
        (result(visited(0.8, 0.9, 1.5)), True),
        (result(visited(0.8, 0.9, 0.95)), False),
        (result(visited(1.1, 1.2, 1.5)), False),
        (result(measured(0.8, 0.9)), False),
        (estimated(0.9), False),
    ):
        expected = "half of the runs took 1.500 ms or more, because other programs were busy" if warned else ""
        assert found.warning.endswith(expected) if warned else found.warning == ""
        assert found.to_json()["warning"] == found.warning
        assert (f"warning: {found.warning}" in result_text.table(found, RUN, METRIC)) == warned
    written = result(visited(0.8, 0.9, 1.5)).to_json()
    assert (written["latency_ms"], written["observed_ms"]) == (pytest.approx(0.85), 1.5)
    assert "winner, int8: observed 1.500 ms, p90 1.500 ms" in result_text.table(
        result(visited(0.8, 0.9, 1.5)), RUN, METRIC
    )


def test_what_an_earlier_version_wrote_is_looked_at_again() -> None:
    """It counted an unsteady latency below the limit as met."""
    written = result(measured(0.1, 0.2, Verdict.UNSTEADY)).to_json()
    del written["outcome"]
    assert RunResult.from_json({**written, "meets_target": True}).outcome is Outcome.UNKNOWN


def test_a_measurement_that_leaves_it_open_can_be_made_again() -> None:
    open_ = result_text.answer(result(measured(0.9, 1.05)), RUN, Path("elsewhere"))
    assert "0.9750 ms (95% interval 0.9000 to 1.050 ms), so it is not known whether it is within 1.000 ms" in open_
    assert "bundle: elsewhere\nmeasure again on a quiet device: nas-edge export runs/one --out FOLDER" in open_
    assert "export" not in result_text.answer(result(measured(1.1, 1.2)), RUN, Path("elsewhere"))


def test_what_is_asked_of_other_resources_is_said_with_what_came_of_it() -> None:
    missed, unknown = limited(1001.0, 1000.0), limited(None, 1000.0)
    assert "int8 file_size_bytes: 1,001 bytes (measured), at most 1,000 bytes: missed" in table_of(missed)
    assert result_text.limit_line(missed) == "the hard limit of 1,000 bytes (file_size_bytes) is missed"
    assert unknown.outcome is Outcome.UNKNOWN
    assert "int8 file_size_bytes: not available: no file, at most 1,000 bytes: unknown" in table_of(unknown)
    assert result_text.limit_line(unknown).startswith("whether the hard limit of 1,000 bytes (file_size_bytes) is met")
    late = replace(missed, rows=result(measured(1.1, 1.2)).rows)
    assert result_text.limit_line(late) == "the hard limit of 1.000 ms and 1,000 bytes (file_size_bytes) is missed"


def table_of(found: RunResult) -> str:
    return result_text.table(found, RUN, METRIC)
