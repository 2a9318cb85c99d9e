"""The sections about the result: the winner next to its baselines, int8 next to float, random architectures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from device_agents.api import Measurement
from nas_edge.formatting import ms_form
from nas_edge.report import plots
from nas_edge.report.content import Cell, ColumnSpec, Section, Table, make_table
from nas_edge.report.reading import RunFacts, TrialFacts, series_of
from nas_edge.resources import RESOURCES
from nas_edge.runs.paired_result import PairedResult
from nas_edge.runs.result import DeviceResult, LatencyEstimate, ResultRow, RunResult
from nas_edge.text import origin_text


def result_section(facts: RunFacts) -> Section | None:
    """The winner next to its baselines."""
    if facts.result is None:
        return None
    make = _architectures if facts.result.device is None else _delivered
    return make(facts, facts.result)


def _architectures(facts: RunFacts, result: RunResult) -> Section:
    """What was found by a run that delivers no network."""
    kind = None if result.latency_kind is None else str(result.latency_kind)
    columns: list[ColumnSpec] = [
        ("name", "what", ""),
        ("series", "", None),
        ("latency_ms", "ms", ms_form(result.target_ms)),
        ("latency_kind", "latency is", ""),
        ("quality", facts.quality_name, facts.quality_form),
        ("architecture", "architecture", ""),
    ]
    rows = [
        (row.name, series_of(row), row.estimate_ms, kind, row.quality, row.architecture or None) for row in result.rows
    ]
    estimate = result.latency_estimate
    origin = "" if estimate is None else f"Latencies are {origin_text(estimate.kind, estimate.source)}. "
    says = (
        f"{origin}The run ends with an architecture: no network was converted, measured or delivered. To rank networks "
        "on a device, search a space of networks with --device.",
    )
    tables = (make_table("result", "", columns, rows), *_limit_tables(result))
    return Section("result", "Result", says, tables=tables)


def _delivered(facts: RunFacts, result: RunResult) -> Section:
    """The delivered network next to its baselines."""
    form, metric = ms_form(result.target_ms), facts.metric.name
    rows = [
        _delivered_row(facts, result, network, precision, measured)
        for network in result.rows
        for precision, measured in sorted(network.latency.items(), key=lambda item: item[0] != result.precision)
    ]
    columns: list[ColumnSpec] = [
        ("name", "network", ""),
        ("series", "", None),
        ("precision", "precision", ""),
        ("latency_ms", "ms", form),
        ("low_ms", "95% from", form),
        ("high_ms", "95% to", form),
        ("observed_median_ms", "observed ms", form),
        ("observed_p90_ms", "observed p90", form),
        ("latency_kind", "latency is", ""),
        ("accuracy_text", f"test {metric}", ""),
        ("accuracy", f"test {metric}", None),
        ("accuracy_low", "", None),
        ("accuracy_high", "", None),
        ("test_images", "", None),
        ("p_value", "p vs. winner", ".3f"),
        ("test", "", None),
        ("latency_differs", "", None),
        ("quality", facts.quality_name, facts.quality_form),
        ("verdict", "verdict", ""),
        ("detail", "detail", ""),
    ]
    table = make_table("delivered", "", columns, rows)
    says = [
        f"Each network was {_training(facts)} with the same recipe, converted, and measured on the device, interleaved "
        f"with the others. Its test {metric} is that of exactly this file, on test examples used in neither search nor "
        "training."
    ]
    says += _training_options(facts, [network.name for network in result.rows])
    if any(network.accuracy_interval for network in result.rows):
        says.append("In brackets: 95% intervals.")
    if result.latency_estimate is not None:
        says.append(_estimate_words(result, result.latency_estimate, form))
    if result.hardware_check is not None:
        says.append(f"The winner's {result.precision} file was {result.hardware_check}.")
    names = [name for name in plots.SERIES if name in set(table.columns[1].values)]
    shown = sorted({str(row[2]) for row in rows})
    plot = plots.delivered(result.target_ms, form, f"test {metric}", facts.quality_form, names, shown)
    tables = [table, *([_devices_table(result)] if result.further else []), *_resource_tables(result)]
    return Section("result", "Result", tuple(says), (plot,), tuple(tables))


def _resource_tables(result: RunResult) -> list[Table]:
    """What each file uses of other resources than time, and the targets and limits of these."""
    rows: list[tuple[Cell, ...]] = [
        (network.name, precision, name, use.value, RESOURCES[name].unit or None, use.kind, use.note or None)
        for network in result.rows
        for precision, uses in network.resources.items()
        for name, use in uses.items()
        if name in RESOURCES
    ]
    columns: list[ColumnSpec] = [
        ("name", "network", ""),
        ("precision", "precision", ""),
        ("resource", "resource", ""),
        ("value", "value", ",.6g"),
        ("unit", "unit", ""),
        ("kind", "value is", ""),
        ("note", "what it covers, or why not available", ""),
    ]
    tables = [make_table("resources", "Other resources", columns, rows, brief=False)] if rows else []
    return [*_limit_tables(result), *tables]


def _limit_tables(result: RunResult) -> list[Table]:
    """Targets and limits of other resources than time; empty if there are none."""
    rows: list[tuple[Cell, ...]] = [
        (
            each.objective.resource,
            "limit" if each.objective.limit else "target",
            each.objective.target,
            each.use.value,
            RESOURCES[each.objective.resource].unit or None,
            each.use.kind,
            each.outcome.value,
        )
        for each in result.resources
    ]
    columns: list[ColumnSpec] = [
        ("resource", "resource", ""),
        ("aim", "target or limit", ""),
        ("target", "requested", ",.6g"),
        ("value", "winner", ",.6g"),
        ("unit", "unit", ""),
        ("kind", "winner is", ""),
        ("outcome", "outcome", ""),
    ]
    return [make_table("limits", "Targets and limits of other resources", columns, rows)] if rows else []


def _devices_table(result: RunResult) -> Table:
    """The delivered networks on each of several models of devices."""
    rows: list[tuple[Cell, ...]] = []
    for network in result.rows:
        first = DeviceResult(str(result.device), result.target_ms, {network.name: network.latency})
        for each in (first, *result.further):
            for precision, measured in each.latency.get(network.name, {}).items():
                low, high = measured.interval_ms or (None, None)
                outcome = str(each.outcome(network.name, precision))
                verdict = str(measured.verdict)
                where = (network.name, each.device, precision, each.target_ms)
                rows.append((*where, measured.best_ms, low, high, outcome, verdict))
    form = ms_form(min([result.target_ms, *(each.target_ms for each in result.further)]))
    columns: list[ColumnSpec] = [
        ("name", "network", ""),
        ("device", "device", ""),
        ("precision", "precision", ""),
        ("target_ms", "target, ms", form),
        ("latency_ms", "measured ms", form),
        ("low_ms", "95% from", form),
        ("high_ms", "95% to", form),
        ("outcome", "target", ""),
        ("verdict", "verdict", ""),
    ]
    return make_table("devices", "On each device", columns, rows)


def _delivered_row(
    facts: RunFacts, result: RunResult, network: ResultRow, precision: str, measured: Measurement
) -> tuple[Cell, ...]:
    """What is known of one file, by the columns of the table."""
    low, high = measured.interval_ms or (None, None)
    ms, observed = network.best_ms(precision), measured.statistics if measured.visits else None
    return (
        network.name,
        series_of(network),
        precision,
        ms,
        low,
        high,
        None if observed is None else observed.median_ms,
        None if observed is None else observed.p90_ms,
        None if ms is None else "measured",
        network.accuracy_text(precision, facts.quality_form) if precision in network.accuracy else None,
        network.accuracy.get(precision),
        *network.accuracy_interval.get(precision, (None, None)),
        result.test_images,
        *(_tested(result, network) if precision == result.precision else (None, None, None)),
        network.quality,
        str(measured.verdict),
        measured.detail or None,
    )


def _tested(result: RunResult, network: ResultRow) -> tuple[float | None, str | None, bool | None]:
    """Against the winner: p-value and name of the test of accuracies, and whether latencies differ."""
    if network is result.winner:
        return None, None, None
    tested, differs = network.accuracy_vs_winner, result.latency_differs(network)
    return (None, None, differs) if tested is None else (tested.p_value, tested.test, differs)


def _training_options(facts: RunFacts, names: Sequence[str]) -> list[str]:
    """Sentences on what the trainings had beside their recipe's plain settings."""
    says = []
    if facts.warm_start is not None:
        starts = facts.warm_start.layers
        if each := [f"{name} ({starts[name]})" for name in names if name in starts]:
            says.append(f"Trainings started from {facts.warm_start.what}: {'; '.join(each)}.")
    if facts.teacher is not None:
        quality = facts.teacher.quality
        known = "" if quality is None else f", whose {facts.metric.name} on validation examples is "
        known += "" if quality is None else facts.quality_text(quality)
        says.append(f"All learned from the largest network of the space as well{known}.")
    ended = [f"{name} {facts.early_stops[name]}" for name in names if name in facts.early_stops]
    if ended:
        says.append(f"Trainings stop early by validation examples: {'; '.join(ended)}.")
    decay = getattr(facts.config.training, "ema_decay", None)
    if decay is not None:
        says.append(f"Weights are a moving average over the steps, with a decay of {decay:g}.")
    return says


