"""Several files measured side by side, in rounds, so that drift and load affect all of them equally.

    round 1: a b c   round 2: a b c   ...   then for each file: parts -> join -> one measurement

Each round takes a share of the runs and the time that the settings ask for. Used for what is delivered and in benchmark
mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from device_agents.api import PRESETS, BenchmarkSpec, Conditions, Measurement, Verdict
from device_agents.verdicts import assess, is_failure

# With fewer, a round has no interval and would count as unsteady.
_MIN_RUNS_PER_ROUND = 6
# The shortest that a preset has.
_MIN_WARMUP_S = PRESETS["search"].warmup_min_duration_s

MeasureFile = Callable[[bytes, BenchmarkSpec], Measurement]
"""Measures one file once: a device's `measure`, or what looks first whether a run that was interrupted has it."""

RoundsProgress = Callable[[int, int, Measurement], None]
"""Is told how many measurements are done (those left out included), the file's position, and what was measured."""


@dataclass(frozen=True)
class FileInRounds:
    """What was measured of one file.

    Attributes:
        whole: All rounds as one measurement.
        parts: The measurement of each round; fewer than there were rounds if the file failed in one.
    """

    whole: Measurement
    parts: tuple[Measurement, ...]


def measure_in_rounds(
    files: Sequence[tuple[bytes, BenchmarkSpec]],
    rounds: int,
    measure: MeasureFile,
    *,
    progress: RoundsProgress = lambda done, position, measurement: None,
    finish: Callable[[], Sequence[Measurement]] | None = None,
    device_cores: int | None = None,
    first_rounds: Sequence[int] | None = None,
) -> list[FileInRounds]:
    """Measures files in rounds: every file once, then every file again, ...

    A file that fails is left out of the rounds that follow.

    Args:
        files: TFLite files, each with the settings of the whole: all rounds together.
        rounds: How many, at least 1.
        measure: Measures a file with the settings of one round.
        progress: Called after each measurement.
        finish: Returns the final measurements in the order of the calls of `measure`, for one whose answers are
            provisional (`MeasuringSession.finish`); None if they are final.
        device_cores: How many cores the device has.
        first_rounds: For each file the first round that is measured, below `rounds`, where those before it have been
            measured earlier; None for all from the start.

    Returns:
        What was measured of each file, in their order.

    Raises:
        DeviceError: What `measure` and `finish` raise: the bench itself is broken.
    """
    measured: list[Measurement] = []
    positions: list[list[int]] = [[] for _ in files]  # among `measured`
    failed = [False] * len(files)
    for number in range(rounds):
        for i, (model, spec) in enumerate(files):
            if failed[i] or (first_rounds is not None and number < first_rounds[i]):
                continue
            measurement = measure(model, share_of(spec, rounds))
            positions[i].append(len(measured))
            measured.append(measurement)
            failed[i] = is_failure(measurement)
            progress(number * len(files) + i + 1, i, measurement)
    final = measured if finish is None else finish()
    parts = [tuple(final[place] for place in places) for places in positions]
    return [
        FileInRounds(join_rounds(of_file, spec, device_cores), of_file)
        for (_, spec), of_file in zip(files, parts, strict=True)
    ]


def share_of(spec: BenchmarkSpec, rounds: int) -> BenchmarkSpec:
    """Returns the settings of one round: a share of the runs and the time, and as much less certain.

    Operators are not timed in it: the profiler costs time and memory.
    """
    if rounds == 1:
        return spec.replace(profile_ops=False)
    target = spec.target_relative_half_width * math.sqrt(rounds)
    min_runs = min(spec.min_runs, max(_MIN_RUNS_PER_ROUND, math.ceil(spec.min_runs / rounds)))
    warmup_min_s = min(spec.warmup_min_duration_s, max(_MIN_WARMUP_S, spec.warmup_min_duration_s / rounds))
    return spec.replace(
        min_runs=min_runs,
        max_runs=max(min_runs, math.ceil(spec.max_runs / rounds)),
        min_duration_s=spec.min_duration_s / rounds,
        max_duration_s=spec.max_duration_s / rounds,
        target_relative_half_width=target,
        max_relative_half_width=max(target, spec.max_relative_half_width * math.sqrt(rounds)),
        warmup_min_duration_s=warmup_min_s,
        warmup_max_duration_s=max(warmup_min_s, spec.warmup_max_duration_s / rounds),
        profile_ops=False,
    )


def join_rounds(parts: Sequence[Measurement], spec: BenchmarkSpec, device_cores: int | None = None) -> Measurement:
    """Returns one measurement out of several of the same model, assessed as a whole.

    Args:
        parts: At least one, in the order of time.
        spec: The settings of the whole.
        device_cores: How many cores the device has.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    blocks = [part.runs_per_sample for part in parts if part.samples_ms]
    joined = replace(
        first,
        samples_ms=tuple(sample for part in parts for sample in part.samples_ms),
        warmup_runs=sum(part.warmup_runs or 0 for part in parts) if first.warmup_runs is not None else None,
        busy_s=math.fsum(part.busy_s for part in parts),
        peak_memory_bytes=max((p.peak_memory_bytes for p in parts if p.peak_memory_bytes is not None), default=None),
        runs_per_sample=None if None in blocks else min(filter(None, blocks), default=1),
        attempts=sum(part.attempts for part in parts),
        conditions=_join_conditions(parts),
    )
    failed = next((part for part in parts if is_failure(part)), None)
    if failed is not None:
        return joined.with_verdict(failed.verdict, failed.detail)
    assessed = assess(joined, spec, device_cores)
    # What a part knows and the whole does not show; an unsteady part may belong to a steady whole.
    doubt = next((part for part in parts if part.verdict in (Verdict.THROTTLED, Verdict.DRIFTED)), None)
    return assessed.with_verdict(doubt.verdict, doubt.detail) if assessed.ok and doubt is not None else assessed


def _join_conditions(parts: Sequence[Measurement]) -> Conditions | None:
    known = [(part.conditions, part.busy_s) for part in parts if part.conditions is not None]
    if not known:
        return None
    first, last = known[0][0], known[-1][0]
    events = [c.throttle_events for c, _ in known if c.throttle_events is not None]
    return replace(
        first,
        cpu_mhz_after=last.cpu_mhz_after,
        temperature_c_after=last.temperature_c_after,
        load_average_after=last.load_average_after,
        throttle_events=sum(events) if events else None,
        other_load_cores=_mean([(c.other_load_cores, busy_s) for c, busy_s in known]),
        wait_share=_mean([(c.wait_share, busy_s) for c, busy_s in known]),
    )


def _mean(values: Sequence[tuple[float | None, float]]) -> float | None:
    """Mean of the known values, weighted by their seconds."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = math.fsum(weight for _, weight in known)
    if not known or total <= 0:
        return None
    return math.fsum(value * weight for value, weight in known) / total
