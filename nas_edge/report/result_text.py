"""A run's result as text: the table that a search ends with, and the sentence under it."""

from __future__ import annotations

from pathlib import Path

from nas_edge.formatting import command, ms_text
from nas_edge.report.comparison_sentences import comparison_sentences
from nas_edge.resources import RESOURCES
from nas_edge.runs.result import Outcome, RunResult
from nas_edge.tasks.base import Metric
from nas_edge.text import measurement_text, observed_text, origin_text, slower_than_float


def _precisions(result: RunResult) -> list[tuple[str, str]]:
    """What there may be files of, each with what it is called: what is delivered, then float."""
    delivered = [] if result.precision == "float32" else [(result.precision, result.precision)]
    return [*delivered, ("float32", "float")]


def verdict(result: RunResult, bundle: Path) -> str:
    """One line: was the target met?

    Args:
        result: of the run.
        bundle: where the bundle is.
    """
    if result.device is None:
        return _finding(result)
    measurement, estimate = result.measurement, result.latency_estimate
    if measurement is None or result.latency_ms is None:
        why = "" if measurement is None else f" ({measurement.verdict}: {measurement.detail})"
        takes = f"could not be measured{why}: {_relation(result)}"
    else:
        flag = "" if measurement.ok else f" ({measurement.verdict}: {measurement.detail})"
        takes = f"takes {_latency(result)}{flag}, {_relation(result)}"
    gone_by = ""
    if estimate is not None:
        says = "gave none for it" if estimate.latency_ms is None else f"gave {ms_text(estimate.latency_ms)} ms for it"
        gone_by = f"; the search went by latencies {origin_text(estimate.kind, estimate.source)}, which {says}"
    there = "".join(
        f", and {ms_text(each.best_ms(result.winner.name, result.precision))} ms on {each.device}, "
        f"{_RELATIONS[each.outcome(result.winner.name, result.precision)]} {ms_text(each.target_ms)} ms"
        for each in result.further
    )
    return f"the delivered {result.precision} model {takes}, on {result.device}{there}{gone_by}; bundle: {bundle}"


def _finding(result: RunResult) -> str:
    """The verdict on a run that delivers no network."""
    estimate = result.latency_estimate
    if estimate is None or result.latency_ms is None:
        return f"the winner {result.winner.architecture} has no latency: {_relation(result)}; no network was delivered"
    return (
        f"the winner {result.winner.architecture} takes {_latency(result)} "
        f"({origin_text(estimate.kind, estimate.source)}), {_relation(result)}; no network was delivered"
    )


def limit_line(result: RunResult) -> str:
    """A few words on a hard limit that was not met, or of which that is not known."""
    where = f" on {result.device}" if result.further else ""
    outcomes = [(f"{ms_text(result.target_ms)} ms{where}", result.first_outcome)]
    outcomes += [
        (f"{ms_text(each.target_ms)} ms on {each.device}", each.outcome(result.winner.name, result.precision))
        for each in result.further
    ]
    limited = [each for each in result.resources if each.objective.limit]
    outcomes = (outcomes if result.hard_limit else []) + [
        (f"{RESOURCES[each.objective.resource].text(each.objective.target)} ({each.objective.resource})", each.outcome)
        for each in limited
    ]
    limit = f"the hard limit of {' and '.join(what for what, found in outcomes if found is result.limit_outcome)}"
    if result.limit_outcome is Outcome.MISSED:
        return f"{limit} is missed"
    return f"whether {limit} is met is not known"


def answer(result: RunResult, run: Path, bundle: Path) -> str:
    """The verdict as a sentence, and what to do if it is not known.

    Args:
        result: of the run.
        run: its folder.
        bundle: where the bundle is.
    """
    line = verdict(result, bundle)
    sentence = f"{line[0].upper()}{line[1:]}"
    if result.device is None or result.outcome is not Outcome.UNKNOWN:
        return sentence
    return f"{sentence}\nmeasure again on a quiet device: {command('export', run, '--out', 'FOLDER')}"


