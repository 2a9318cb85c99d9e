"""What a report begins with: the result in a few sentences, and the key figures."""

from __future__ import annotations

from nas_edge.formatting import command, ms_form
from nas_edge.report.comparison_sentences import comparison_sentences
from nas_edge.report.content import Tile, text_of
from nas_edge.report.reading import RunFacts
from nas_edge.runs.result import RunResult
from nas_edge.text import origin_text


def headline(facts: RunFacts) -> str:
    """The target and the result, in a few sentences."""
    if facts.result is not None:
        return (_delivery if facts.result.device is not None else _finding)(facts, facts.result)
    best = facts.best_within
    if best is not None:
        return (
            f"{_progress(facts)} So far, the best trial within the target has a latency of {_ms(best.ms, facts)} "
            f"({best.kind}); its {facts.quality_name} is {facts.quality_text(best.q)}."
        )
    if not facts.evaluated:
        return f"{_progress(facts)} {facts.none_evaluated}"
    fastest = min(facts.evaluated, key=lambda trial: trial.ms)
    compared = "No trial of the second half" if facts.quality_drifts else "No trial"
    return (
        f"{_progress(facts)} {compared} was within the target; the lowest latency of all is "
        f"{_ms(fastest.ms, facts)} ({fastest.kind})."
    )


def _delivery(facts: RunFacts, result: RunResult) -> str:
    """What a run with a device delivered."""
    winner = result.winner
    measured = winner.latency.get(result.precision)
    ms = result.latency_ms
    if ms is None:
        why = "" if measured is None else f": {measured.verdict}, {measured.detail}"
        return f"The delivered {result.precision} network could not be measured on {result.device}{why}."
    flag = (
        "" if measured is None or measured.ok else f" Unreliable measurement ({measured.verdict}): {measured.detail}."
    )
    if result.warning:
        flag = f" Warning: {result.warning}."
    says = (
        f"The delivered {result.precision} network has a measured latency of {_ms(ms, facts)} on {result.device}, "
        f"{_relation(facts, result, ms)}.{flag}"
    )
    for each in result.further:
        there_ms = each.best_ms(winner.name, result.precision)
        where = f"{_ms(there_ms, facts)} on {each.device}; its target is {_ms(each.target_ms, facts)}"
        says = f"{says} It has {where} ({each.outcome(winner.name, result.precision)})."
    compared = comparison_sentences(result, facts.metric.name, facts.quality_form, len(facts.randoms))
    if not compared and result.precision in winner.accuracy:
        reached = winner.accuracy_text(result.precision, facts.quality_form)
        compared = [f"Its test {facts.metric.name} is {reached}."]
    return " ".join([says, *compared])


def _finding(facts: RunFacts, result: RunResult) -> str:
    """What a run found that delivers no network."""
    ms, estimate, winner = result.latency_ms, result.latency_estimate, result.winner
    end = "The run ends with this architecture; no network is delivered."
    if ms is None or estimate is None:
        return f"The winner {winner.architecture} has no latency. {end}"
    says = (
        f"The winner {winner.architecture} has a latency of {_ms(ms, facts)} "
        f"({origin_text(estimate.kind, estimate.source)}), {_relation(facts, result, ms)}."
    )
    if winner.quality is None:
        return f"{says} {end}"
    parts = [f"Its {facts.quality_name} is {facts.quality_text(winner.quality)}"]
    for row in result.rows[1:]:
        if row.quality is not None and row.estimate_ms is not None:
            parts.append(f"{row.name} reaches {facts.quality_text(row.quality)} at {_ms(row.estimate_ms, facts)}")
    return f"{says} {'; '.join(parts)}. {end}"


def _relation(facts: RunFacts, result: RunResult, ms: float) -> str:
    """Where a latency is, seen from the target."""
    miss = ms / result.target_ms - 1
    verdict = "" if miss <= 0 else ": the target is missed" if result.hard_limit else ", which was not a hard limit"
    return f"{abs(miss):.0%} {'under' if miss <= 0 else 'over'} the target of {_ms(result.target_ms, facts)}{verdict}"


def _progress(facts: RunFacts) -> str:
    steps = facts.config.search.steps
    if facts.steps_done >= steps:
        where = f"The search has completed all {steps} steps"
        trains = facts.has_device and facts.randoms
        stage = "the winner is being trained" if trains else "the finalists are being evaluated again"
        after = "; " + (stage if facts.state == "running" else "the later stages are not finished")
    else:
        where, after = f"The search has completed {facts.steps_done} of {steps} steps", ""
    if facts.state == "stopped":
        after += f". To continue it: {command('search', '--resume', facts.folder)}"
    return f"{where}{after}."


def tiles(facts: RunFacts) -> tuple[Tile, ...]:
    """The key figures."""
    result, shown = facts.result, []
    if facts.target_ms is not None:
        shown.append(Tile("Target", _ms(facts.target_ms, facts), _target_note(facts)))
    if result is None:
        best = facts.best_within
        if best is not None:
            note = f"at {_ms(best.ms, facts)} ({best.kind}), step {best.step}"
            shown.append(Tile("Best within target", facts.quality_text(best.q), note))
    elif result.device is None:
        if result.latency_ms is not None:
            shown.append(Tile("Latency", _ms(result.latency_ms, facts), str(result.latency_kind)))
        if result.winner.quality is not None:
            shown.append(Tile("Quality", facts.quality_text(result.winner.quality), facts.quality_origin))
    else:
        shown += _delivered_tiles(facts, result)
    if not facts.searched:
        return tuple(shown)
    with_latency = sum(trial.latency_ms is not None for trial in facts.trials)
    shown.append(Tile("Trials", f"{len(facts.trials):,}", f"{with_latency:,} with a reliable latency"))
    shown.append(Tile("Steps", f"{facts.steps_done:,}", f"of {facts.config.search.steps:,}"))
    return tuple(shown)


def _delivered_tiles(facts: RunFacts, result: RunResult) -> list[Tile]:
    shown, winner = [], result.winner
    measured = result.measurement
    if measured is not None and measured.statistics is not None:
        form, statistics = ms_form(result.target_ms), measured.statistics
        low, high = measured.interval_ms or (statistics.min_ms, statistics.max_ms)
        what = "range" if measured.interval_ms is None else "95% interval"
        note = f"measured; {what} {low:{form}} to {high:{form}} ms"
        if measured.quiet is not None:
            note += f"; observed {statistics.median_ms:{form}} ms, p90 {statistics.p90_ms:{form}} ms"
        shown.append(Tile(f"{result.precision} latency", _ms(measured.best_ms, facts), note))
    number = "" if result.test_images is None else f"{result.test_images:,} "
    for precision, accuracy in sorted(winner.accuracy.items(), key=lambda item: item[0] != result.precision):
        note, interval = f"on {number}held-out test examples", winner.accuracy_interval.get(precision)
        if interval is not None:
            note = f"{note}; 95% interval {' to '.join(map(facts.quality_text, interval))}"
        shown.append(Tile(f"{precision} {facts.metric.name}", facts.quality_text(accuracy), note))
    return shown


def _target_note(facts: RunFacts) -> str:
    target, reference = facts.config.target, facts.config.reference_name
    if target.latency_ms is not None:
        return "as set"
    share = "" if target.reference_share == 1 else f"{target.reference_share:.0%} of "
    return f"{share}the latency of {reference}"


def _ms(value: float | None, facts: RunFacts) -> str:
    return f"{text_of(value, ms_form(facts.target_ms))} ms"
