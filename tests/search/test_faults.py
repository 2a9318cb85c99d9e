"""A search stops when its measurements teach it nothing, whoever is blamed for that."""

from __future__ import annotations

import json

import pytest

from device_agents.api import Verdict
from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.search.faults import ALIKE_IN_A_ROW, UNUSABLE_IN_A_ROW, FaultWatch


def fault(verdict: Verdict, detail: str) -> LatencyAnswer:
    return LatencyAnswer.failed(LatencyKind.MEASURED, verdict, detail)


OK = LatencyAnswer.estimated(LatencyKind.LOOKED_UP, 1.0)


def test_a_bench_that_gives_nothing_usable_stops_the_search() -> None:
    watch = FaultWatch()
    for _ in range(UNUSABLE_IN_A_ROW - 1):
        watch.take(fault(Verdict.UNSTEADY, "noise"), "a phone")
    with pytest.raises(RunError, match=r"last 20 measurements on a phone cannot be used: unsteady, noise"):
        watch.take(fault(Verdict.UNSTEADY, "noise"), "a phone")


def test_candidates_that_all_fail_alike_stop_it_too() -> None:
    watch = FaultWatch()
    for number in range(ALIKE_IN_A_ROW - 1):
        watch.take(fault(Verdict.RUN_FAILED, f"no runs in {number} bytes"), "a phone")
    with pytest.raises(RunError, match=r"last 20 candidates failed in the same way on a phone: run_failed"):
        watch.take(fault(Verdict.RUN_FAILED, "no runs in 7 bytes"), "a phone")


def test_anything_else_in_between_starts_the_count_anew() -> None:
    for between in (OK, fault(Verdict.OUT_OF_MEMORY, "too large"), fault(Verdict.UNSTEADY, "noise")):
        watch = FaultWatch()
        for _ in range(3):
            for _ in range(ALIKE_IN_A_ROW - 1):
                watch.take(fault(Verdict.RUN_FAILED, "no runs"), "a phone")
            watch.take(between, "a phone")


def test_a_candidates_own_fault_does_not_speak_for_the_bench() -> None:
    watch = FaultWatch()
    for number in range(UNUSABLE_IN_A_ROW - 1):
        watch.take(fault(Verdict.UNSTEADY, "noise"), "a phone")
        if number % 5 == 0:
            watch.take(fault(Verdict.LOAD_FAILED, f"operator {'abc'[number % 3]}"), "a phone")
    with pytest.raises(RunError, match="cannot be used: unsteady"):
        watch.take(fault(Verdict.UNSTEADY, "noise"), "a phone")


@pytest.mark.parametrize("silent", [None, fault(Verdict.NOT_KNOWN, "the table has no latency of 0:1")])
def test_what_was_not_asked_for_or_is_in_no_table_says_nothing(silent: LatencyAnswer | None) -> None:
    watch = FaultWatch()
    for _ in range(UNUSABLE_IN_A_ROW - 1):
        watch.take(fault(Verdict.UNSTEADY, "noise"), "a phone")
    for _ in range(2 * UNUSABLE_IN_A_ROW):
        watch.take(silent, "a phone")
    with pytest.raises(RunError):
        watch.take(fault(Verdict.UNSTEADY, "noise"), "a phone")


def test_the_counts_outlive_a_checkpoint() -> None:
    watch = FaultWatch()
    for _ in range(ALIKE_IN_A_ROW - 1):
        watch.take(fault(Verdict.RUN_FAILED, "no runs"), "a phone")
    again = FaultWatch()
    again.restore(json.loads(json.dumps(watch.state())))
    with pytest.raises(RunError):
        again.take(fault(Verdict.RUN_FAILED, "no runs"), "a phone")
    FaultWatch().restore({"unusable": 3})  # as earlier versions wrote it
