"""The quiet latency: what a network costs where nothing disturbs it. Pure functions of the times of visits.

Disturbance only adds time, so low order statistics of many short visits find the undisturbed time where medians follow
the disturbance (Chen and Revels, "Robust benchmarking in noisy environments", arXiv:1608.04295); that the lowest ones
agree confirms it (K-best: Bryant and O'Hallaron, "Computer Systems", 1st edition, section 9.4). What repeats is the
visit, not the run, since that is the level that varies most (Kalibera and Jones, "Rigorous benchmarking in reasonable
time", ISMM 2013).

Visits that are all disturbed alike agree, too. How often that happens is known from probes, models whose undisturbed
times are known: where a share q of their visits is quiet, all of n visits are disturbed with a probability of
(1 - q)^n, so q says how many visits it takes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from device_agents.api import BenchmarkSpec, QuietLatency
from device_agents.worker.statistics import median_interval, quantile


@dataclass(frozen=True)
class VisitSettings:
    """How models are visited and when that is enough.

    The values were chosen by `benchmarks.measurement_truth` and its simulation.

    Attributes:
        duration_s: Time in timed runs of a visit, in seconds, where the network is fast enough.
        longest_s: The same for measurements that are long anyway.
        min_runs: Fewest timed runs of a visit.
        max_runs: Most timed runs of a visit.
        quantile: Which quantile of a visit's runs is its time.
        agreeing: So many of the lowest visits have to agree.
        nearest: The latency is the median of the visits within this relative difference to the lowest, and at least of
            as many as have to agree.
        tolerance: Relative difference between the lowest and the highest of those, unless the measurement's settings
            name another, see `BenchmarkSpec.max_relative_half_width`.
        rounds: From so many rounds at least they have to be.
        corrected_tolerance: Relative difference between the two lowest visits within which there is an answer, verdict
            `corrected`, where those agreeing are too few.
        corrected_half_width: Half the width of the widest interval that is still an answer, relatively.
        sensitivity_spread: By how much a network may feel a disturbance more or less than the reference network, in
            95% of cases, as a share of what the reference network feels (in the logarithm).
        shared_rounds: Rounds shared with the reference network that it takes to correct by it.
        hopeless_after: Visits after which a measurement is given up early, where it would take many more than its time
            allows.
        fewest_before_giving_up: Visits before the time limit counts, for networks that need much of it for a visit.
        probe_tolerance: A probe's visit is quiet if it is at most so much above its floor, relatively.
        fewest_to_compare: Visits to a network and to a probe that it takes to say how much less than the probe the
            network feels of what disturbs both.
        hardly_felt: Up to this share of what a probe feels, a network hardly feels it.
        probe_duration_s: As `duration_s`, of a probe.
        probe_window: So many of a probe's last visits tell how quiet the device is.
        settle_s: When all probes have been slow for so many seconds, the device has settled at another speed.
        pause_s: How long a disturbance that lasts is waited for at a time, in seconds, see `BenchmarkSpec.patience_s`.
        calibration_rounds: Rounds of probes alone at the start, where no floors are known from earlier.
    """

    duration_s: float = 0.03
    longest_s: float = 0.1
    min_runs: int = 3
    max_runs: int = 200
    quantile: float = 0.1
    agreeing: int = 3
    nearest: float = 0.02
    tolerance: float = 0.05
    rounds: int = 2
    corrected_tolerance: float = 0.08
    corrected_half_width: float = 0.10
    sensitivity_spread: float = 0.35
    shared_rounds: int = 8
    hopeless_after: int = 40
    fewest_before_giving_up: int = 12
    probe_tolerance: float = 0.06
    fewest_to_compare: int = 24
    hardly_felt: float = 0.2
    probe_window: int = 20
    probe_duration_s: float = 0.012
    settle_s: float = 120.0
    pause_s: float = 0.5
    calibration_rounds: int = 12

    @property
    def digest(self) -> str:
        """Tells latencies that were made with other visits from these; how many there were is no part of it."""
        made_of = (
            *(self.duration_s, self.longest_s, self.min_runs, self.max_runs),
            *(self.quantile, self.tolerance, self.nearest),
        )
        return f"visits {hashlib.sha256(repr(made_of).encode()).hexdigest()[:8]}"

    def of_visit(self, spec: BenchmarkSpec) -> BenchmarkSpec:
        """Returns the settings of one visit out of those of the whole measurement; nothing in it is assessed."""
        duration_s = min(self.longest_s, max(self.duration_s, spec.min_duration_s / 60))
        return spec.replace(
            min_runs=self.min_runs,
            max_runs=self.max_runs,
            min_duration_s=duration_s,
            max_duration_s=duration_s,
            target_relative_half_width=1e6,
            max_relative_half_width=1e6,
            max_wait_share=1e6,
            max_shift=1e6,
            warmup_min_runs=1,
            warmup_min_duration_s=0.0,
            warmup_max_duration_s=duration_s,
            max_attempts=1,
            profile_ops=False,
        )


@dataclass(frozen=True)
class VisitTime:
    """The time of one visit.

    Attributes:
        time_ms: In milliseconds.
        round: Number of the round it was part of.
    """

    time_ms: float
    round: int


def time_of(samples_ms: Sequence[float], settings: VisitSettings) -> float:
    """Returns the time of a visit out of its samples, in milliseconds."""
    return quantile(sorted(samples_ms), settings.quantile)


def agreed(visits: Sequence[VisitTime], settings: VisitSettings) -> QuietLatency | None:
    """Returns what the lowest visits agree on, None if they do not.

    The latency is the median of the visits nearest to the lowest. The lowest alone would underestimate it the more, the
    more visits there are; all that agree would overestimate it where few of them are undisturbed. The interval goes
    from the lowest to where the median of all that agree may be.
    """
    return _among_lowest(visits, settings.agreeing, settings.tolerance, settings.rounds, settings.nearest)


def nearly_agreed(visits: Sequence[VisitTime], settings: VisitSettings) -> QuietLatency | None:
    """Returns what the two lowest visits say, None if they differ too much; for the verdict `corrected`."""
    return _among_lowest(visits, min(2, settings.agreeing), settings.corrected_tolerance, 1, settings.nearest)


def _among_lowest(
    visits: Sequence[VisitTime], agreeing: int, tolerance: float, rounds: int, nearest: float
) -> QuietLatency | None:
    ordered = sorted(visits, key=lambda visit: visit.time_ms)
    if len(ordered) < agreeing:
        return None
    highest_ms = ordered[0].time_ms * (1 + tolerance)
    quiet = [visit for visit in ordered if visit.time_ms <= highest_ms]
    if len(quiet) < agreeing or len({visit.round for visit in quiet}) < rounds:
        return None
    times_ms = [visit.time_ms for visit in quiet]
    near = sum(time_ms <= times_ms[0] * (1 + nearest) for time_ms in times_ms)
    latency_ms = quantile(times_ms[: max(agreeing, near)], 0.5)
    _, high_ms = median_interval(times_ms) or (times_ms[0], times_ms[-1])
    return QuietLatency(latency_ms, (times_ms[0], max(latency_ms, high_ms)), len(quiet))


def corrected(
    visits: Sequence[VisitTime], reference: Sequence[VisitTime], floor_ms: float, settings: VisitSettings
) -> QuietLatency | None:
    """Returns the latency by the ratio to a network whose undisturbed time is known, None if that says too little.

    Both were visited in the same rounds, so a disturbance that lasts hits both, if not quite alike: how much less alike
    the stronger it is goes into the interval. A network that feels it more than the reference network comes out too
    slow; since disturbance only adds time, its lowest visit bounds the latency.

    Args:
        visits: Of the network.
        reference: Of the reference network.
        floor_ms: The undisturbed time of the latter, in milliseconds.
        settings: See `VisitSettings`.
    """
    by_round = {visit.round: visit.time_ms for visit in reference}
    shared = [(visit.time_ms, by_round[visit.round]) for visit in visits if visit.round in by_round]
    if len(shared) < settings.shared_rounds:
        return None
    ratios = sorted(time_ms / of_reference_ms for time_ms, of_reference_ms in shared)
    ratio, interval = quantile(ratios, 0.5), median_interval(ratios)
    assert interval is not None
    level = quantile(sorted(of_reference_ms for _, of_reference_ms in shared), 0.5) / floor_ms
    half_width = (interval[1] - interval[0]) / 2 / ratio + settings.sensitivity_spread * abs(math.log(level))
    if half_width > settings.corrected_half_width:
        return None
    latency_ms = min(ratio * floor_ms, *(visit.time_ms for visit in visits))
    return QuietLatency(latency_ms, (latency_ms * (1 - half_width), latency_ms * (1 + half_width)), len(shared))


def sensitivity(times_ms: Sequence[float], of_probe_ms: Sequence[float], settings: VisitSettings) -> float:
    """Returns how strongly a network feels what disturbs a probe, where that is hardly at all; else 1, as strongly.

    It is the ratio of their spreads, in logarithms. Their times need not be paired, since what disturbs changes faster
    than visits follow one another. Whatever else scatters the network's times makes it look more sensitive than it is,
    so this errs on the side of caution. Where the probe's times hardly differ they say nothing.

    Args:
        times_ms: Times of visits to the network.
        of_probe_ms: Times of visits to the probe meanwhile.
        settings: See `VisitSettings`.
    """
    if min(len(times_ms), len(of_probe_ms)) < settings.fewest_to_compare:
        return 1.0
    of_probe = _spread(of_probe_ms)
    if of_probe < settings.probe_tolerance:
        return 1.0
    ratio = _spread(times_ms) / of_probe
    return ratio if ratio <= settings.hardly_felt else 1.0


def _spread(times_ms: Sequence[float]) -> float:
    ordered = sorted(times_ms)
    return math.log(quantile(ordered, 0.8) / quantile(ordered, 0.05))


def visits_needed(quiet_share: float, max_risk: float, settings: VisitSettings) -> float:
    """Returns how many visits it takes so that hardly ever all are disturbed; infinity if none is quiet.

    Args:
        quiet_share: Share of the visits that are quiet.
        max_risk: Accepted probability that all are disturbed.
        settings: See `VisitSettings`.
    """
    if max_risk >= 1 or quiet_share >= 1:
        return settings.agreeing
    if quiet_share <= 0:
        return math.inf
    return max(settings.agreeing, math.ceil(math.log(max_risk) / math.log1p(-quiet_share)))


def likely_share(hits: int, count: int) -> float:
    """Returns a guess of the share of quiet visits, 0 without any visit.

    Before any visit it takes a quarter for quiet, with the weight of three visits: while little is known of a device,
    it is better visited more often.
    """
    return (hits + 0.75) / (count + 3) if count else 0.0
