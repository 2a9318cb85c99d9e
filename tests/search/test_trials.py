"""What is kept of an evaluated architecture."""

from __future__ import annotations

import json

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer, LatencyKind
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture

ARCHITECTURE = Architecture((0, 2, 1))
MEASUREMENT = Measurement(Verdict.CONTENDED, "other programs", samples_ms=(3.0, 4.0, 5.0))
MEASURED = LatencyAnswer.measured(MEASUREMENT)
LOOKED_UP = LatencyAnswer.estimated(LatencyKind.LOOKED_UP, 2.0)
ADJUSTED = AdjustedLatency(3.5, (3.0, 4.0), Verdict.CORRECTED)
FULL = Trial(3, 5, ARCHITECTURE, 0.75, MEASURED, {"latency_ms": 3.5, "macs": 1e6}, -0.25, ADJUSTED)
BARE = Trial(3, 5, ARCHITECTURE, None, None, None, None)


@pytest.mark.parametrize("trial", [FULL, BARE, Trial(0, 0, ARCHITECTURE, 0.5, LOOKED_UP, {}, 0.5)])
def test_a_trial_survives_json(trial: Trial) -> None:
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_an_adjusted_latency_stands_for_the_one_that_was_measured() -> None:
    assert (FULL.verdict, FULL.latency_ms, FULL.measurement) == (Verdict.CORRECTED, 3.5, MEASUREMENT)
    taken_as_it_is = Trial(0, 0, ARCHITECTURE, 0.5, MEASURED, None, None)
    assert (taken_as_it_is.verdict, taken_as_it_is.latency_ms) == (Verdict.CONTENDED, None)


def test_what_no_device_gave_has_a_latency_and_no_measurement() -> None:
    trial = Trial(0, 0, ARCHITECTURE, 0.5, LOOKED_UP, None, None)
    assert (trial.verdict, trial.latency_ms, trial.measurement) == (Verdict.OK, 2.0, None)
    assert (BARE.verdict, BARE.latency_ms, BARE.measurement) == (None, None, None)