def _training(facts: RunFacts) -> str:
    if facts.config.export.weights == "scratch":
        return "trained from scratch" if facts.warm_start is None else "trained"
    return "trained, those of the search space from the search's weights and others from scratch,"


def _estimate_words(result: RunResult, estimate: LatencyEstimate, form: str) -> str:
    """How far the device is from what the search went by."""
    origin = f"The search went by latencies {origin_text(estimate.kind, estimate.source)}"
    measured_ms = result.latency_ms
    if not estimate.latency_ms or measured_ms is None:
        return f"{origin}."
    off = measured_ms / estimate.latency_ms - 1
    return (
        f"{origin}: {estimate.latency_ms:{form}} ms for the winner. The delivered file's measured latency is "
        f"{measured_ms:{form}} ms, {abs(off):.1%} {'more' if off >= 0 else 'less'}."
    )


def halving_section(facts: RunFacts) -> Section | None:
    """The finalists that were trained to find the best of them."""
    if not facts.halving:
        return None
    searched = {trial.architecture: trial for trial in (*facts.randoms, *facts.finalists)}
    budgets = sorted({score.epochs for scores in facts.halving.values() for score in scores})
    rows: list[tuple[Cell, ...]] = []
    for name, scores in facts.halving.items():
        after: dict[str, dict[float, float | None]] = {}
        for score in scores:
            after.setdefault(score.architecture, {})[score.epochs] = score.quality
        # Those that got furthest first, and of these the best.
        order = sorted(after, key=lambda text: (-max(after[text]), -(after[text][max(after[text])] or 0.0)))
        for text in order:
            trial = searched.get(text)
            known = (None, None) if trial is None else (trial.latency_ms, trial.quality)
            kind = None if trial is None else _kind(trial)
            rows.append((name, known[0], kind, known[1], *(after[text].get(epochs) for epochs in budgets), text))
    columns: list[ColumnSpec] = [
        ("of", "to find", ""),
        ("latency_ms", "ms", ms_form(facts.target_ms)),
        ("latency_kind", "latency is", ""),
        ("quality", facts.quality_name, facts.quality_form),
        *((f"after_{epochs:g}_epochs", f"after {epochs:g} epochs", facts.quality_form) for epochs in budgets),
        ("architecture", "architecture", ""),
    ]
    both = " Those of the search and of the random baseline were treated alike." if len(facts.halving) > 1 else ""
    says = (
        "Finalists were each trained on their own, without validation examples, and the better half went on with twice "
        f"the epochs. The columns after so many epochs are the {facts.metric.name} on all validation examples.{both}",
    )
    return Section("halving", "Trained finalists", says, tables=(make_table("halving", "", columns, rows),))


