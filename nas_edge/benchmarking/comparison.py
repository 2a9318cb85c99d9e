"""Whether one model is faster than another, and how sure that is.

Runs close in time resemble each other, so resampling single runs alone would call chance a
difference. The bootstrap therefore resamples rounds first and runs within them second
(A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application", section 3.8).
Models of one benchmark took their rounds side by side and are resampled in pairs, so
what slowed both cancels out.

    x[r, i]   sample i of round r                   [rounds, runs]
    m(x)      median over all rounds and runs
    ratio     m(x) / m(reference)
    interval  the 2.5% and 97.5% quantiles of its logarithm over the resamples, widened about the ratio by
              t(R - 1) / z * sqrt(R / (R - 1)), because R rounds are few; between two sessions also by
              `SESSION_SPREAD`, in quadrature
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agents.anchor_watch import AnchorSettings
from nas_edge.benchmarking.report import BenchmarkRow, Report

RESAMPLES = 2000
# Half the 95% interval of the logarithm of one model's latency in one session over that in another: memory layout,
# clocks and neighbours differ by process. Repeated sessions with one file here differed by up to 0.8%.
SESSION_SPREAD = 0.02
# Enough for the median of a round; a fast model has a hundred thousand runs.
_MOST_RUNS_PER_ROUND = 200
_SEED = 0
_NORMAL_975 = 1.959963984540054
# 97.5% quantiles of Student's t for 1, 2, ... degrees of freedom.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Comparison:
    """One row against a reference.

    Attributes:
        model: Name of the model.
        device: Address of the device.
        threads: Threads given to the runtime.
        reference: What it is compared with.
        ratio: Its median over the reference's; below 1 is faster. None if they cannot be compared.
        interval: 95% interval of the ratio.
        conclusion: In words.
    """

    model: str
    device: str
    threads: int
    reference: str
    ratio: float | None
    interval: tuple[float, float] | None
    conclusion: str

    @property
    def significant(self) -> bool:
        """True if the interval does not contain 1."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]


def ratio_of_medians(
    rounds: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], paired: bool
) -> tuple[float, tuple[float, float]]:
    """Returns the ratio of two medians and its 95% bootstrap interval.

    Args:
        rounds: Samples of each round, in milliseconds, all above 0.
        reference: The same of what it is compared with.
        paired: Whether round r of both was taken at about the same time.
    """
    ratio = float(np.median(np.concatenate(rounds)) / np.median(np.concatenate(reference)))
    rng = np.random.default_rng(_SEED)
    paired = paired and len(rounds) == len(reference)
    chosen = rng.integers(len(rounds), size=(RESAMPLES, len(rounds)))
    chosen_reference = chosen if paired else rng.integers(len(reference), size=(RESAMPLES, len(reference)))
    log_ratios = np.log(_resampled_medians(rounds, chosen, rng) / _resampled_medians(reference, chosen_reference, rng))
    widening = _widening(min(len(rounds), len(reference)))
    low, high = (np.quantile(log_ratios, (0.025, 0.975)) - math.log(ratio)) * widening
    # The point is inside by definition; rounding must not put it outside.
    return ratio, (ratio * math.exp(min(0.0, low)), ratio * math.exp(max(0.0, high)))


def _resampled_medians(
    rounds: Sequence[Sequence[float]], chosen: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Medians of resamples; `chosen` holds the rounds of each, [resamples, rounds]."""
    runs = min(_MOST_RUNS_PER_ROUND, min(map(len, rounds)))
    resamples = np.empty((*chosen.shape, runs), np.float32)
    for index, samples in enumerate(rounds):
        where = chosen == index
        picks = rng.integers(len(samples), size=(int(where.sum()), runs))
        resamples[where] = np.asarray(samples, np.float32)[picks]
    medians: NDArray[np.float64] = np.median(resamples.reshape(len(chosen), -1), axis=1).astype(np.float64)
    return medians


def _widening(rounds: int) -> float:
    if rounds == 1:  # nothing is known of how rounds differ
        return 1.0
    freedom = rounds - 1
    t = _T_975[freedom - 1] if freedom <= len(_T_975) else _NORMAL_975
    return t / _NORMAL_975 * math.sqrt(rounds / freedom)


def compare_models(report: Report) -> list[Comparison]:
    """Compares each model with the fastest one, for each device and thread count."""
    groups: dict[tuple[str, int], list[BenchmarkRow]] = {}
    for row in report.rows:
        if not row.failed:
            groups.setdefault((row.device, row.threads), []).append(row)
    comparisons = []
    for rows in groups.values():
        fastest = min(rows, key=_by_speed)
        others = [row for row in rows if row is not fastest]
        comparisons += [_compare(row, fastest, fastest.model.name, True, _flag_caveat(row, fastest)) for row in others]
    return comparisons


def _by_speed(row: BenchmarkRow) -> tuple[bool, float]:
    """Sorts by median, and what is unreliable behind the rest."""
    assert row.measurement.statistics is not None
    return row.flagged, row.measurement.statistics.median_ms


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
    caveats = [
        "" if same_bytes else "another file of the same name",
        _flag_caveat(row, other),
        "" if report.preset == baseline.preset else f"preset {report.preset}, baseline {baseline.preset}",
        _anchor_caveat(row, report, other, baseline),
    ]
    return _compare(row, other, reference, paired=False, caveat="; ".join(filter(None, caveats)))


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
    }
    return [f"{name}: {now}, baseline {then}" for name, (now, then) in checks.items() if now != then]


def _flag_caveat(row: BenchmarkRow, other: BenchmarkRow) -> str:
    flags = sorted({str(r.measurement.verdict) for r in (row, other) if r.flagged})
    return f"unreliable latency: {' and '.join(flags)}" if flags else ""


def _anchor_caveat(row: BenchmarkRow, report: Report, other: BenchmarkRow, baseline: Report) -> str:
    ours, theirs = report.devices[row.device].anchor_ms, _anchor_ms(baseline, other.device)
    if ours is None or theirs is None:
        return "" if ours is theirs else "whether the device itself has changed is not known"
    change = ours / theirs - 1
    if not AnchorSettings().is_drift(1 + change):
        return ""
    return f"unreliable comparison: the device itself has changed by {change:+.0%} (anchor model)"


def _anchor_ms(report: Report, address: str) -> float | None:
    device = report.devices.get(address)
    return device.anchor_ms if device else None


def _compare(row: BenchmarkRow, other: BenchmarkRow, reference: str, paired: bool, caveat: str) -> Comparison:
    ratio, interval = ratio_of_medians(row.rounds_ms, other.rounds_ms, paired)
    if not paired:
        interval = across_sessions(ratio, interval)
    if interval[0] <= 1 <= interval[1]:
        conclusion = "no significant difference"
    else:
        conclusion = f"{abs(ratio - 1):.1%} {'slower' if ratio > 1 else 'faster'}"
    if caveat:
        conclusion = f"{conclusion} ({caveat})"
    return Comparison(row.model.name, row.device, row.threads, reference, ratio, interval, conclusion)


def across_sessions(ratio: float, interval: tuple[float, float]) -> tuple[float, float]:
    """Widens an interval by what two sessions on one quiet device differ in, whatever the model."""
    low, high = (math.hypot(math.log(bound / ratio), SESSION_SPREAD) for bound in interval)
    return ratio * math.exp(-low), ratio * math.exp(high)


def _not_comparable(row: BenchmarkRow, reference: str, why: str) -> Comparison:
    return Comparison(row.model.name, row.device, row.threads, reference, None, None, f"not comparable: {why}")
