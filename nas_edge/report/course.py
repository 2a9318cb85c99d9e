"""The search: its trials, the architecture it found, and how its policy converged to the target."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from nas_edge.formatting import ms_form
from nas_edge.latency.answer import LatencyKind
from nas_edge.report import plots
from nas_edge.report.analysis import FEWEST_FOR_PREDICTION, predict, rolling_share
from nas_edge.report.conditions import condition_columns
from nas_edge.report.content import Cell, Column, ColumnSpec, Drawing, Section, Table, make_table
from nas_edge.report.drawing import draw, slots_of
from nas_edge.report.reading import RunFacts, series_of
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace
from nas_edge.spaces.reference import reference_network

# More moments of a policy could not be told apart on a screen.
POLICY_MOMENTS = 60
# About how many trials the latency model is fitted and tested on; more take longer and change little.
PREDICTED_TRIALS = 3000

VERDICTS = {
    "ok": "a reliable latency",
    "unsteady": "the samples vary too much",
    "drifted": "the device became slower or faster during the measurement",
    "throttled": "the device lowered its clock because of heat",
    "fallback": "the delegate did not run all operators it was asked to",
    "convert_failed": "no TFLite file could be written",
    "load_failed": "the runtime could not load the file",
    "run_failed": "inference failed",
    "out_of_memory": "it needs more memory than was available",
    "timeout": "it exceeded its time limit",
    "bench_failed": "what measures on the device did not work",
    "device_lost": "the connection to the device was lost",
    "not timed": "warm-up step that runs several operators at once, so there was no single network to measure",
}


def search_section(facts: RunFacts) -> Section:
    """Quality over latency."""
    timed = facts.timed
    if not timed:
        return Section("search", "Quality vs. latency", (facts.nothing_timed,))
    marked = _marked(facts)
    within = sum(trial.ms <= (facts.target_ms or math.inf) for trial in timed)
    says = [
        f"{len(timed):,} of {len(facts.trials):,} trials have a reliable latency, {within:,} of them within the "
        f"target; {len(facts.front)} are on the Pareto front: no other trial is both as fast and more accurate. A "
        "trial's quality is its validation accuracy with the shared weights at that step; the weights keep improving, "
        "so later trials have an advantage over earlier ones."
    ]
    has_quality = {str(row[1]): row[3] is not None for row in marked.rows()}
    judged = [name for name in plots.SERIES if has_quality.get(name) is True]
    unjudged = [name for name in plots.SERIES if has_quality.get(name) is False]
    kinds = sorted({str(trial.kind) for trial in timed})
    latency = f"{' or '.join(kinds)} latency"
    if not facts.config.latency.asks_device:
        delivers = facts.found is None or facts.found.device is not None
        estimated = all(trial.kind != LatencyKind.MEASURED for trial in timed)
        delivered = "; only what was delivered was measured" if delivers and estimated else ""
        says.append(f"Latencies of candidates were {' or '.join(kinds)}: {facts.config.latency.text}{delivered}.")
    plot = plots.pareto(latency, facts.target_ms, ms_form(facts.target_ms), judged, unjudged)
    return Section("search", "Quality vs. latency", tuple(says), (plot,), (marked,))


def _marked(facts: RunFacts) -> Table:
    """The networks that the plot marks among the trials."""
    rows: list[tuple[Cell, ...]] = []
    if facts.found is not None:
        for network in facts.found.rows:
            measured = network.latency.get(facts.found.precision)
            low, high = (measured and measured.statistics and measured.statistics.interval_ms) or (None, None)
            ms = network.median_ms(facts.found.precision)
            verdict = None if measured is None else str(measured.verdict)
            rows.append((network.name, series_of(network), ms, network.quality, low, high, verdict))
    elif facts.config.target.latency_ms is None and facts.target_ms is not None:
        reference_ms = facts.target_ms / facts.config.target.reference_share
        rows.append((facts.config.reference_name, "reference", reference_ms, None, None, None, None))
    form = ms_form(facts.target_ms)
    columns: list[ColumnSpec] = [
        ("name", "network", ""),
        ("series", "", None),
        ("latency_ms", "ms", form),
        ("quality", "quality with shared weights", ".1%"),
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
    if facts.found is not None:
        name, text = "winner", facts.found.winner.architecture
    elif best is not None:
        name, text = f"best within the target so far (step {best.step})", best.architecture
    else:
        return None
    slots = slots_of(space)
    drawings = [draw(name, text, space.decode(space.parse(text)), slots, facts.ends is not None)]
    reference = reference_network(
        part.reference_name, part.input_size, part.width_multiplier, space.classes, space.input_shape[-1]
    )
    drawings.append(draw(part.reference_name, "", reference, slots, facts.ends is not None))
    says = (
        "From the image at the top to the classes at the bottom. Each row is a stage: its output channels and size, "
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


def settled_section(facts: RunFacts, space: SearchSpace | None) -> Section | None:
    """How the probabilities of each decision evolved."""
    title = "How the policy converged"
    if space is None:
        return None
    open_decisions = [(i, d) for i, d in enumerate(space.decisions) if len(d.choices) > 1]
    if facts.policy is None:
        return Section("settled", title, ("The record of the controller's probabilities is damaged.",))
    moments = [m for m in facts.policy if [len(row) for row in m[1]] == [len(d.choices) for d in space.decisions]]
    if not moments:
        why = "This run has no record of the controller's probabilities yet."
        return Section("settled", title, (why,)) if facts.trials else None
    stride = max(1, math.ceil(len(moments) / POLICY_MOMENTS))
    seen = [moments[i] for i in range(len(moments) - 1, -1, -stride)][::-1]
    rows: list[tuple[Cell, ...]] = []
    for step, probabilities in seen:
        for i, decision in open_decisions:
            row = probabilities[i]
            ranks = sorted(range(len(row)), key=lambda index, row=row: (-row[index], index))  # type: ignore[misc]
            for index, choice in enumerate(decision.choices):
                rows.append((step, decision.path, index, str(choice), ranks.index(index), row[index]))
    policy = make_table(
        "policy",
        "",
        [
            ("step", "step", "d"),
            ("decision", "decision", ""),
            ("index", "index", "d"),
            ("choice", "choice", ""),
            ("rank", "rank", "d"),
            ("probability", "probability", ".1%"),
        ],
        rows,
        shown=False,
    )
    last = moments[-1][1]
    chosen = _winning_choices(facts, space)
    final = [
        (
            decision.path,
            str(decision.choices[max(range(len(last[i])), key=lambda index: last[i][index])]),
            max(last[i]),
            _entropy(last[i]) / math.log(len(last[i])),
            chosen.get(decision.path),
        )
        for i, decision in open_decisions
    ]
    decisions = make_table(
        "decisions",
        "Every decision at the end" if facts.found else "Every decision now",
        [
            ("decision", "decision", ""),
            ("choice", "most likely", ""),
            ("probability", "probability", ".1%"),
            ("openness", "normalised entropy (1: uniform)", ".2f"),
            ("winner", "winner's choice", ""),
        ],
        final,
        brief=False,
    )
    sure = sum(row[2] >= 0.9 for row in final)
    entropies = [sum(_entropy(moment[1][i]) for i, _ in open_decisions) for moment in (moments[0], moments[-1])]
    says = (
        f"For {sure} of {len(final)} decisions, one choice has a probability of at least 90%. The policy's entropy "
        f"went from {entropies[0]:.1f} to {entropies[1]:.1f} nats (0: deterministic). Decisions that hardly change "
        "either have little effect on quality and latency, or the search was too short for them.",
    )
    paths = [decision.path for _, decision in open_decisions]
    shown = (plots.confidence(len(paths)), plots.one_decision(paths))
    return Section("settled", title, says, shown, (decisions, policy))


def _winning_choices(facts: RunFacts, space: SearchSpace) -> Mapping[str, str]:
    """The winner's choice for each of its active decisions."""
    if facts.found is None:
        return {}
    described = space.describe(space.parse(facts.found.winner.architecture))
    return {path: str(value) for path, value in described.items()}


