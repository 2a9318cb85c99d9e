"""How many times as long one model takes as another, and how sure that is.

Models of one benchmark were visited in the same rounds and are compared within these (`device_agents.ratios`). Where
there are too few such rounds, and between two benchmarks, their latencies are compared, each with its own interval.

Two benchmarks differ in more than the models. What probes say decides (`probes`): where they have not changed,
latencies are compared as they are; where all have changed by the same factor, it is divided out; else nothing can be
said. The interval is widened by `SESSION_SPREAD`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from device_agents.ratios import Ratio, paired_ratio, ratio_of_latencies
from nas_edge.benchmarking.probes import change_of_probes
from nas_edge.benchmarking.report import BenchmarkRow, Report

# Half the 95% interval of the logarithm of one model's latency in one session over that in another: memory layout,
# clocks and neighbours differ by process.
SESSION_SPREAD = 0.04


@dataclass(frozen=True)
class Comparison:
    """One row against a reference.

    Attributes:
        model: Name of the model.
        device: Address of the device.
        threads: Threads given to the runtime.
        reference: What it is compared with.
        ratio: Its latency over the reference's; below 1 is faster. None if they cannot be compared.
        interval: 95% interval of the ratio.
        conclusion: In words: how much slower or faster, or that it is not significant, or why there is no ratio.
        caveats: What is to be known of it.
    """

    model: str
    device: str
    threads: int
    reference: str
    ratio: float | None
    interval: tuple[float, float] | None
    conclusion: str
    caveats: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """True if the interval does not contain 1."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]


def compare_models(report: Report) -> list[Comparison]:
    """Compares each model with the first one that has a latency, for each device and thread count."""
    groups: dict[tuple[str, int], list[BenchmarkRow]] = {}
    for row in report.rows:
        if not row.failed:
            groups.setdefault((row.device, row.threads), []).append(row)
    return [_with_other(row, rows[0]) for rows in groups.values() for row in rows[1:]]


def _with_other(row: BenchmarkRow, reference: BenchmarkRow) -> Comparison:
    ratio = paired_ratio(row.measurement, reference.measurement)
    caveats = _flag_caveats(row, reference)
    if ratio is None:
        ratio = ratio_of_latencies(row.measurement, reference.measurement)
        if row.rounds and reference.rounds:
            caveats.append("too few rounds in which both were undisturbed: latencies compared")
    if ratio is None:
        return _not_comparable(row, reference.model.name, "too few runs for an interval")
    return _comparison(row, reference.model.name, ratio, caveats)


def compare_with_baseline(report: Report, baseline: Report) -> list[Comparison]:
    """Compares each row that has a latency with the same model of an earlier benchmark."""
    return [_with_baseline(row, report, baseline) for row in report.rows if not row.failed]


def _with_baseline(row: BenchmarkRow, report: Report, baseline: Report) -> Comparison:
    reference = f"baseline of {baseline.created_utc[:10]}"
    same_bytes = [other for other in baseline.rows if other.model.sha256 == row.model.sha256]
    same_name = [other for other in baseline.rows if other.model.name == row.model.name]
    known = same_bytes or same_name
    if not known:
        return _not_comparable(row, reference, "the baseline does not have this model")
    candidates = [other for other in known if not _differences(row, report, other, baseline)]
    if not candidates:
        # The one with the fewest differences tells best what to change.
        fewest = min((_differences(row, report, other, baseline) for other in known), key=len)
        return _not_comparable(row, reference, "; ".join(fewest))
    other = candidates[0]
    ratio = ratio_of_latencies(row.measurement, other.measurement)
    if ratio is None:
        return _not_comparable(row, reference, "too few runs for an interval")
    caveats = [
        "" if same_bytes else "another file of the same name",
        *_flag_caveats(row, other),
        "" if report.preset == baseline.preset else f"preset {report.preset}, baseline {baseline.preset}",
    ]
    now_ms = report.devices[row.device].undisturbed_ms(row.threads)
    then_ms = baseline.devices[other.device].undisturbed_ms(other.threads) if other.device in baseline.devices else {}
    change = change_of_probes(now_ms, then_ms)
    if change is None:
        caveats.append("whether the device itself has changed is not known" if now_ms or then_ms else "")
    elif not change.is_none:
        if change.factor is None:
            why = f"the device itself has changed, and not alike for all models ({change}); measure both again"
            return _not_comparable(row, reference, why)
        ratio = ratio.scaled(1 / change.factor)
        caveats.append(f"corrected, as the device itself has changed ({change})")
    return _comparison(row, reference, ratio.widened(SESSION_SPREAD), caveats)


def _differences(row: BenchmarkRow, report: Report, other: BenchmarkRow, baseline: Report) -> list[str]:
    """What makes two latencies incomparable, in words."""
    if other.failed:
        return [f"it ended with {other.measurement.verdict} there"]
    if min(other.measurement.samples_ms) <= 0:  # not written by this tool
        return ["its times there are not above 0"]
    ours, theirs = row.measurement.conditions, other.measurement.conditions
    if ours is None or theirs is None:
        return ["the conditions of one of them are not known"]
    checks = {
        "device": (
            f"{ours.device_model} {ours.device_fingerprint}",
            f"{theirs.device_model} {theirs.device_fingerprint}",
        ),
        "threads": (row.threads, other.threads),
        "runtime": (f"{ours.runtime} {ours.runtime_version}", f"{theirs.runtime} {theirs.runtime_version}"),
        "delegate": (ours.delegate, theirs.delegate),
        "cores": (ours.cores, theirs.cores),
        "input shapes": (report.spec.input_shapes, baseline.spec.input_shapes),
        "latency": (_kind(row), _kind(other)),
    }
    return [f"{name}: {now}, baseline {then}" for name, (now, then) in checks.items() if now != then]


def _kind(row: BenchmarkRow) -> str:
    """Which latency a row has."""
    return "median of all runs, as of earlier versions; measure it again" if row.measurement.quiet is None else "quiet"


def _flag_caveats(row: BenchmarkRow, other: BenchmarkRow) -> list[str]:
    flags = sorted({str(r.measurement.verdict) for r in (row, other) if r.flagged})
    return [f"unreliable latency: {' and '.join(flags)}"] if flags else []


def _comparison(row: BenchmarkRow, reference: str, ratio: Ratio, caveats: Iterable[str]) -> Comparison:
    if ratio.significant:
        conclusion = f"{abs(ratio.value - 1):.1%} {'slower' if ratio.value > 1 else 'faster'}"
    else:
        conclusion = "no significant difference"
    return Comparison(
        row.model.name, row.device, row.threads, reference, ratio.value, ratio.interval, conclusion,
        tuple(filter(None, caveats)),
    )  # fmt: skip


def _not_comparable(row: BenchmarkRow, reference: str, why: str) -> Comparison:
    return Comparison(row.model.name, row.device, row.threads, reference, None, None, f"not comparable: {why}")
