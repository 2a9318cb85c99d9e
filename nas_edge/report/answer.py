"""The result of a run: headline and key figures, and the delivered network next to its baselines."""

from __future__ import annotations

from statistics import fmean, median

from nas_edge.formatting import ms_form
from nas_edge.report import plots
from nas_edge.report.content import Cell, ColumnSpec, Section, Tile, make_table, text_of
from nas_edge.report.reading import RunFacts, series_of
from nas_edge.runs.result import ResultRow
from nas_edge.search.trials import late_trials


def headline(facts: RunFacts) -> str:
    """The target and the result, in one or two sentences."""
    if facts.found is not None:
        return _answer(facts)
    best = facts.best_within
    if best is not None:
        return (
            f"{_progress(facts)} So far, the best trial within the target takes {_ms(best.ms, facts)} and reaches "
            f"{best.q:.1%} validation accuracy with shared weights."
        )
    if not facts.timed:
        return f"{_progress(facts)} {facts.nothing_timed}"
    fastest_ms = min(trial.ms for trial in facts.timed)
    return (
        f"{_progress(facts)} No trial of the second half was within the target; the fastest overall took "
        f"{_ms(fastest_ms, facts)}."
    )


def _answer(facts: RunFacts) -> str:
    found = facts.found
    assert found is not None
    winner = found.winner
    measured = winner.latency.get(found.precision)
    ms = winner.median_ms(found.precision)
    if ms is None:
        why = "" if measured is None else f": {measured.verdict}, {measured.detail}"
        return f"The delivered {found.precision} network could not be measured on {found.device}{why}."
    miss = ms / found.target_ms - 1
    relation = f"{abs(miss):.0%} {'under' if miss <= 0 else 'over'} the target of {_ms(found.target_ms, facts)}"
    verdict = "" if miss <= 0 else ": the target is missed" if found.hard_limit else ", which was not a hard limit"
    flag = (
        "" if measured is None or measured.ok else f" Unreliable measurement ({measured.verdict}): {measured.detail}."
    )
    says = (
        f"The delivered {found.precision} network takes {_ms(ms, facts)} on {found.device}, {relation}{verdict}.{flag}"
    )
    accuracy = winner.accuracy.get(found.precision)
    if accuracy is None:
        return says
    others = ", ".join(_beside(network, facts) for network in found.rows if series_of(network) == "reference")
    return f"{says} Its test accuracy is {accuracy:.1%}{'; ' if others else ''}{others}."


def _beside(network: ResultRow, facts: RunFacts) -> str:
    """Accuracy and latency of a network that the winner is compared with."""
    assert facts.found is not None
    ms, accuracy = network.median_ms(facts.found.precision), network.accuracy.get(facts.found.precision)
    reached = "an unknown accuracy" if accuracy is None else f"{accuracy:.1%}"
    return f"{network.name} reaches {reached}" + ("" if ms is None else f" in {_ms(ms, facts)}")


def _progress(facts: RunFacts) -> str:
    steps = facts.config.search.steps
    if facts.steps_done >= steps:
        where = f"The search has completed all {steps} steps"
        stage = "the winner is being trained" if facts.randoms else "the finalists are being measured again"
        after = "; " + (stage if facts.state == "running" else "the later stages are not finished")
    else:
        where, after = f"The search has completed {facts.steps_done} of {steps} steps", ""
    if facts.state == "stopped":
        after += f". To continue it: nas-edge search --resume {facts.folder}"
    return f"{where}{after}."


def tiles(facts: RunFacts) -> tuple[Tile, ...]:
    """The key figures."""
    found, shown = facts.found, []
    asked = "set by --target-ms" if facts.config.target.latency_ms is not None else None
    share, reference = facts.config.target.reference_share, facts.config.reference_name
    own = f"the latency of {reference}" if share == 1 else f"{share:.0%} of the latency of {reference}"
    if facts.target_ms is not None:
        shown.append(Tile("Target", _ms(facts.target_ms, facts), asked or own))
    if found is not None:
        winner = found.winner
        measured = winner.latency.get(found.precision)
        statistics = None if measured is None else measured.statistics
        if statistics is not None:
            form = ms_form(found.target_ms)
            low, high = statistics.interval_ms or (statistics.min_ms, statistics.max_ms)
            note = f"95% interval {low:{form}} to {high:{form}} ms"
            shown.append(Tile(f"{found.precision} latency", _ms(statistics.median_ms, facts), note))
        for precision, accuracy in sorted(winner.accuracy.items(), key=lambda item: item[0] != found.precision):
            shown.append(Tile(f"{precision} accuracy", f"{accuracy:.1%}", "on held-out test images"))
    else:
        best = facts.best_within
        if best is not None:
            note = f"at {_ms(best.ms, facts)}, step {best.step}"
            shown.append(Tile("Best within target", f"{best.q:.1%}", note))
    timed = sum(trial.latency_ms is not None for trial in facts.trials)
    shown.append(Tile("Trials", f"{len(facts.trials):,}", f"{timed:,} with a reliable latency"))
    shown.append(Tile("Steps", f"{facts.steps_done:,}", f"of {facts.config.search.steps:,}"))
    return tuple(shown)