def _entropy(row: Sequence[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def target_section(facts: RunFacts) -> Section | None:
    """How the search approached the target."""
    timed = facts.timed
    if not timed or facts.target_ms is None:
        return None
    of_target = [trial.ms / facts.target_ms for trial in timed]
    quarter = max(1, len(timed) // 4)
    first, last = (fmean(share <= 1 for share in part) for part in (of_target[:quarter], of_target[-quarter:]))
    off = median(abs(share - 1) for share in of_target[-quarter:])
    says = (
        f"{first:.0%} of the first quarter of measured trials were within the target, and {last:.0%} of the last "
        f"quarter, whose median distance from the target is {off:.1%}. A search that aims at the target ends near 50%, "
        "because it samples both sides of it.",
    )
    shown = (plots.target_hits(ms_form(facts.target_ms)), plots.rolling_hits(_window(len(timed))))
    return Section("target", "Latency relative to the target", says, shown)


def _window(trials: int) -> int:
    return max(10, trials // 20)


def failures_section(facts: RunFacts) -> Section | None:
    """Outcomes of the candidates, by verdict."""
    if not facts.trials:
        return None
    counts = Counter(trial.verdict or "not timed" for trial in facts.trials)
    rows: list[tuple[Cell, ...]] = []
    for verdict, count in counts.most_common():
        details = Counter(t.detail for t in facts.trials if (t.verdict or "not timed") == verdict and t.detail)
        example = details.most_common(1)[0][0] if details else None
        rows.append((verdict, count, count / len(facts.trials), VERDICTS.get(verdict, ""), example))
    failed = len(facts.trials) - counts["ok"]
    says = (
        "Every candidate has a reliable latency."
        if not failed
        else f"{failed:,} of {len(facts.trials):,} candidates ({failed / len(facts.trials):.1%}) have no reliable "
        "latency. Candidates that failed themselves are rewarded as bad ones; those that the device could not measure "
        "are left out."
    )
    columns: list[ColumnSpec] = [
        ("verdict", "verdict", ""),
        ("trials", "trials", "d"),
        ("share", "share", ".1%"),
        ("meaning", "meaning", ""),
        ("example", "most frequent detail", ""),
    ]
    return Section("failures", "Candidates by verdict", (says,), tables=(make_table("verdicts", "", columns, rows),))


def prediction_section(facts: RunFacts, space: SearchSpace | None) -> Section | None:
    """How well an additive latency model fits."""
    title = "Measured vs. predicted latency"
    if space is None or any(trial.kind != LatencyKind.MEASURED for trial in facts.timed) or not facts.timed:
        return None
    chosen = facts.timed[:: max(1, len(facts.timed) // PREDICTED_TRIALS)]
    points = [(space.parse(trial.architecture), trial.ms) for trial in chosen]
    model = (
        "The model assigns a latency to each choice of each decision and adds them up, like a latency table per block. "
        "It is fitted by ridge regression on half of the architectures measured in this run and tested on the other "
        "half."
    )
    predicted = predict(space, points)
    if predicted is None:
        few = f"Too few measurements: it requires at least {FEWEST_FOR_PREDICTION} architectures."
        return Section("prediction", title, (model, few))
    says = (
        model,
        f"Fitted on {predicted.fitted:,} architectures, its median error on the other "
        f"{len(predicted.measured_ms):,} is {predicted.median_error:.1%}; the rank correlation is "
        f"{predicted.rank_correlation:.2f} (1: same order).",
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
    form = ms_form(target_ms)
    of_target = [t.latency_ms / target_ms if t.latency_ms is not None and target_ms else None for t in trials]
    hits = [share <= 1 for share in of_target if share is not None]
    shares = iter(rolling_share(hits, _window(len(hits))))
    columns = (
        Column("step", "step", "d", [t.step for t in trials]),
        Column("latency_ms", "ms", form, [t.latency_ms for t in trials]),
        Column("low_ms", "95% from", form, [t.interval_ms[0] if t.interval_ms else None for t in trials]),
        Column("high_ms", "95% to", form, [t.interval_ms[1] if t.interval_ms else None for t in trials]),
        Column("of_target", "of target", ".1%", of_target),
        Column("quality", "quality", ".1%", [t.quality for t in trials]),
        Column("reward", "reward", ".4f", [t.reward for t in trials]),
        Column("verdict", "verdict", "", [t.verdict for t in trials]),
        Column("detail", "detail", "", [t.detail or None for t in trials]),
        Column("architecture", "architecture", "", [t.architecture for t in trials]),
        Column("series", "", "", ["Pareto front" if id(t) in front else "trial" for t in trials], shown=False),
        Column("hit", "", "", [_hit(share) for share in of_target], shown=False),
        Column("rolling_hits", "", ".1%", [None if s is None else next(shares) for s in of_target], shown=False),
        *condition_columns(facts),
    )
    return Table("trials", "", columns, brief=False)


def _hit(of_target: float | None) -> str | None:
    return None if of_target is None else "within target" if of_target <= 1 else "over target"
