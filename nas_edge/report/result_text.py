"""A run's result as text: the table that a search ends with, and the sentence under it."""

from __future__ import annotations

from pathlib import Path

from nas_edge.formatting import ms_text
from nas_edge.runs.result import RunResult
from nas_edge.text import measurement_text, slower_int8

_PRECISIONS = (("int8", "int8"), ("float32", "float"))


def verdict(result: RunResult, run: Path) -> str:
    """One line: was the limit met?

    Args:
        result: of the run.
        run: its folder.
    """
    estimate = result.latency_estimate
    if result.device is None:
        assert estimate is not None
        if result.latency_ms is None:
            return f"{estimate.source} has no latency of the winner"
        return (
            f"the winner {result.winner.architecture} takes {result.latency_ms:.3g} ms ({estimate.kind} in "
            f"{estimate.source}), {_relation(result)} {result.target_ms:.3g} ms; nothing was trained"
        )
    measurement = result.measurement
    if measurement is None or result.latency_ms is None:
        why = "" if measurement is None else f" ({measurement.verdict}: {measurement.detail})"
        timed = f"could not be timed{why}"
    else:
        flag = "" if measurement.ok else f" ({measurement.verdict}: {measurement.detail})"
        timed = f"takes {result.latency_ms:.3g} ms{flag}, {_relation(result)} {result.target_ms:.3g} ms"
    gone_by = ""
    if estimate is not None:
        says = "could not say" if estimate.latency_ms is None else f"said {estimate.latency_ms:.3g} ms"
        gone_by = f"; the search did not measure but used latencies {estimate.kind} by {estimate.source}, which {says}"
    return f"the delivered {result.precision} model {timed}, on {result.device}{gone_by}; bundle: {run / 'bundle'}"


def answer(result: RunResult, run: Path) -> str:
    """The verdict as a sentence, and what to do if the measurement was unsteady."""
    line = verdict(result, run)
    sentence = f"{line[0].upper()}{line[1:]}"
    if result.measurement is None or result.measurement.ok:
        return sentence
    return f"{sentence}\nmeasure again on a quiet device: nas-edge export {run} --out FOLDER"


def table(result: RunResult, run: Path) -> str:
    """The result as text, with the answer under it."""
    rows = _delivered(result) if result.device is not None else _found(result)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [] if result.test_images is None else [f"accuracies: on {result.test_images} test images"]
    notes += [f"{precision} on {result.device}: {check}" for precision, check in result.on_device_check.items()]
    times_ms = {precision: result.winner.median_ms(precision) for precision in result.winner.latency}
    notes += filter(None, [slower_int8(times_ms)])
    return "\n".join([*lines, "", *notes, answer(result, run)])


def _delivered(result: RunResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("network", "target ms", *(f"{p} ms" for _, p in _PRECISIONS), *(f"{p} accuracy" for _, p in _PRECISIONS))
    ]
    for row in result.rows:
        times = (measurement_text(row.latency.get(precision)) for precision, _ in _PRECISIONS)
        accuracies = (f"{row.accuracy[p]:.2%}" if p in row.accuracy else "-" for p, _ in _PRECISIONS)
        rows.append((row.name, ms_text(result.target_ms), *times, *accuracies))
    return rows


def _found(result: RunResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("architecture", "target ms", "ms", "quality", "")]
    for row in result.rows:
        quality = "-" if row.quality is None else f"{row.quality:.4f}"
        rows.append((row.name, ms_text(result.target_ms), ms_text(row.estimate_ms), quality, row.architecture))
    return rows


def _relation(result: RunResult) -> str:
    return "within" if result.meets_target else "more than"
