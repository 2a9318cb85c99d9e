"""The sections about the search: its trials, the architecture it found, the target, failures, and all in a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, median

from nas_edge.formatting import command, ms_form
from nas_edge.hardware.lint import fit_template
from nas_edge.latency.answer import LatencyKind
from nas_edge.report import plots
from nas_edge.report.analysis import FEWEST_FOR_PREDICTION, predict, rolling_share
from nas_edge.report.conditions import condition_columns
from nas_edge.report.content import Cell, Column, ColumnSpec, Drawing, Section, Table, make_table
from nas_edge.report.drawing import draw, slots_of
from nas_edge.report.reading import RunFacts, TrialFacts, series_of
from nas_edge.resources import LATENCY, RESOURCES
from nas_edge.runs.warm_start import SUPERNET
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace
from nas_edge.spaces.reference import reference_network
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import head_of
from nas_edge.text import origin_text

_NOT_ASKED = "not asked"

VERDICTS = {
    "ok": "its latency is reliable",
    "corrected": "its latency is reliable within its interval, which is wider than usual",
    "contended": "other programs disturbed the device for as long as it was measured",
    "unsteady": "the samples vary too much",
    "drifted": "the device became slower or faster during the measurement",
    "throttled": "the device lowered its clock because of heat",
    "fallback": "the delegate did not run all operators it was asked to",
    "convert_failed": "no TFLite file could be written",
    "compile_failed": "the compiler for the device could not compile it",
    "load_failed": "the runtime could not load the file",
    "run_failed": "inference failed",
    "out_of_memory": "it needs more memory than was available",
    "timeout": "it exceeded its time limit",
    "bench_failed": "what measures on the device did not work",
    "not_known": "the table of latencies does not have it",
    "device_lost": "the connection to the device was lost",
    _NOT_ASKED: "its latency was not asked for: a warm-up step runs several operators at once, not a single network",
}


def search_section(facts: RunFacts) -> Section | None:
    """Quality over latency."""
    if not facts.searched:
        return None
    evaluated = facts.evaluated
    if not evaluated:
        return Section("search", "Quality vs. latency", (facts.none_evaluated,))
    marked = _marked(facts)
    within = sum(trial.ms <= (facts.target_ms or math.inf) for trial in evaluated)
    drift = (
        " at that step. Qualities keep improving as the search goes, so later trials have an advantage over earlier "
        "ones"
        if facts.quality_drifts
        else ""
    )
    says = [
        f"{len(evaluated):,} of {len(facts.trials):,} trials have a reliable latency ({facts.kinds_text}) and a "
        f"quality, {within:,} of them within the target; {len(facts.front):,} are on the Pareto front: no other trial "
        f"is both as fast and better. Quality here is the {facts.quality_name}{drift}."
    ]
    if facts.warm_start is not None and SUPERNET in facts.warm_start.layers:
        says.append(f"The shared weights started from {facts.warm_start.what}: {facts.warm_start.layers[SUPERNET]}.")
    if facts.latency_source is None and LatencyKind.PREDICTED in facts.kinds:
        predicted = sum(trial.kind is LatencyKind.PREDICTED for trial in evaluated)
        says.append(
            f"{predicted:,} of the latencies were predicted by a model that was fitted to those measured in this "
            "search; the others, and all of what the search ends with, were measured."
        )
    if facts.latency_source is not None:
        measured = " The delivered networks were measured on the device." if facts.result and facts.has_device else ""
        model = "a model that was fitted to these" if len(facts.kinds) > 1 else facts.latency_source
        origins = [
            origin_text(kind, model if kind is LatencyKind.PREDICTED else facts.latency_source) for kind in facts.kinds
        ]
        says.append(f"Latencies of trials are {' or '.join(origins)}.{measured}")
    if facts.devices:
        listed = " and ".join(f"{target_ms:g} ms on {name}" for name, target_ms in facts.devices)
        first = f"{facts.devices[0][1]:g} ms"
        says.append(
            f"The targets are {listed}. A latency here is that of the device furthest beyond its target, as a share of "
            f"that target, times {first}: it is within {first} where every device is within its target. "
            "The table of all trials has the latency on each."
        )
    has_quality = {str(row[1]): row[4] is not None for row in marked.rows()}
    scored = [name for name in plots.SERIES if has_quality.get(name) is True]
    unscored = [name for name in plots.SERIES if has_quality.get(name) is False]
    axes = plots.Axes(f"{facts.kinds_text} latency", ms_form(facts.target_ms), facts.quality_name, facts.quality_form)
    plot = plots.pareto(axes, facts.target_ms, scored, unscored)
    return Section("search", "Quality vs. latency", tuple(says), (plot,), (marked,))


def _marked(facts: RunFacts) -> Table:
    """The networks that the plot marks among the trials."""
    rows: list[tuple[Cell, ...]] = []
    result, target = facts.result, facts.config.target
    if result is not None:
        kind = None if result.latency_kind is None else str(result.latency_kind)
        for network in result.rows:
            measured = network.latency.get(result.precision)
            low, high = (measured and measured.interval_ms) or (None, None)
            ms = result.latency_of(network)
            verdict = None if measured is None else str(measured.verdict)
            rows.append((network.name, series_of(network), ms, kind, network.quality, low, high, verdict))
    elif target.latency_ms is None and facts.target_ms is not None:
        reference_ms = facts.target_ms / target.reference_share
        rows.append((facts.config.reference_name, "reference", reference_ms, "measured", None, None, None, None))
    columns: list[ColumnSpec] = [
        ("name", "network", ""),
        ("series", "", None),
        ("latency_ms", "ms", ms_form(facts.target_ms)),
        ("latency_kind", "latency is", ""),
        ("quality", facts.quality_name, facts.quality_form),
        ("low_ms", "", None),
        ("high_ms", "", None),
        ("verdict", "", None),
    ]
    return make_table("marked", "", columns, [row for row in rows if row[2] is not None], shown=False)


def drawing_section(facts: RunFacts, space: SearchSpace | None) -> Section | None:
    """The winner, or the best so far, next to the reference network."""
    part = facts.config.reference
    if not isinstance(space, NetworkSpace) or part is None:
        return None
    best = facts.best_within
    if facts.result is not None:
        name, text = "winner", facts.result.winner.architecture
    elif best is not None:
        name, text = f"best within the target so far (step {best.step})", best.architecture
    else:
        return None
    slots, with_task = slots_of(space), head_of(TASKS.make(facts.config.task), space.input_shape)
    drawings = [draw(name, text, space.decode(space.parse(text)), slots, facts.ends is not None)]
    reference = reference_network(
        part.reference_name,
        part.input_size,
        part.width_multiplier,
        space.outputs,
        space.input_shape[-1],
        lambda template: fit_template(with_task(template), facts.config.export.profile),
    )
    drawings.append(draw(part.reference_name, "", reference, slots, facts.ends is not None))
    says = (
        "From the image at the top to the outputs at the bottom. Each row is a stage: its output channels and size, "
        "and its layers, each with kernel size and expansion ratio.",
    )
    return Section("architecture", "The architecture", says, tables=_drawing_tables(drawings), drawings=tuple(drawings))


def _drawing_tables(drawings: Sequence[Drawing]) -> tuple[Table, ...]:
    """The drawings as a table, for CSV."""
    rows = [
        (
            drawing.name,
            stage.label,
            layer.label or None,
            "skipped" if layer.skipped else "present",
            None if layer.skipped else layer.kernel,
            layer.expansion,
            stage.channels,
            stage.size,
            layer.gated,
        )
        for drawing in drawings
        for stage in drawing.stages
        for layer in stage.layers
    ]
    columns: list[ColumnSpec] = [
        ("network", "network", ""),
        ("stage", "stage", ""),
        ("layer", "layer", ""),
        ("state", "state", ""),
        ("kernel", "kernel", "d"),
        ("expansion", "expansion", ".1f"),
        ("channels", "channels", "d"),
        ("output_pixels", "output side, px", "d"),
        ("squeeze_excite", "squeeze-excite", ""),
    ]
    return (make_table("layers", "", columns, rows, shown=False),)


def target_section(facts: RunFacts) -> Section | None:
    """How the search approached the target."""
    evaluated = facts.evaluated
    if not evaluated or facts.target_ms is None:
        return None
    of_target = [trial.ms / facts.target_ms for trial in evaluated]
    quarter = max(1, len(evaluated) // 4)
    first, last = (fmean(share <= 1 for share in part) for part in (of_target[:quarter], of_target[-quarter:]))
    off = median(abs(share - 1) for share in of_target[-quarter:])
    says = (
        f"{first:.0%} of the first quarter of the trials with a latency were within the target, and {last:.0%} of the "
        f"last quarter, whose median distance from the target is {off:.1%}. A search that converges on the target ends "
        "near 50%, because it samples both sides of it.",
    )
    axes = plots.Axes(f"{facts.kinds_text} latency", ms_form(facts.target_ms), facts.quality_name, facts.quality_form)
    shown = (plots.target_hits(axes), plots.rolling_hits(_window(len(evaluated))))
    return Section("target", "Latency relative to the target", says, shown)


def _window(trials: int) -> int:
    return max(10, trials // 20)


def failures_section(facts: RunFacts) -> Section | None:
    """Outcomes of the candidates, by verdict."""
    if not facts.trials:
        return None
    counts = Counter(trial.verdict or _NOT_ASKED for trial in facts.trials)
    rows: list[tuple[Cell, ...]] = []
    for verdict, count in counts.most_common():
        details = Counter(t.detail for t in facts.trials if (t.verdict or _NOT_ASKED) == verdict and t.detail)
        example = details.most_common(1)[0][0] if details else None
        rows.append((verdict, count, count / len(facts.trials), VERDICTS.get(verdict, ""), example))
    failed = sum(trial.latency_ms is None for trial in facts.trials)
    says = [
        "Every candidate has a reliable latency."
        if not failed
        else f"{failed:,} of {len(facts.trials):,} candidates ({failed / len(facts.trials):.1%}) have no reliable "
        "latency. Candidates that failed themselves are rewarded as bad ones; those that failed for another reason are "
        "left out."
    ]
    adjusted = sum(map(_is_adjusted, facts.trials))
    if adjusted:
        was = "was" if adjusted == 1 else "were"
        says.append(
            f"{adjusted:,} of the noisy latencies {was} adjusted by a model of latency over decisions, fitted to this "
            "run's other candidates; the table of all trials has both."
        )
    unscored = sum(trial.latency_ms is not None and trial.quality is None for trial in facts.trials)
    if unscored:
        says.append(f"{unscored:,} with a reliable latency have no quality, and are rewarded as bad ones.")
    columns: list[ColumnSpec] = [
        ("verdict", "verdict", ""),
        ("trials", "trials", "d"),
        ("share", "share", ".1%"),
        ("meaning", "meaning", ""),
        ("example", "most frequent detail", ""),
    ]
    table = make_table("verdicts", "", columns, rows)
    return Section("failures", "Candidates by verdict", tuple(says), tables=(table,))


def prediction_section(facts: RunFacts, space: SearchSpace | None) -> Section | None:
    """How well an additive latency model fits."""
    title = "Measured vs. predicted latency"
    chosen = [trial for trial in facts.evaluated if trial.kind is LatencyKind.MEASURED]
    if space is None or not chosen:
        return None
    points = [(space.parse(trial.architecture), trial.ms) for trial in chosen]
    model = (
        "The model assigns a latency to each choice and each layer's combination of choices and adds them up, like a "
        "latency table per block. It is fitted to half of the architectures measured in this run and tested on the "
        f"other half. {command('latency', 'fit', '--run', facts.folder, '--out')} FILE makes one for other searches."
    )
    predicted = predict(space, points)
    if predicted is None:
        few = f"Too few measurements: it requires at least {FEWEST_FOR_PREDICTION} architectures."
        return Section("prediction", title, (model, few))
    found = predicted.accuracy
    order = "" if found.spearman is None else f"; the rank correlation is {found.spearman:.2f} (1: same order)"
    says = (
        model,
        f"Fitted on {predicted.fitted:,} architectures, its mean error on the other {found.networks:,} is "
        f"{found.mape:.1%}, and {found.within_10:.0%} are within 10%{order}.",
    )
    form = ms_form(facts.target_ms)
    columns: list[ColumnSpec] = [
        ("measured_ms", "measured, ms", form),
        ("predicted_ms", "predicted, ms", form),
    ]
    rows = list(zip(predicted.measured_ms.tolist(), predicted.predicted_ms.tolist(), strict=True))
    table = make_table("prediction", "", columns, rows, shown=False)
    return Section("prediction", title, says, (plots.prediction(form),), (table,))


def trials_section(facts: RunFacts) -> Section | None:
    """All trials."""
    if not facts.trials:
        return None
    return Section("trials", "All trials", tables=(trials_table(facts),), folded=True)


def trials_table(facts: RunFacts) -> Table:
    """All trials, with the columns that the plots need."""
    trials, target_ms, front = facts.trials, facts.target_ms, set(map(id, facts.front))
    observed = [t.observed_ms or (None, None) for t in trials]
    form = ms_form(target_ms)
    of_target = [t.latency_ms / target_ms if t.latency_ms is not None and target_ms else None for t in trials]
    hits = [share <= 1 for share in of_target if share is not None]
    shares = iter(rolling_share(hits, _window(len(hits))))
    columns = (
        Column("step", "step", "d", [t.step for t in trials]),
        Column("latency_ms", "ms", form, [t.latency_ms for t in trials]),
        *(
            Column(
                f"device_{number}_ms",
                f"{name}, ms",
                ms_form(device_ms),
                [t.parts_ms[number - 1] if len(t.parts_ms) >= number else None for t in trials],
            )
            for number, (name, device_ms) in enumerate(facts.devices, start=1)
        ),
        Column("low_ms", "95% from", form, [t.interval_ms[0] if t.interval_ms else None for t in trials]),
        Column("high_ms", "95% to", form, [t.interval_ms[1] if t.interval_ms else None for t in trials]),
        Column("measured_ms", "before adjusting", form, [t.measured_ms if _is_adjusted(t) else None for t in trials]),
        Column("observed_median_ms", "observed ms", form, [middle for middle, _ in observed]),
        Column("observed_p90_ms", "observed p90", form, [high for _, high in observed]),
        Column("latency_kind", "latency is", "", [None if t.kind is None else str(t.kind) for t in trials]),
        Column("of_target", "of target", ".1%", of_target),
        Column("quality", facts.metric.name, facts.quality_form, [t.quality for t in trials]),
        *_resource_columns(trials),
        Column("reward", "reward", ".4f", [t.reward for t in trials]),
        Column("verdict", "verdict", "", [t.verdict for t in trials]),
        Column("measured_verdict", "", "", [t.measured_verdict for t in trials], shown=False),
        Column("detail", "detail", "", [t.detail or None for t in trials]),
        Column("architecture", "architecture", "", [t.architecture for t in trials]),
        Column("series", "", "", ["Pareto front" if id(t) in front else "trial" for t in trials], shown=False),
        Column("hit", "", "", [_hit(share) for share in of_target], shown=False),
        Column("rolling_hits", "", ".1%", [None if s is None else next(shares) for s in of_target], shown=False),
        *condition_columns(facts),
    )
    return Table("trials", "", columns, brief=False)


def _resource_columns(trials: Sequence[TrialFacts]) -> list[Column]:
    """What candidates use of other resources than time, if the search aims at or limits them."""
    names = [name for name in RESOURCES if any(name in t.usage for t in trials) and RESOURCES[name] is not LATENCY]
    return [
        Column(name, f"{name.replace('_', ' ')}, {RESOURCES[name].kind}", ",.6g", [t.usage.get(name) for t in trials])
        for name in names
    ]


def _is_adjusted(trial: TrialFacts) -> bool:
    """Whether the reward was made with another latency than was answered; see `latency.pooled`."""
    return trial.latency_ms is not None and trial.latency_ms != trial.measured_ms


def _hit(of_target: float | None) -> str | None:
    return None if of_target is None else "within target" if of_target <= 1 else "over target"
