"""The report of several runs. Latencies share a table and a plot only where they can be compared.

They can when precision, device, runtime, measurement settings and latency source are the same: see
`runs.environment.measured_with`.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_edge.formatting import ms_form, ms_text
from nas_edge.latency.answer import LatencyKind
from nas_edge.report import plots
from nas_edge.report.conditions import flat
from nas_edge.report.content import Cell, Column, ColumnSpec, Report, Section, Table, make_table
from nas_edge.report.reading import RunFacts, mapping, quality_form
from nas_edge.runs.environment import measured_with
from nas_edge.runs.paired_result import PairedResult, compare_scores
from nas_edge.runs.result import RunResult


def compare_report(runs: Sequence[RunFacts]) -> Report:
    """Several runs side by side, in the order given."""
    names = _unique_names(runs)
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for i, facts in enumerate(runs):
        groups.setdefault(_measured_with(facts), []).append(i)
    alone = len(groups) == 1
    sections = []
    for number, (key, members) in enumerate(groups.items(), start=1):
        chosen = [(names[i], runs[i]) for i in members]
        sections.append(_group_section(number, key, chosen, alone))
    sections.append(_settings_section(list(zip(names, runs, strict=True))))
    return Report(
        title=_listed(names) if len(names) < 4 else f"{len(names)} runs",
        state="comparison",
        headline=_headline(names, runs, len(groups)),
        tiles=(),
        sections=tuple(sections),
    )


def _headline(names: Sequence[str], runs: Sequence[RunFacts], groups: int) -> str:
    if groups > 1:
        return (
            f"The latencies of these runs are known in {groups} different ways (device, runtime, precision, "
            "measurement settings or latency source), so they cannot be compared and are shown separately."
        )
    same = "The latencies of all runs are known in the same way"
    done = [(name, facts.result) for name, facts in zip(names, runs, strict=True) if facts.result is not None]
    if not done:
        return f"{same}; none has finished yet."
    if len(done) == 1:
        return f"Only {done[0][0]} has finished; a comparison requires two finished runs."
    doubtful = {name: str(m.verdict) for name, result in done if (m := result.measurement) is not None and not m.ok}
    says = f"{same}."
    if doubtful:
        says = f"{says} Unreliable latency: {_listed([f'{n} ({v})' for n, v in doubtful.items()])}."
    known = [
        (ms, name, result.latency_kind)
        for name, result in done
        if name not in doubtful and (ms := result.latency_ms) is not None
    ]
    if len(known) < 2:
        says = f"{says} The fastest network cannot be determined"
    else:
        fastest_ms, fastest, kind = min(known, key=lambda each: each[:2])
        among = " of the others" if doubtful else ""
        says = f"{says} The fastest network{among} is that of {fastest}, at {ms_text(fastest_ms)} ms ({kind})"
    return f"{says}{_best_words(names, runs)}"


def _best_words(names: Sequence[str], runs: Sequence[RunFacts]) -> str:
    """Which finished run's network is the best, as the rest of a sentence; by test accuracy, else by quality."""
    done = [(name, facts, facts.result) for name, facts in zip(names, runs, strict=True) if facts.result is not None]
    tested = [
        (accuracy, name, facts, result)
        for name, facts, result in done
        if (accuracy := result.winner.accuracy.get(result.precision)) is not None
    ]
    form = quality_form(runs)
    if len(tested) == len(done):
        if len({(facts.config.data.source, facts.metric.name) for facts in runs}) > 1:
            return ". They used different data, so their accuracies cannot be compared."
        _, name, best, result = max(tested, key=lambda each: each[:2])
        reached = result.winner.accuracy_text(result.precision, form)
        others = [(other, facts) for _, other, facts, _ in tested if facts is not best]
        says = f"; the most accurate is that of {name}, with a test {best.metric.name} of {reached}."
        return f"{says}{_doubts(best, others)}"
    scored = [(quality, name) for name, _, result in done if (quality := result.winner.quality) is not None]
    alike = {facts.quality_name for _, facts, _ in done}
    # Qualities that drift depend on the search they are from.
    if len(scored) < len(done) or len(alike) > 1 or any(facts.quality_drifts for _, facts, _ in done):
        return ". Their qualities cannot be compared."
    highest, name = max(scored)
    return f"; the best is that of {name}, with a {alike.pop()} of {highest:{form}}."


def _doubts(facts: RunFacts, others: Sequence[tuple[str, RunFacts]]) -> str:
    """From which others the most accurate network does not differ significantly, as a sentence; empty for none."""
    tested = [(name, _paired(facts, other)) for name, other in others]
    alike = [f"{name} ({found})" for name, found in tested if found is not None and not found.significant]
    return f" The difference in {facts.metric.name} from {_listed(alike)} is not significant." if alike else ""


def _paired(first: RunFacts, second: RunFacts) -> PairedResult | None:
    """The paired test of two runs' winners; None where they were not tested on the same images."""
    one, other = first.example_scores, second.example_scores
    if one is None or other is None or one.test_set != other.test_set or not first.result or not second.result:
        return None
    return compare_scores(
        first.metric.paired_test,
        one.of("winner", first.result.precision),
        other.of("winner", second.result.precision),
    )


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _unique_names(runs: Sequence[RunFacts]) -> list[str]:
    """Folder names, numbered where two are the same."""
    names: list[str] = []
    for facts in runs:
        name, number = facts.name, 2
        while name in names:
            name, number = f"{facts.name} ({number})", number + 1
        names.append(name)
    return names


