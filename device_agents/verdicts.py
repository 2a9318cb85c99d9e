"""What a measurement is worth, and whose fault it is if nothing: pure functions from facts to a verdict.

What is accepted is part of the settings a measurement was made with, see `BenchmarkSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum

from device_agents.api import BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.errors import BenchFailedError, DeviceError
from device_agents.probe_watch import ProbeWatch
from device_agents.quiet import VisitSettings, VisitTime, agreed, nearly_agreed, visits_needed
from device_agents.worker.statistics import Statistics, median_of

# The samples are there, but something makes them doubtful. Every other verdict but `ok` is a failure.
FLAGS = (Verdict.CONTENDED, Verdict.UNSTEADY, Verdict.DRIFTED, Verdict.THROTTLED)


class Owner(str, Enum):
    """Whose doing a verdict is."""

    NOBODY = "nobody"
    CANDIDATE = "candidate"
    BENCH = "bench"


# A candidate's fault makes it less likely to be chosen again; the bench's says nothing of it and is worth another try.
OWNERS: Mapping[Verdict, Owner] = {
    Verdict.OK: Owner.NOBODY,
    Verdict.CORRECTED: Owner.NOBODY,
    Verdict.CONTENDED: Owner.BENCH,
    Verdict.UNSTEADY: Owner.BENCH,
    Verdict.DRIFTED: Owner.BENCH,
    Verdict.THROTTLED: Owner.BENCH,
    Verdict.FALLBACK: Owner.CANDIDATE,
    Verdict.CONVERT_FAILED: Owner.CANDIDATE,
    Verdict.COMPILE_FAILED: Owner.CANDIDATE,
    Verdict.LOAD_FAILED: Owner.CANDIDATE,
    Verdict.RUN_FAILED: Owner.CANDIDATE,
    Verdict.OUT_OF_MEMORY: Owner.CANDIDATE,
    Verdict.TIMEOUT: Owner.CANDIDATE,
    Verdict.DEVICE_LOST: Owner.BENCH,
    Verdict.BENCH_FAILED: Owner.BENCH,
    Verdict.NOT_KNOWN: Owner.NOBODY,
}
# What another device, or the same one once it works again, may answer instead.
DEVICE_FAULTS = frozenset({Verdict.DEVICE_LOST, Verdict.BENCH_FAILED})


def blames_candidate(verdict: Verdict) -> bool:
    """Returns whether a verdict is held against the model."""
    return OWNERS[verdict] is Owner.CANDIDATE


def verdict_of_error(error: DeviceError) -> Verdict:
    """Returns the verdict on a model that could not be measured because of this error."""
    return Verdict.BENCH_FAILED if isinstance(error, BenchFailedError) else Verdict.DEVICE_LOST


# An empty graph takes the runtime about half a microsecond per call.
NEAR_ZERO_MS = 0.001
# With fewer, halves of the samples are too small to have medians worth comparing.
MIN_SAMPLES_FOR_SHIFT = 12


def assess(measurement: Measurement, spec: BenchmarkSpec, device_cores: int | None = None) -> Measurement:
    """Returns the measurement with the verdict its samples and conditions deserve.

    Args:
        measurement: One with samples, of any verdict.
        spec: The settings it was made with.
        device_cores: How many cores the device has, for what was not kept to some of them.
    """
    verdict, detail = _assess(measurement, spec, device_cores)
    return measurement.with_verdict(verdict, detail)


def assess_visits(
    measurement: Measurement,
    visits: Sequence[VisitTime],
    spec: BenchmarkSpec,
    settings: VisitSettings,
    watch: ProbeWatch,
) -> Measurement:
    """Returns a measurement made of visits with its quiet latency, and the verdict it deserves.

    `ok` takes visits that agree, enough of them for how quiet the probes say that the device is, and that not every
    visit of a probe since the first of them was slow. Where it is only the last two that are missing the latency is
    kept, but flagged.

    Args:
        measurement: All visits, joined.
        visits: The time of each.
        spec: The settings of the whole.
        settings: When visits are enough.
        watch: What the probes say.
    """
    settings = replace(settings, tolerance=spec.max_relative_half_width)
    asks_probes = spec.max_risk < 1
    slow = watch.slow_since(min((visit.round for visit in visits), default=0)) if asks_probes else ""
    enough = len(visits) >= needed_visits(visits, spec, settings, watch) and not slow
    quiet, near = agreed(visits, settings), nearly_agreed(visits, settings)
    measurement = replace(measurement, quiet=quiet or near)
    problem = _work_problem(measurement, spec)
    if problem is not None:
        return measurement.with_verdict(*problem)
    if enough and quiet is not None and quiet.relative_half_width <= spec.max_relative_half_width:
        return measurement.with_verdict(Verdict.OK, "")
    seen = watch.disturbance()
    if enough and near is not None:
        detail = f"only {near.visits} of {len(visits)} visits agree" + (f"; {seen}" if seen else "")
        return measurement.with_verdict(Verdict.CORRECTED, detail)
    by_reference = watch.corrected(visits)
    if by_reference is not None:
        detail = "by its ratio to the reference network" + (f"; {seen}" if seen else "")
        return replace(measurement, quiet=by_reference).with_verdict(Verdict.CORRECTED, detail)
    if (watch.is_throttled and asks_probes) or slow:
        return measurement.with_verdict(Verdict.THROTTLED, slow or seen)
    apart = f"the lowest of {len(visits)} visits do not agree"
    few = f"{len(visits)} visits are too few to trust their lowest"
    detail = (few if quiet is not None else apart) + (f": {seen}" if seen else "")
    return measurement.with_verdict(Verdict.CONTENDED, detail)


def needed_visits(
    visits: Sequence[VisitTime], spec: BenchmarkSpec, settings: VisitSettings, watch: ProbeWatch
) -> float:
    """Returns how many visits it takes to trust the lowest, by how quiet the probes were in the rounds of these."""
    share = watch.quiet_share(visits)
    # Without a probe nothing says how quiet the device is; half of the visits is a guess.
    return visits_needed(0.5 if share is None else share, spec.max_risk, settings)


def _work_problem(measurement: Measurement, spec: BenchmarkSpec) -> tuple[Verdict, str] | None:
    """What is wrong with the work or the device, however well the time of it is known."""
    latency_ms, conditions = measurement.best_ms, measurement.conditions
    if latency_ms is None:
        return Verdict.RUN_FAILED, "the worker returned no timed run"
    if latency_ms < NEAR_ZERO_MS:
        return Verdict.RUN_FAILED, f"latency of {latency_ms * 1e6:.0f} ns: the graph does no work worth timing"
    if conditions is None:  # another package's device need not know them
        return None
    if spec.require_delegate and conditions.delegate_kernels == 0:
        return Verdict.FALLBACK, f"delegate {spec.delegate!r} took over no operator"
    throttled = _throttled(conditions, spec)
    return (Verdict.THROTTLED, throttled) if throttled else None


def _assess(measurement: Measurement, spec: BenchmarkSpec, device_cores: int | None) -> tuple[Verdict, str]:
    problem = _work_problem(measurement, spec)
    statistics, conditions = measurement.statistics, measurement.conditions
    if problem is not None or statistics is None or conditions is None:
        return problem or (Verdict.RUN_FAILED, "the worker returned no timed run")
    cores = device_cores if conditions.cores is None else len(conditions.cores)
    unsteady = _contended(conditions, spec, cores) or _unsteady(measurement.samples_ms, statistics, spec)
    if unsteady and cores is not None and spec.threads > cores:
        unsteady += f"; {spec.threads} threads share {cores} core{'s' if cores > 1 else ''}, and wait for each other"
    return (Verdict.UNSTEADY, unsteady) if unsteady else (Verdict.OK, "")


def _throttled(conditions: Conditions, spec: BenchmarkSpec) -> str:
    before, after = conditions.cpu_mhz_before, conditions.cpu_mhz_after
    if conditions.throttle_events:
        return f"the CPU throttled {conditions.throttle_events} times while timing"
    if before and after and after < before * spec.min_clock_ratio:
        return f"the clock fell from {before:.0f} to {after:.0f} MHz while timing"
    return ""


def _contended(conditions: Conditions, spec: BenchmarkSpec, cores: int | None) -> str:
    if cores is not None and spec.threads > cores:
        # The runtime's own threads wait for each other, so waiting says nothing; what others took does.
        taken = conditions.other_load_cores
        share = None if taken is None else taken / cores
        what = "other programs took"
    else:
        share = None if conditions.wait_share is None else conditions.wait_share / spec.threads
        what = "waited for a core"
    if share is not None and share > spec.max_wait_share:
        return f"{what} {share:.0%} of the time; other programs use the measured cores"
    return ""


def _unsteady(samples_ms: tuple[float, ...], statistics: Statistics, spec: BenchmarkSpec) -> str:
    width = statistics.relative_half_width
    if width is None:
        return f"{statistics.count} runs are too few for an interval; raise min_runs to 6 or more"
    if width > spec.max_relative_half_width:
        return f"the median is known to {width:.1%} only; {spec.max_relative_half_width:.1%} is accepted"
    shift = relative_shift(samples_ms)
    if shift is not None and abs(shift) > spec.max_shift:
        return f"the median moved by {shift:+.1%} between the first and the second half"
    return ""


def relative_shift(samples_ms: tuple[float, ...]) -> float | None:
    """Returns median(second half) / median(first half) - 1, None with few samples."""
    if len(samples_ms) < MIN_SAMPLES_FOR_SHIFT:
        return None
    middle = len(samples_ms) // 2
    first, second = median_of(samples_ms[:middle]), median_of(samples_ms[middle:])
    return second / first - 1 if first > 0 else None


def is_failure(measurement: Measurement) -> bool:
    """Returns whether there is no latency, not even a doubtful one."""
    return not measurement.ok and (measurement.verdict not in FLAGS or not measurement.samples_ms)


def steadier(one: Measurement, other: Measurement) -> Measurement:
    """Returns the one whose median is known better; the first if neither says."""
    return min(one, other, key=_width)


def _width(measurement: Measurement) -> float:
    width = measurement.statistics.relative_half_width if measurement.statistics else None
    return float("inf") if width is None else width