def precision_section(facts: RunFacts) -> Section | None:
    """What is delivered compared with float: accuracy and latency."""
    result = facts.result
    if result is None or result.precision == "float32":
        return None
    delivered = result.precision
    if not any({delivered, "float32"} <= network.latency.keys() for network in result.rows):
        return None
    percent = facts.quality_form.endswith("%")
    scale = 100 if percent else 1
    shown: list[tuple[float | None, float | None]] = []
    rows: list[tuple[Cell, ...]] = []
    for network in result.rows:
        quantized, real = network.best_ms(delivered), network.best_ms("float32")
        accuracies = network.accuracy.get(delivered), network.accuracy.get("float32")
        gained = None if None in accuracies else scale * (accuracies[0] or 0) - scale * (accuracies[1] or 0)
        speed = real / quantized if quantized and real else None
        tested = network.quantized_vs_float
        texts = (network.accuracy_text(precision, facts.quality_form) for precision in (delivered, "float32"))
        p_value = None if tested is None else tested.p_value
        rows.append((network.name, quantized, real, speed, *texts, *accuracies, gained, p_value))
        shown.append((speed, gained))
    form, metric = ms_form(result.target_ms), facts.metric.name
    columns: list[ColumnSpec] = [
        ("name", "network", ""),
        ("quantized_ms", f"{delivered}, measured ms", form),
        ("float32_ms", "float, measured ms", form),
        ("speed_up", f"{delivered} speed-up", ".2f"),
        ("quantized_accuracy_text", f"{delivered} {metric}", ""),
        ("float32_accuracy_text", f"float {metric}", ""),
        ("quantized_accuracy", "", None),
        ("float32_accuracy", "", None),
        ("difference", "difference, points" if percent else "difference", ".1f" if percent else facts.quality_form),
        ("p_value", "p", ".3f"),
    ]
    says = _precision_words(delivered, *shown[0], metric, percent, facts.quality_form, result.winner.quantized_vs_float)
    if result.quantization is not None:
        line = result.quantization.text(metric, facts.quality_form)
        says.append(f"{line[0].upper()}{line[1:]}.")
    if result.noisiest_layers:
        layers = ", ".join(result.noisiest_layers)
        says.append(f"The winner's layers with the most quantisation noise (signal-to-noise ratio): {layers}.")
    table = make_table("precisions", "", columns, rows)
    return Section("precision", f"{delivered} vs. float", tuple(says), tables=(table,))


