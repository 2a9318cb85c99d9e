"""Rows of a result say whether their accuracies differ from the winner's."""

from __future__ import annotations

import numpy as np

from nas_edge.runs.example_scores import ExampleScores
from nas_edge.runs.paired_result import PairedResult
from nas_edge.runs.result import ResultRow
from nas_edge.stages.paired_tests import with_paired_tests
from nas_edge.tasks.classification import ACCURACY

ROWS = [ResultRow(name, name, None, {}, {}) for name in ("winner", "best of random", "reference")]
RIGHT, HALF = np.ones(12, bool), np.arange(12) < 6
SCORES = ExampleScores(
    "ab12",
    {
        ("winner", "int8"): RIGHT,
        ("winner", "float32"): RIGHT,
        ("best of random", "int8"): HALF,
        ("best of random", "float32"): RIGHT,
    },
)
SIX_OF_SIX = PairedResult("McNemar", 12, 2 / 64)
NONE = PairedResult("McNemar", 12, 1.0)


def test_each_row_is_compared_with_the_winner_and_its_files_with_each_other() -> None:
    winner, random, reference = with_paired_tests(ROWS, "int8", ACCURACY.paired_test, SCORES)
    assert (winner.accuracy_vs_winner, winner.quantized_vs_float) == (None, NONE)
    assert (random.accuracy_vs_winner, random.quantized_vs_float) == (SIX_OF_SIX, SIX_OF_SIX)
    assert (reference.accuracy_vs_winner, reference.quantized_vs_float) == (None, None), "it was not scored"


def test_the_delivered_precision_is_compared() -> None:
    # Its int8 file answers as that of the best of random, its float file as the other's.
    scores = ExampleScores("ab12", {**SCORES.scores, ("winner", "int8"): HALF})
    for precision in ("int8", "float32"):
        assert with_paired_tests(ROWS, precision, ACCURACY.paired_test, scores)[1].accuracy_vs_winner == NONE


def test_a_metric_without_a_test_says_nothing() -> None:
    assert with_paired_tests(ROWS, "int8", None, SCORES) == tuple(ROWS)
