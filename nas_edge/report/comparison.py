"""The report of several runs. Latencies share a table and a plot only where they can be compared.

They can when precision, device, runtime, measurement settings and latency source were the same: see
`runs.environment.measured_with`.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_edge.formatting import ms_form
from nas_edge.report import plots
from nas_edge.report.conditions import flat
from nas_edge.report.content import Cell, Column, ColumnSpec, Report, Section, Table, make_table
from nas_edge.report.reading import RunFacts, mapping
from nas_edge.runs.environment import measured_with


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
            f"These runs were measured in {groups} different ways (device, runtime, precision, measurement settings or "
            "latency source), so their latencies cannot be compared and are shown separately."
        )
    done = [(name, facts.found) for name, facts in zip(names, runs, strict=True) if facts.found is not None]
    if not done:
        return "All runs were measured in the same way; none has finished yet."
    if len(done) == 1:
        return f"Only {done[0][0]} has finished; a comparison requires two finished runs."
    doubtful = {name: str(m.verdict) for name, found in done if (m := found.measurement) is not None and not m.ok}
    says = "All runs were measured in the same way."
    if doubtful:
        says = f"{says} Unreliable latency: {_listed([f'{n} ({v})' for n, v in doubtful.items()])}."
    timed = [
        (ms, name)
        for name, found in done
        if name not in doubtful and (ms := found.winner.median_ms(found.precision)) is not None
    ]
    if len(timed) < 2:
        says = f"{says} The fastest network cannot be determined"
    else:
        fastest_ms, fastest = min(timed)
        among = " of the others" if doubtful else ""
        says = f"{says} The fastest network{among} is that of {fastest}, at {fastest_ms:{ms_form(fastest_ms)}} ms"
    if len({facts.config.data.source for facts in runs}) > 1:
        return f"{says}. They used different data, so their accuracies cannot be compared."
    right = [(found.winner.accuracy.get(found.precision, 0.0), name) for name, found in done]
    best, accurate = max(right)
    return f"{says}; the most accurate is that of {accurate}, with a test accuracy of {best:.1%}."


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
    form = ms_form(next((facts.target_ms for _, facts in runs if facts.target_ms), None))
    device = _device(runs[0][1])
    rows: list[tuple[Cell, ...]] = []
    fronts: list[tuple[Cell, ...]] = []
    for name, facts in runs:
        rows.append((name, *_row(facts)))
        for trial in facts.front:
            fronts.append((name, trial.latency_ms, trial.quality, trial.step, trial.architecture))
    table = make_table(
        f"runs_{number}",
        "",
        [
            ("run", "run", ""),
            ("state", "state", ""),
            ("target_ms", "target, ms", form),
            ("latency_ms", "winner, ms", form),
            ("verdict", "unreliable", ""),
            ("accuracy", "test accuracy", ".1%"),
            ("quality", "", None),
            ("float_ms", "float, ms", form),
            ("best_quality", "best quality within target", ".1%"),
            ("trials", "trials", "d"),
            ("steps", "steps", "d"),
            ("seed", "seed", "d"),
            ("space", "space", ""),
        ],
        rows,
    )
    columns: list[ColumnSpec] = [
        ("run", "run", ""),
        ("latency_ms", "ms", form),
        ("quality", "quality", ".1%"),
        ("step", "step", "d"),
        ("architecture", "architecture", ""),
    ]
    front = make_table(f"fronts_{number}", "", columns, fronts, shown=False)
    measured = ", ".join(f"{what} {value}" for what, value in key) or "not known"
    says = (f"On {device}; measured with {measured}.",)
    winners = table.name if any(facts.found for _, facts in runs) else None
    shown = (plots.fronts(front.name, winners, form, [name for name, _ in runs]),) if fronts else ()
    title = "The runs" if alone else f"Comparable runs, group {number}: {device}"
    return Section(f"runs-{number}", title, says, shown, (table, front))


def _row(facts: RunFacts) -> tuple[Cell, ...]:
    found, best = facts.found, facts.best_within
    winner = None if found is None else found.winner
    measured = None if found is None else found.measurement
    return (
        facts.state,
        facts.target_ms,
        None if found is None or winner is None else winner.median_ms(found.precision),
        None if measured is None or measured.ok else str(measured.verdict),
        None if found is None or winner is None else winner.accuracy.get(found.precision),
        None if winner is None else winner.quality,
        None if winner is None else winner.median_ms("float32"),
        None if best is None else best.quality,
        len(facts.trials),
        facts.steps_done,
        facts.config.seed,
        facts.config.space.name,
    )


def _device(facts: RunFacts) -> str:
    device = mapping(facts.sessions[0].get("device")) if facts.sessions else {}
    if not device:
        return "an unknown device"
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
