"""The result says where winner, random and reference do not differ significantly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.report.comparison_sentences import comparison_sentences
from nas_edge.runs.paired_result import PairedResult
from nas_edge.runs.result import ResultRow, RunResult, with_intervals
from nas_edge.tasks.classification import ACCURACY
from tests.support.finished_runs import timed

# 353 and 356 of 359 images; 340 of them for a network that is worse.
WINNER, SIMILAR, WORSE = 353 / 359, 356 / 359, 340 / 359
FAILED = Measurement(Verdict.TIMEOUT, "slow")
FLAGGED = timed(1.21, Verdict.UNSTEADY, "other programs")


RANDOM = "the best of 180 random architectures"


def said(
    other: Measurement, accuracy: float | None = SIMILAR, p_value: float | None = None, count: int | None = 180
) -> str:
    """What is said of the best of random beside a winner of 1 ms."""
    tested = None if p_value is None else PairedResult("McNemar", 359, p_value)
    rows = (
        ResultRow("winner", "0", 0.5, {"int8": WINNER}, {"int8": timed(1.0)}),
        ResultRow(
            "best of random",
            "1",
            0.5,
            {} if accuracy is None else {"int8": accuracy},
            {"int8": other},
            accuracy_vs_winner=tested,
        ),
    )
    result = with_intervals(RunResult(1.5, "int8", True, rows, "phone", test_images=359), ACCURACY)
    (sentence,) = comparison_sentences(result, "accuracy", ".1%", count)
    return sentence


def test_a_faster_winner_that_is_not_more_accurate() -> None:
    assert said(timed(1.21), p_value=0.25) == (
        f"The winner is 1.21x as fast as {RANDOM} (1.000 vs. 1.210 ms); the difference in test "
        "accuracy (98.3% [96.4, 99.2] vs. 99.2% [97.6, 99.7]) is not significant (McNemar p = 0.25, 359 test examples)."
    )


@pytest.mark.parametrize(
    ("accuracy", "how"), [(WORSE, "higher (98.3% [96.4, 99.2] vs. 94.7% [91.9, 96.6];"), (1.0, "lower")]
)
def test_accuracies_that_differ(accuracy: float, how: str) -> None:
    sentence = said(timed(1.21), accuracy, 0.0002)
    assert f"; its test accuracy is significantly {how}" in sentence
    assert sentence.endswith("; McNemar p < 0.001, 359 test examples).")


def test_accuracies_that_were_not_tested_are_stated_and_no_more() -> None:
    sentence = said(timed(1.21))
    assert sentence.endswith("; test accuracy: 98.3% [96.4, 99.2] vs. 99.2% [97.6, 99.7].")
    assert "significant" not in sentence
    assert said(timed(1.21), None) == f"The winner is 1.21x as fast as {RANDOM} (1.000 vs. 1.210 ms)."


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (timed(0.8), f"The winner takes 1.25x as long as {RANDOM} (1.000 vs. 0.800 ms)"),
        (timed(1.001), f"The latencies of the winner and {RANDOM} do not differ significantly (1.000 vs."),
        (FLAGGED, f"Whether the winner is faster than {RANDOM} is not known (1.000 vs. 1.210 ms): unre"),
        (FAILED, f"Whether the winner is faster than {RANDOM} is not known: one of them could not be "),
    ],
    ids=["slower", "alike", "flagged", "failed"],
)
def test_latencies(other: Measurement, expected: str) -> None:
    assert said(other).startswith(expected)


def test_a_small_difference_that_is_one_keeps_its_digits() -> None:
    steady = Measurement(Verdict.OK, samples_ms=(1.0,) * 50)
    rows = [ResultRow(name, "0", None, {}, {"int8": steady}) for name in ("winner", "reference")]
    rows[1] = replace(rows[1], latency={"int8": replace(steady, samples_ms=(1.002,) * 50)})
    result = RunResult(1.5, "int8", True, tuple(rows), "phone")
    assert comparison_sentences(result, "accuracy", ".1%") == [
        "The winner is 1.0020x as fast as reference (1.000 vs. 1.002 ms)."
    ]


def test_it_is_named_without_its_number_where_that_is_not_known() -> None:
    assert "as fast as the best of the random architectures (" in said(timed(1.21), count=None)