def table(result: RunResult, run: Path, metric: Metric) -> str:
    """The result as text, with the answer under it.

    Args:
        result: of the run.
        run: its folder.
        metric: of its task.
    """
    rows = _delivered(result, metric) if result.device is not None else _architectures(result, metric)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = []
    if result.test_images is not None:
        intervals = ", with 95% intervals" if any(row.accuracy_interval for row in result.rows) else ""
        notes.append(f"{metric.name}: on {result.test_images} test examples{intervals}")
    notes += [f"{precision} on {result.device}: {check}" for precision, check in result.on_device_check.items()]
    notes += [
        f"{precision} on {each.device}: {check}"
        for each in result.further
        for precision, check in each.on_device_check.items()
    ]
    notes += [f"{result.precision} file {result.hardware_check}"] if result.hardware_check is not None else []
    notes += [f"{result.precision} {each}" for each in result.resources]
    times_ms = {precision: result.winner.best_ms(precision) for precision in result.winner.latency}
    notes += [
        f"{row.name}, {name}: {observed}"
        for row in result.rows
        for precision, name in _precisions(result)
        if (observed := observed_text(row.latency.get(precision)))
    ]
    if result.quantization is not None:
        notes.append(f"{result.precision} {result.quantization.text(metric.name, metric.form)}")
    if result.noisiest_layers:
        notes.append(f"most quantisation noise: {', '.join(result.noisiest_layers)}")
    notes += filter(None, [slower_than_float(times_ms), result.warning and f"warning: {result.warning}"])
    notes += [] if result.device is None else comparison_sentences(result, metric.name, metric.form)
    return "\n".join([*lines, "", *notes, answer(result, run, run / "bundle")])


def _delivered(result: RunResult, metric: Metric) -> list[tuple[str, ...]]:
    precisions = _precisions(result)
    rows: list[tuple[str, ...]] = [
        (
            "network",
            "target ms",
            *(f"{name} ms" for _, name in precisions),
            *(f"{name} {metric.name}" for _, name in precisions),
        )
    ]
    for row in result.rows:
        times = (measurement_text(row.latency.get(precision)) for precision, _ in precisions)
        accuracies = (row.accuracy_text(precision, metric.form) for precision, _ in precisions)
        rows.append((row.name, ms_text(result.target_ms), *times, *accuracies))
        for each in result.further:
            there = each.latency.get(row.name, {})
            times = (measurement_text(there.get(precision)) for precision, _ in precisions)
            rows.append((f"  on {each.device}", ms_text(each.target_ms), *times, *("" for _ in precisions)))
    return rows


def _architectures(result: RunResult, metric: Metric) -> list[tuple[str, ...]]:
    kind = "" if result.latency_kind is None else f", {result.latency_kind}"
    rows: list[tuple[str, ...]] = [("architecture", "target ms", f"ms{kind}", "quality", "")]
    for row in result.rows:
        quality = metric.text(row.quality)
        rows.append((row.name, ms_text(result.target_ms), ms_text(row.estimate_ms), quality, row.architecture))
    return rows


def _latency(result: RunResult) -> str:
    """The winner's latency with its interval, where that has a width."""
    shown = f"{ms_text(result.latency_ms)} ms"
    if result.interval_ms is None or result.interval_ms[0] == result.interval_ms[1]:
        return shown
    low_ms, high_ms = map(ms_text, result.interval_ms)
    return f"{shown} (95% interval {low_ms} to {high_ms} ms)"


_RELATIONS = {
    Outcome.MET: "within",
    Outcome.MISSED: "more than",
    Outcome.UNKNOWN: "so it is not known whether it is within",
}


def _relation(result: RunResult) -> str:
    return f"{_RELATIONS[result.first_outcome]} {ms_text(result.target_ms)} ms"
