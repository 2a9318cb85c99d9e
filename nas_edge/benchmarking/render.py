"""A benchmark as a table for people, as CSV and as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from device_agents.api import Measurement, OpTime, Verdict
from nas_edge.benchmarking.comparison import Comparison
from nas_edge.benchmarking.report import BenchmarkRow, DeviceRecord, Report
from nas_edge.formatting import ms_text
from nas_edge.terminal import printable

_TOP_OPERATORS = 10
_LONGEST_NAME = 50
# Runtimes time single operators in whole microseconds.
_CLOCK_MS = 1e-3
_LEADING = ("MODEL", "DEVICE", "THREADS", "VERDICT")
_HEADER = (
    *_LEADING,
    *("QUIET ms", "95% INTERVAL", "OBSERVED", "P90", "VISITS", "RUNS", "INIT ms", "FIRST ms", "PEAK MB", "SIZE MB"),
)
# What a narrow terminal does without, the least needed first.
_SPARE = ("SIZE MB", "FIRST ms", "INIT ms", "PEAK MB", "RUNS", "VISITS")
_FOOTER = """\
QUIET: what the network costs where nothing else runs on the device, from the
lowest visits, which agree (VISITS: how many, of all; each is a few runs).
OBSERVED, P90: median and 90th percentile of all runs: what it cost meanwhile."""
_CONDITIONS = (
    *("device_model", "device_fingerprint", "runtime", "runtime_version", "delegate", "delegate_kernels", "cores"),
    *("governor", "cpu_mhz_before", "cpu_mhz_after", "temperature_c_before", "temperature_c_after"),
    *("throttle_events", "load_average_before", "load_average_after", "other_load_cores", "wait_share", "started_utc"),
)
_STATISTICS = ("median_ms", "mean_ms", "p5_ms", "p90_ms", "p95_ms", "min_ms", "max_ms", "mad_ms")


def to_table(
    report: Report,
    among: Sequence[Comparison] = (),
    with_baseline: Sequence[Comparison] | None = None,
    width: int | None = None,
) -> str:
    """Returns the results as text.

    Args:
        report: The benchmark.
        among: Its models compared with each other.
        with_baseline: The same models compared with an earlier benchmark; None if there is none.
        width: Characters of a line, for which columns are left out; None keeps all.
    """
    table = _narrowed([_HEADER, *map(_cells, report.rows)], width)
    above = [_devices(report), *_incomplete(report)]
    below = [_FOOTER] if any(row.measurement.quiet is not None for row in report.rows) else []
    doubts = [
        f"? {_who(row)}: {row.measurement.verdict}: {printable(row.measurement.detail)}"
        for row in report.rows
        if row.flagged
    ]
    if doubts:
        below.append("Unreliable latency:\n" + "\n".join(doubts))
    notes = [_corrected_note(row) for row in report.rows] + [_open_note(row, report) for row in report.rows]
    notes += [_energy_note(row) for row in report.rows if report.spec.energy and not row.failed]
    notes = [*dict.fromkeys(filter(None, notes))]
    if notes:
        below.append("\n".join(notes))
    if among:
        below.append(_comparisons("Latency ratios [95% interval]:", among, report))
    if with_baseline is not None:
        below.append(_comparisons("Compared with the baseline [95% interval]:", with_baseline, report))
    blocks = [*(_wrapped(block, width) for block in above), table, *(_wrapped(block, width) for block in below)]
    if report.spec.profile_ops:
        blocks += [_operators(row) for row in report.rows if not row.failed]
    return "\n\n".join(blocks)


def _incomplete(report: Report) -> list[str]:
    """What is to be known of a benchmark that was stopped, or was continued later."""
    lines = []
    if not report.complete:
        lines.append(f"INCOMPLETE: {report.missing_text}; intervals are wider than was asked for")
    if report.continued_utc:
        times = ", ".join((report.created_utc, *report.continued_utc))
        lines.append(f"note: measured in {1 + len(report.continued_utc)} sessions ({times})")
    return ["\n".join(lines)] if lines else []


def to_json(report: Report, among: Sequence[Comparison] = (), with_baseline: Sequence[Comparison] | None = None) -> str:
    """Returns everything, samples included, for `report.read_report` and other programs."""
    comparisons = {"among_models": [*map(asdict, among)], "with_baseline": [*map(asdict, with_baseline or ())]}
    return json.dumps({**report.to_json(), "comparisons": comparisons})


def to_csv(report: Report, with_baseline: Sequence[Comparison] | None = None) -> str:
    """Returns a line for each row; what was not measured is empty."""
    compared = {(c.model, c.device, c.threads): c for c in with_baseline or ()}
    records = []
    for row in report.rows:
        record = _record(row, report)
        comparison = compared.get((row.model.name, row.device, row.threads))
        if with_baseline is not None:
            low, high = comparison.interval if comparison and comparison.interval else (None, None)
            record |= {
                "baseline_ratio": comparison.ratio if comparison else None,
                "baseline_ratio_low": low,
                "baseline_ratio_high": high,
                "baseline_conclusion": "; ".join((comparison.conclusion, *comparison.caveats)) if comparison else None,
            }
        records.append(record)
    return _write_csv(records, () if records else ("model",))


def to_ops_csv(report: Report) -> str:
    """Returns a line for each operator of each row, in the order of running."""
    return _write_csv(
        [
            {"model": row.model.name, "device": row.device, "threads": row.threads, "position": i, **asdict(op)}
            for row in report.rows
            for i, op in enumerate(row.measurement.profile)
        ],
        ("model", "device", "threads", "position", "op", "name", "mean_ms", "share"),
    )


def _record(row: BenchmarkRow, report: Report) -> dict[str, Any]:
    measurement = row.measurement
    statistics, conditions = measurement.statistics, measurement.conditions
    low, high = statistics.interval_ms if statistics and statistics.interval_ms else (None, None)
    quiet = measurement.quiet
    record: dict[str, Any] = {
        "model": row.model.name,
        "path": printable(row.model.path),
        "sha256": row.model.sha256,
        "size_bytes": row.model.size_bytes,
        "device": row.device,
        "threads": row.threads,
        "preset": report.preset,
        "verdict": measurement.verdict.value,
        "detail": measurement.detail,
        "quiet_ms": quiet.latency_ms if quiet else None,
        "quiet_low_ms": quiet.interval_ms[0] if quiet else None,
        "quiet_high_ms": quiet.interval_ms[1] if quiet else None,
        "visits": len(measurement.visits),
        "visits_agreeing": quiet.visits if quiet else None,
        **{name: getattr(statistics, name, None) for name in _STATISTICS},
        "median_low_ms": low,
        "median_high_ms": high,
        "runs": measurement.runs,
        "samples": len(measurement.samples_ms),
        "runs_per_sample": measurement.runs_per_sample,
        "rounds": row.rounds,
        "complete": row.complete,
        "attempts": measurement.attempts,
        "init_ms": measurement.init_ms,
        "first_inference_ms": measurement.first_inference_ms,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        **{name: getattr(conditions, name, None) for name in _CONDITIONS},
    }
    if record["cores"] is not None:
        record["cores"] = " ".join(map(str, record["cores"]))
    if report.spec.energy:
        record["energy_mj"], record["energy_note"] = measurement.energy_mj, measurement.energy_note
    if report.spec.profile_ops:
        record["profile_note"] = measurement.profile_note
    return record


def _write_csv(records: Sequence[dict[str, Any]], header: Sequence[str] = ()) -> str:
    import pandas as pd  # takes long to import, and only CSV needs it

    # Objects stay as they are: otherwise a missing count would make a column of floats.
    frame = pd.DataFrame(list(records), columns=list(header or records[0]), dtype=object)
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def _devices(report: Report) -> str:
    lines = []
    for address, device in report.devices.items():
        info = device.info
        lines.append(f"{address} {info.model}, {info.cores} cores, {info.os}, {info.runtime} {info.runtime_version}")
        most = max((row.threads for row in report.rows if row.device == address), default=0)
        if most > info.cores:
            lines.append(f"note: {most} threads share {info.cores} cores on {address}")
        lines += _probe_lines(device, most)
    spec = report.spec
    lines.append(
        f"preset {report.preset}: at least {spec.min_runs} runs and {spec.min_duration_s:g} s each, side by side; "
        f"delegate {spec.delegate}"
    )
    return "\n".join(lines)


def _probe_lines(device: DeviceRecord, most_threads: int) -> list[str]:
    """How quiet a device was: a line for each probe."""
    lines = []
    for probe in device.probes:
        state = probe.state
        with_threads = f" x{probe.threads}" if most_threads > 1 else ""
        if state.floor_ms is None or state.level is None or state.median_level is None:
            lines.append(f"  {state.name} probe{with_threads}: no floor known yet, {state.visits} visits")
            continue
        lines.append(
            f"  {state.name} probe{with_threads}: floor {ms_text(state.floor_ms)} ms, lately {_change(state.level)} at "
            f"best, {_change(state.median_level)} mostly; {state.quiet_share:.0%} quiet"
        )
    return lines


def _change(factor: float) -> str:
    """A factor as a change in percent, without a minus zero."""
    return f"{round(factor - 1, 2) + 0.0:+.0%}"


def _corrected_note(row: BenchmarkRow) -> str:
    """Why a latency is known less well than others that can be relied on."""
    if row.measurement.verdict is not Verdict.CORRECTED:
        return ""
    return f"{_who(row)}: {row.measurement.verdict}: {printable(row.measurement.detail)}"


def _energy_note(row: BenchmarkRow) -> str:
    """The energy of an inference, and of what; or why there is none."""
    measurement, note = row.measurement, printable(row.measurement.energy_note)
    if measurement.energy_mj is None:
        return f"{_who(row)}: energy not available: {note}"
    return f"{_who(row)}: {measurement.energy_mj:.4g} mJ per inference, {note}"


def _open_note(row: BenchmarkRow, report: Report) -> str:
    """Which dimensions were chosen for a model that leaves them open; empty when all were named or fixed."""
    names = [name for name in row.model.open_inputs if name not in dict(report.spec.input_shapes)]
    if row.failed or not names:
        return ""
    shown = [printable(name) for name in names]
    return (
        f"{row.model.name}: open dimensions of {', '.join(shown)} were taken as 1; "
        f"others with --input-shape {shown[0]}=N,N..."
    )


def _runs(measurement: Measurement) -> str:
    """How many runs were timed: 120, or where blocks were, 9x14; "?" where the device does not say how many."""
    each = measurement.runs_per_sample
    return str(measurement.runs) if each == 1 else f"{len(measurement.samples_ms)}x{each or '?'}"


def _cells(row: BenchmarkRow) -> tuple[str, ...]:
    measurement = row.measurement
    observed, quiet = measurement.statistics, measurement.quiet
    start = (row.model.name, row.device, str(row.threads), str(measurement.verdict))
    if row.failed or observed is None:
        return (*start, printable(measurement.detail))
    mark = " ?" if row.flagged else ""
    visits = len(measurement.visits)
    return (
        *start,
        f"{ms_text(quiet.latency_ms)}{mark}" if quiet else "-",
        f"{ms_text(quiet.interval_ms[0])}..{ms_text(quiet.interval_ms[1])}" if quiet else "-",
        f"{ms_text(observed.median_ms)}{'' if quiet else mark}",
        ms_text(observed.p90_ms),
        f"{quiet.visits if quiet else 0}/{visits}" if visits else "-",
        _runs(measurement),
        *map(ms_text, (measurement.init_ms, measurement.first_inference_ms)),
        _megabytes(measurement.peak_memory_bytes),
        _megabytes(row.model.size_bytes),
    )


def _comparisons(title: str, comparisons: Sequence[Comparison], report: Report) -> str:
    if not comparisons:
        return f"{title}\nnothing to compare: no model has a latency"
    return "\n".join([title, *(_sentence(comparison, report) for comparison in comparisons)])


def _sentence(comparison: Comparison, report: Report) -> str:
    """A comparison in words; device and threads are named where there are several."""
    c = comparison
    where = f" on {c.device}" if len(report.devices) > 1 else ""
    if len({row.threads for row in report.rows}) > 1:
        where += f" with {c.threads} thread{'s' if c.threads > 1 else ''}"
    if c.ratio is None or c.interval is None:
        return f"{c.model}{where}: {c.conclusion}"
    form = _ratio_form(c.interval)
    low, high = (format(end, form) for end in c.interval)
    notes = "; ".join(([] if c.significant else ["not significant"]) + [*c.caveats])
    return (
        f"{c.model} takes {c.ratio:{form}}x [{low}, {high}] the time of {c.reference}{where}"
        + (f" ({notes})" if notes else "")
    )  # fmt: skip


def _ratio_form(interval: tuple[float, float]) -> str:
    """As many decimals as the interval is worth, two at least."""
    width = max(interval[1] - interval[0], 1e-3)
    return f".{max(2, math.ceil(-math.log10(width)))}f"


def _operators(row: BenchmarkRow) -> str:
    measurement = row.measurement
    if not measurement.profile:
        return f"Operators of {_who(row)}: no times: {measurement.profile_note}"
    seen = sorted(
        (op for op in measurement.profile if op.mean_ms >= _CLOCK_MS / 2), key=lambda op: op.mean_ms, reverse=True
    )
    total_ms = sum(op.mean_ms for op in measurement.profile)
    title = (
        f"Operators of {_who(row)}: {len(measurement.profile)}, {ms_text(total_ms)} ms in all with the profiler on; "
        "all of them: --out with csv or json"
    )
    notes = ["The profiler counts whole microseconds in each run."]
    if unseen := len(measurement.profile) - len(seen):
        notes.append(f"{unseen} operators took less than that and are left out.")
    if any(op.name.startswith("delegate operator") for op in seen):
        notes.append(
            "The delegate fuses and reorders, and does not tell which of the model's operators its own are; "
            "--delegate none times the model's own, without it."
        )
    kinds: dict[str, list[OpTime]] = {}
    for op in seen:
        kinds.setdefault(op.op, []).append(op)
    sums = [(sum(op.mean_ms for op in ops), sum(op.share for op in ops), kind, ops) for kind, ops in kinds.items()]
    sums.sort(key=lambda each: each[0], reverse=True)
    by_kind = [("SUM ms", "SHARE", "OPERATORS", "KIND")]
    by_kind += [(ms_text(ms), f"{share:.1%}", str(len(ops)), kind) for ms, share, kind, ops in sums]
    single = [("MEAN ms", "SHARE", "OPERATOR", "NAME")]
    single += [(ms_text(op.mean_ms), f"{op.share:.1%}", op.op, _shortened(op.name)) for op in seen[:_TOP_OPERATORS]]
    slowest = f"The slowest {len(single) - 1}:"
    return "\n".join([title, " ".join(notes), "", _align(by_kind), "", slowest, _align(single)])


def _who(row: BenchmarkRow) -> str:
    return f"{row.model.name} on {row.device} with {row.threads} thread{'s' if row.threads > 1 else ''}"


def _shortened(name: str) -> str:
    # Converters join the names of fused operators with semicolons; the first is the telling one.
    first = name.split(";")[0]
    return first if len(first) <= _LONGEST_NAME else f"...{first[3 - _LONGEST_NAME :]}"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.2f}"


def _narrowed(rows: Sequence[tuple[str, ...]], width: int | None) -> str:
    """The table without as many of the least needed columns as it takes to fit."""
    # What is the same in all rows stands above the table, too.
    same = [
        name for at, name in enumerate(_LEADING) if name in ("DEVICE", "THREADS") and len({r[at] for r in rows}) == 2
    ]
    left_out: list[str] = []
    for name in (*_SPARE[:-1], *same, *_SPARE[-1:]):
        # What failed has a reason of any length, which may run on.
        whole = [row for row in rows if len(row) == len(rows[0])]
        if width is None or max(map(len, _align(whole).splitlines())) <= width:
            break
        at = rows[0].index(name)
        rows = [(*row[:at], *row[at + 1 :]) for row in rows]
        left_out.append(name)
    note = f"Too narrow for {', '.join(left_out)}; --format csv has all."
    return f"{_align(rows)}\n{_wrapped(note, width)}" if left_out else _align(rows)


def _wrapped(text: str, width: int | None) -> str:
    """Text whose lines fit, as far as its words do."""
    if width is None:
        return text
    lines = (
        textwrap.wrap(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
    return "\n".join("\n".join(wrapped) for wrapped in lines)


def _align(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell; a shorter row may run on freely in its last cell."""
    full = max(map(len, rows))
    # A row that failed has its reason after these, and nothing further.
    leading = sum(name in _LEADING for name in rows[0])
    widths = [max(len(row[column]) for row in rows if len(row) == full or column < leading) for column in range(full)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
