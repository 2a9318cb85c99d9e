"""Whether the delivered files' accuracies differ on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nas_edge.runs.example_scores import ExampleScores
from nas_edge.runs.paired_result import compare_scores
from nas_edge.runs.result import ResultRow
from nas_edge.tasks.base import PairedTest


def with_paired_tests(
    rows: Sequence[ResultRow], precision: str, test: PairedTest | None, scores: ExampleScores
) -> tuple[ResultRow, ...]:
    """The rows of a result, each with what the paired test says of it.

    Args:
        rows: the winner first.
        precision: what is delivered.
        test: of the task's metric.
        scores: of the rows' files.
    """
    winner = scores.of(rows[0].name, precision)
    return tuple(
        replace(
            row,
            accuracy_vs_winner=None if row is rows[0] else compare_scores(test, winner, scores.of(row.name, precision)),
            quantized_vs_float=None
            if precision == "float32"
            else compare_scores(test, scores.of(row.name, precision), scores.of(row.name, "float32")),
        )
        for row in rows
    )
