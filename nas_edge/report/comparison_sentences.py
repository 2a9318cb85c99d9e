"""Sentences on how the delivered winner compares with the other networks: where they differ, and where chance would do.

Latencies are compared by `latency_differs`, accuracies on the same test images by the task's paired test. Where one of
them is not known, nothing is said of significance.
"""

from __future__ import annotations

from nas_edge.formatting import ms_form
from nas_edge.runs.result import ResultRow, RunResult

BEST_OF_RANDOM = "best of random"


def comparison_sentences(result: RunResult, metric: str, form: str, random_count: int | None = None) -> list[str]:
    """A sentence for each network that the winner is compared with.

    Args:
        result: of a run that delivered a network.
        metric: name of the task's metric.
        form: format of its values.
        random_count: how many random architectures there were; None if that is not known here.
    """
    return [_sentence(result, row, _called(row, random_count), metric, form) for row in result.rows[1:]]


def _called(row: ResultRow, random_count: int | None) -> str:
    if row.name != BEST_OF_RANDOM:
        return row.name
    return (
        "the best of the random architectures"
        if not random_count
        else f"the best of {random_count:,} random architectures"
    )


def _sentence(result: RunResult, row: ResultRow, name: str, metric: str, form: str) -> str:
    parts = [_latency_part(result, row, name)]
    if result.precision in result.winner.accuracy and result.precision in row.accuracy:
        parts.append(_accuracy_part(result, row, metric, form))
    return f"{'; '.join(parts)}."


def _latency_part(result: RunResult, row: ResultRow, name: str) -> str:
    winner_ms, other_ms = result.latency_ms, row.best_ms(result.precision)
    if winner_ms is None or other_ms is None:
        return f"Whether the winner is faster than {name} is not known: one of them could not be measured"
    differs = result.latency_differs(row)
    ms = ms_form(result.target_ms)
    times = f"{winner_ms:{ms}} vs. {other_ms:{ms}} ms"
    if differs is None:
        return f"Whether the winner is faster than {name} is not known ({times}): unreliable latency"
    if not differs:
        return f"The latencies of the winner and {name} do not differ significantly ({times})"
    if winner_ms < other_ms:
        return f"The winner is {_times(other_ms / winner_ms)} as fast as {name} ({times})"
    return f"The winner takes {_times(winner_ms / other_ms)} as long as {name} ({times})"


def _times(ratio: float) -> str:
    """A ratio above 1; one that is close to it keeps the digits in which it differs."""
    return f"{ratio:.2f}x" if ratio >= 1.01 else f"{ratio:.4f}x"


def _accuracy_part(result: RunResult, row: ResultRow, metric: str, form: str) -> str:
    winner, precision = result.winner, result.precision
    both = f"{winner.accuracy_text(precision, form)} vs. {row.accuracy_text(precision, form)}"
    tested = row.accuracy_vs_winner
    if tested is None:
        return f"test {metric}: {both}"
    if not tested.significant:
        return f"the difference in test {metric} ({both}) is not significant ({tested})"
    higher = "higher" if winner.accuracy[precision] > row.accuracy[precision] else "lower"
    return f"its test {metric} is significantly {higher} ({both}; {tested})"