def _measured_with(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    """What decides whether latencies can be compared; empty for a run that has not started yet."""
    found = measured_with(facts.sessions[0]) if facts.sessions else {}
    return tuple((str(what), str(value)) for what, value in sorted(found.items()))


def _group_section(
    number: int, key: tuple[tuple[str, str], ...], runs: Sequence[tuple[str, RunFacts]], alone: bool
) -> Section:
    members = [facts for _, facts in runs]
    axes = _axes(members)
    device = _device(members[0])
    rows: list[tuple[Cell, ...]] = []
    fronts: list[tuple[Cell, ...]] = []
    for name, facts in runs:
        rows.append((name, *_row(facts, axes.quality_form)))
        for trial in facts.front:
            kind = None if trial.kind is None else str(trial.kind)
            fronts.append((name, trial.latency_ms, kind, trial.quality, trial.step, trial.architecture))
    table = make_table(f"runs_{number}", "", _run_columns(axes, members[0].metric.name), rows)
    columns: list[ColumnSpec] = [
        ("run", "run", ""),
        ("latency_ms", "ms", axes.latency_form),
        ("latency_kind", "latency is", ""),
        ("quality", axes.quality, axes.quality_form),
        ("step", "step", "d"),
        ("architecture", "architecture", ""),
    ]
    front = make_table(f"fronts_{number}", "", columns, fronts, shown=False)
    known = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in key) or "not known"
    on = "" if device is None else f"On {device}. "
    says = (f"{on}Shared conditions: {known}.",)
    winners = table.name if any(facts.result for facts in members) else None
    shown = (plots.fronts(front.name, winners, axes, [name for name, _ in runs]),) if fronts else ()
    title = "The runs" if alone else f"Comparable runs, group {number}" + ("" if device is None else f": {device}")
    return Section(f"runs-{number}", title, says, shown, (table, front))


def _axes(runs: Sequence[RunFacts]) -> plots.Axes:
    """What the latencies and qualities of runs are that share a plot."""
    kinds = {kind for facts in runs for kind in facts.kinds}
    names = {facts.quality_name for facts in runs}
    return plots.Axes(
        " ".join([" or ".join(str(kind) for kind in LatencyKind if kind in kinds), "latency"]).strip(),
        ms_form(next((facts.target_ms for facts in runs if facts.target_ms), None)),
        names.pop() if len(names) == 1 else "quality",
        quality_form(runs),
    )


def _run_columns(axes: plots.Axes, metric: str) -> list[ColumnSpec]:
    form = axes.latency_form
    return [
        ("run", "run", ""),
        ("state", "state", ""),
        ("target_ms", "target, ms", form),
        ("latency_ms", "winner, ms", form),
        ("latency_kind", "latency is", ""),
        ("verdict", "unreliable", ""),
        ("accuracy_text", f"test {metric}", ""),
        ("accuracy", "", None),
        ("accuracy_low", "", None),
        ("accuracy_high", "", None),
        ("test_images", "", None),
        ("quality", "winner's quality", axes.quality_form),
        ("float_ms", "float, ms", form),
        ("best_quality", "best quality within target", axes.quality_form),
        ("trials", "trials", "d"),
        ("steps", "steps", "d"),
        ("seed", "seed", "d"),
        ("space", "space", ""),
    ]


def _row(facts: RunFacts, quality_form: str) -> tuple[Cell, ...]:
    result, best = facts.result, facts.best_within
    winner = None if result is None else result.winner
    measured = None if result is None else result.measurement
    kind = None if result is None else result.latency_kind
    return (
        facts.state,
        facts.target_ms,
        None if result is None else result.latency_ms,
        None if kind is None else str(kind),
        None if measured is None or measured.ok else str(measured.verdict),
        *_accuracy(result, quality_form),
        None if winner is None else winner.quality,
        None if winner is None else winner.best_ms("float32"),
        None if best is None else best.quality,
        len(facts.trials),
        facts.steps_done,
        facts.config.seed,
        facts.config.space.name,
    )


def _accuracy(result: RunResult | None, form: str) -> tuple[Cell, ...]:
    """The winner's accuracy as text and number, its interval, and the number of test images."""
    if result is None or result.precision not in result.winner.accuracy:
        return (None,) * 5
    winner, precision = result.winner, result.precision
    interval = winner.accuracy_interval.get(precision, (None, None))
    return winner.accuracy_text(precision, form), winner.accuracy[precision], *interval, result.test_images


def _device(facts: RunFacts) -> str | None:
    device = mapping(facts.sessions[0].get("device")) if facts.sessions else {}
    if not device:
        return "an unknown device" if facts.has_device else None
    return f"{device.get('model')} ({device.get('runtime')} {device.get('runtime_version')})"


def _settings_section(runs: Sequence[tuple[str, RunFacts]]) -> Section:
    """The settings in which the runs differ."""
    settings = [flat(facts.config.model_dump(mode="json")) for _, facts in runs]
    paths = sorted({path for each in settings for path in each})
    differing = [path for path in paths if len({each.get(path) for each in settings}) > 1]
    title = "Settings that differ"
    if not differing:
        return Section("settings", title, ("All settings are the same.",))
    columns = [Column("setting", "setting", "", differing)]
    for i, (name, _) in enumerate(runs):
        columns.append(Column(f"run_{i + 1}", name, "", [settings[i].get(path) for path in differing]))
    return Section("settings", title, tables=(Table("differing_settings", "", tuple(columns)),))