def found_section(facts: RunFacts) -> Section | None:
    """The delivered network next to its baselines."""
    found = facts.found
    if found is None:
        return None
    form = ms_form(found.target_ms)
    rows: list[tuple[Cell, ...]] = []
    for network in found.rows:
        for precision, measured in sorted(network.latency.items(), key=lambda item: item[0] != found.precision):
            low, high = (measured.statistics and measured.statistics.interval_ms) or (None, None)
            rows.append(
                (
                    network.name,
                    series_of(network),
                    precision,
                    network.median_ms(precision),
                    low,
                    high,
                    network.accuracy.get(precision),
                    network.quality,
                    str(measured.verdict),
                    measured.detail or None,
                )
            )
    table = make_table(
        "delivered",
        "",
        [
            ("name", "network", ""),
            ("series", "", None),
            ("precision", "precision", ""),
            ("latency_ms", "ms", form),
            ("low_ms", "95% from", form),
            ("high_ms", "95% to", form),
            ("accuracy", "test accuracy", ".1%"),
            ("quality", "quality with shared weights", ".1%"),
            ("verdict", "verdict", ""),
            ("detail", "detail", ""),
        ],
        rows,
    )
    says = (
        "Each network was trained from scratch with the same recipe, converted, and measured on the device, "
        "interleaved with the others. Accuracies are those of exactly these files, on test images used in neither "
        "search nor training.",
    )
    names = [name for name in plots.SERIES if name in set(table.columns[1].values)]
    plot = plots.delivered(found.target_ms, form, names, sorted({str(row[2]) for row in rows}))
    return Section("found", "Result", says, (plot,), (table,))


def precision_section(facts: RunFacts) -> Section | None:
    """int8 compared with float: accuracy and latency."""
    found = facts.found
    if found is None or not any({"int8", "float32"} <= network.latency.keys() for network in found.rows):
        return None
    shown: list[tuple[float | None, float | None]] = []
    rows: list[tuple[Cell, ...]] = []
    for network in found.rows:
        int8, real = network.median_ms("int8"), network.median_ms("float32")
        accuracies = network.accuracy.get("int8"), network.accuracy.get("float32")
        gained = None if None in accuracies else 100 * (accuracies[0] or 0) - 100 * (accuracies[1] or 0)
        speed = real / int8 if int8 and real else None
        rows.append((network.name, int8, real, speed, *accuracies, gained))
        shown.append((speed, gained))
    form = ms_form(found.target_ms)
    table = make_table(
        "precisions",
        "",
        [
            ("name", "network", ""),
            ("int8_ms", "int8, ms", form),
            ("float32_ms", "float, ms", form),
            ("speed_up", "int8 speed-up", ".2f"),
            ("int8_accuracy", "int8 accuracy", ".1%"),
            ("float32_accuracy", "float accuracy", ".1%"),
            ("difference", "accuracy difference, points", ".1f"),
        ],
        rows,
    )
    return Section("precision", "int8 vs. float", tuple(_precision_words(*shown[0])), tables=(table,))


def _precision_words(speed: float | None, gained: float | None) -> list[str]:
    """Sentences on the winner: `speed` is float's latency over int8's, `gained` is in percentage points of accuracy."""
    says = []
    if speed is None:
        says.append("One of the two could not be measured.")
    elif speed < 1:
        says.append(
            f"int8 is slower than float on this device: {1 / speed:.2f} times the latency for the winner. Unless file "
            "size matters, or the target device has faster int8 kernels than this one, ship the float model."
        )
    else:
        says.append(f"For the winner, int8 is {speed:.2f} times as fast as float.")
    if gained is not None and abs(gained) < 0.05:
        says.append("Quantisation does not change its test accuracy.")
    elif gained is not None:
        says.append(
            f"Quantisation {'gains' if gained > 0 else 'costs'} {abs(gained):.1f} percentage points of test accuracy."
        )
    return says


def baseline_section(facts: RunFacts) -> Section | None:
    """Random architectures compared with the search's."""
    if facts.target_ms is None or not facts.randoms:
        return None
    groups = {"finalists": facts.finalists, "search": late_trials(facts.timed), "random": facts.randoms}
    rows = [
        (name, trial.q, trial.ms, trial.architecture)
        for name, trials in groups.items()
        for trial in trials
        if trial.quality is not None and trial.latency_ms is not None and trial.latency_ms <= facts.target_ms
    ]
    columns: list[ColumnSpec] = [
        ("series", "of", ""),
        ("quality", "quality", ".1%"),
        ("latency_ms", "ms", ms_form(facts.target_ms)),
        ("architecture", "architecture", ""),
    ]
    table = make_table("baseline", "", columns, rows, shown=False)
    of = {name: [quality for series, quality, *_ in rows if series == name] for name in groups}
    reached = ""
    if of["random"]:
        reached = f", with a median quality of {median(of['random']):.1%} and a maximum of {max(of['random']):.1%}"
    says = [
        f"{len(of['random']):,} of {len(facts.randoms):,} random architectures are within the target{reached}. They "
        "and the finalists were evaluated with the final shared weights on all validation images; the search's trials "
        "are those of its second half, each evaluated on one batch at the time.",
    ]
    winner = facts.found.winner.quality if facts.found else None
    if winner is not None and of["random"]:
        beaten = fmean(quality < winner for quality in of["random"])
        them = "all of them" if beaten == 1 else f"{beaten:.0%} of them"
        says.append(f"The winner, at {winner:.1%}, beats {them}.")
    names = [name for name in groups if of[name]]
    shown = (plots.baseline(names),) if names else ()
    return Section("baseline", "Comparison with random architectures", tuple(says), shown, (table,))


def _ms(value: float | None, facts: RunFacts) -> str:
    return f"{text_of(value, ms_form(facts.target_ms))} ms"