def _precision_words(
    delivered: str,
    speed: float | None,
    gained: float | None,
    metric: str,
    percent: bool,
    form: str,
    tested: PairedResult | None,
) -> list[str]:
    """Sentences on the winner: `speed` is float's latency over the delivered one's, `gained` in (percentage) points."""
    says = []
    if speed is None:
        says.append("One of the two could not be measured.")
    elif speed < 1:
        says.append(
            f"{delivered} is slower than float on this device: {1 / speed:.2f} times the latency for the winner. "
            "Unless file size matters, or the target device has faster kernels for it than this one, ship the float "
            "model."
        )
    else:
        says.append(f"For the winner, {delivered} is {speed:.2f} times as fast as float.")
    if gained is None:
        return says
    size = f"{abs(gained):.1f} percentage points" if percent else f"{abs(gained):{form}}"
    if float(size.split()[0]) == 0:
        says.append(f"Quantisation does not change its test {metric}.")
    else:
        says.append(f"Quantisation {'gains' if gained > 0 else 'costs'} {size} of test {metric}{_doubt(tested)}.")
    return says


def _doubt(tested: PairedResult | None) -> str:
    if tested is None:
        return ""
    return f" ({'significant' if tested.significant else 'not significant'}: {tested})"


def baseline_section(facts: RunFacts) -> Section | None:
    """Random architectures compared with the search's."""
    if facts.target_ms is None or not facts.randoms:
        return None
    groups = {"finalists": facts.finalists, "search": facts.late, "random": facts.randoms}
    rows = [
        (name, trial.q, trial.ms, _kind(trial), trial.architecture)
        for name, trials in groups.items()
        for trial in trials
        if trial.quality is not None and trial.latency_ms is not None and trial.latency_ms <= facts.target_ms
    ]
    columns: list[ColumnSpec] = [
        ("series", "of", ""),
        ("quality", "quality", facts.quality_form),
        ("latency_ms", "ms", ms_form(facts.target_ms)),
        ("latency_kind", "latency is", ""),
        ("architecture", "architecture", ""),
    ]
    table = make_table("baseline", "", columns, rows, shown=False)
    of = {name: [quality for series, quality, *_ in rows if series == name] for name in groups}
    compared = (
        "They and the finalists were evaluated after the search, alike; the search's trials are those of its second "
        "half, evaluated as the search went."
        if facts.quality_drifts
        else "All were evaluated alike, in the search and after it."
    )
    says = [_randoms_text(facts, of["random"]), compared]
    winner = facts.result.winner.quality if facts.result else None
    scored = [trial.quality for trial in facts.randoms if trial.quality is not None]
    if winner is not None and scored:
        beaten = fmean(quality < winner for quality in scored)
        them = "all of them" if beaten == 1 else f"{beaten:.0%} of them"
        says.append(f"The winner, at {facts.quality_text(winner)}, beats {them}, whatever their latency.")
    names = [name for name in groups if of[name]]
    shown = (plots.baseline(names, facts.quality_name, facts.quality_form),) if names else ()
    return Section("baseline", "Comparison with random architectures", tuple(says), shown, (table,))


def _randoms_text(facts: RunFacts, within: Sequence[float]) -> str:
    """How many random architectures were scored and checked against the target, and the best of those within it."""
    scored = [trial.quality for trial in facts.randoms if trial.quality is not None]
    timed = sum(trial.kind is not None for trial in facts.randoms)
    checked = "all" if timed == len(facts.randoms) else f"the best {timed:,}"
    until = "" if timed == len(facts.randoms) else ", in order, until one met it"
    middle = f", with a median {facts.metric.name} of {facts.quality_text(median(scored))}" if scored else ""
    best = f"; the best of these has {facts.quality_text(max(within))}" if within else ""
    return (
        f"{len(scored):,} random architectures were scored{middle}; {checked} were checked against the target{until}, "
        f"and {len(within):,} {'is' if len(within) == 1 else 'are'} within it{best}."
    )


def _kind(trial: TrialFacts) -> str | None:
    return None if trial.kind is None else str(trial.kind)
