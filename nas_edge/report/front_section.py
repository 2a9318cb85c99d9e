"""The section about what else than the winner can be delivered: the run's Pareto front."""

from __future__ import annotations

from nas_edge.formatting import command, ms_form
from nas_edge.report.content import Cell, ColumnSpec, Section, make_table
from nas_edge.report.reading import RunFacts


def front_section(facts: RunFacts) -> Section | None:
    """The architectures to choose from, and what became of those that were delivered."""
    if not facts.choices:
        return None
    winner = None if facts.result is None else facts.result.winner
    delivered = {result.winner.architecture: (folder, result) for folder, result in facts.delivered.items()}
    if winner is not None and facts.has_device:
        assert facts.result is not None
        delivered[winner.architecture] = (".", facts.result)
    rows: list[tuple[Cell, ...]] = []
    for choice in facts.choices:
        text = str(choice.architecture)
        folder, result = delivered.get(text, (None, None))
        rows.append(
            (
                choice.latency_ms,
                str(choice.kind) if choice.kind is not None and len(facts.kinds) > 1 else facts.kinds_text,
                choice.quality,
                choice.trials,
                "winner" if winner is not None and text == winner.architecture else None,
                None if result is None else result.latency_ms,
                None if result is None else result.winner.accuracy_text(result.precision, facts.quality_form),
                folder,
                text,
            )
        )
    form, metric = ms_form(facts.target_ms), facts.metric.name
    columns: list[ColumnSpec] = [
        ("latency_ms", "ms", form),
        ("latency_kind", "latency is", ""),
        ("quality", facts.quality_name, facts.quality_form),
        ("trials", "trials", "d"),
        ("note", "", ""),
        ("delivered_ms", "delivered, measured ms", form),
        ("accuracy_text", f"delivered, test {metric}", ""),
        ("folder", "delivered in", ""),
        ("architecture", "architecture", ""),
    ]
    return Section("front", "Networks to choose from", _words(facts), tables=(make_table("front", "", columns, rows),))


def _words(facts: RunFacts) -> tuple[str, ...]:
    origin = ""
    if facts.quality_drifts:
        origin = (
            " Their qualities are from after the search, all scored alike, on all validation examples."
            if facts.rescored
            else " Their qualities are those of the second half of the search, each of a few batches: mostly noise."
        )
    says = [
        f"{len(facts.choices):,} architectures are on the Pareto front of the run: no other has both a lower latency "
        f"and a better quality.{origin}"
    ]
    if facts.has_device:
        says.append(
            f"To deliver another: {command('deliver', facts.folder, '--architecture')} ARCHITECTURE. "
            f"To list them: {command('select', facts.folder)}"
        )
    return tuple(says)
