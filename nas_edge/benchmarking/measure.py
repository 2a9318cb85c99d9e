"""Measures several models side by side.

    for each device:  anchor, round 1: every model, round 2: every model, anchor, round 3 ...

A device that warms up or gets busy does so for all models alike, and the anchor model shows it. Each round is a part
of the preset's runs and time; the parts of a row are joined and judged as one measurement.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from device_agents.api import PRESETS, BenchmarkSpec, Conditions, DeviceAgent, Measurement, Verdict
from device_agents.devices import open_device, parse_address
from device_agents.errors import DeviceError, ModelFileError, SpecError
from device_agents.host import pick_cores
from device_agents.session import AnchorReading, MeasuringSession, SessionSettings
from device_agents.tflite_file import MAX_BYTES, open_inputs
from device_agents.verdicts import judge
from nas_edge import __version__
from nas_edge.benchmarking.report import FLAGS, DeviceRecord, ModelFile, Report, Row
from nas_edge.errors import UsageError

ROUNDS = 8
# The anchor takes about as long as a model; between every two rounds is often enough.
_ROUNDS_PER_ANCHOR = 2
# With fewer, a round has no interval and would count as unsteady.
_MIN_RUNS_PER_ROUND = 6
# The shortest that a preset has.
_MIN_WARMUP_S = PRESETS["search"].warmup_min_duration_s

Progress = Callable[[int, str], None]
"""Is told the measurements done so far and a few words about the last one."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        models: Files with their bytes, as `read_models` returns them; the reason for one that could not be read.
        devices: Addresses.
        threads: Numbers of threads, each measured on its own.
        preset: A name of `device_agents.api.PRESETS`.
        spec: That preset with changes; `threads` and `cores` are ignored.
        rounds: Parts each measurement is split into.
        cores: What `device_agents.api.parse_cores` read, None to choose.
    """

    models: Sequence[tuple[ModelFile, bytes | str]]
    devices: Sequence[str]
    threads: Sequence[int]
    preset: str
    spec: BenchmarkSpec
    rounds: int = ROUNDS
    cores: str | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for what, values in (("model", self.models), ("device", self.devices), ("thread count", self.threads)):
            if not values:
                raise UsageError(f"no {what} to measure; name at least one")
        unique_addresses(self.devices)

    @property
    def measurements(self) -> int:
        """How many times a model is measured if none fails."""
        return len(self.models) * len(self.devices) * len(self.threads) * self.rounds


def unique_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Returns device addresses in their full form, each once.

    Raises:
        DeviceAddressError: If one is malformed or unknown.
    """
    return tuple(dict.fromkeys(":".join(parse_address(address)) for address in addresses))


def read_models(paths: Sequence[Path]) -> list[tuple[ModelFile, bytes | str]]:
    """Reads model files; with one that cannot be read comes the reason in place of its bytes.

    Raises:
        UsageError: If none can be read.
    """
    names = _unique_names(paths)
    models = [_read_model(path, name) for path, name in zip(paths, names, strict=True)]
    reasons = [data for _, data in models if isinstance(data, str)]
    if models and len(reasons) == len(models):
        raise UsageError(f"cannot read the model {paths[0]}: {reasons[0]}; expected a TFLite file")
    return models


def run_benchmark(
    request: Request,
    progress: Progress = lambda done, facts: None,
    open_agent: Callable[[str], DeviceAgent] = open_device,
) -> Report:
    """Measures everything; a model that fails is a row, and so is a device that is lost on the way.

    Args:
        request: What to measure.
        progress: Is called after each measurement.
        open_agent: Opens a device; tests may pass their own.

    Raises:
        DeviceError: If a device cannot be opened, or the settings do not fit it.
    """
    created_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with ExitStack() as stack:
        # All before the first measurement, so that a wrong address does not cost the time of the others.
        agents = {address: stack.enter_context(open_agent(address)) for address in request.devices}
        devices: dict[str, DeviceRecord] = {}
        rows: list[Row] = []
        for number, (address, agent) in enumerate(agents.items()):
            bench = _Bench(request, address, agent, _shifted(progress, number * request.measurements // len(agents)))
            rows += bench.run()
            devices[address] = DeviceRecord(bench.info, bench.anchors)
    positions = {model.name: i for i, (model, _) in enumerate(request.models)}
    rows.sort(key=lambda row: positions[row.model.name])  # stable: devices and threads stay in order
    return Report(__version__, created_utc, request.preset, request.spec, devices, tuple(rows))


class _Case:
    """One row in the making: the parts measured so far, as positions among all measurements."""

    def __init__(self, model: ModelFile, data: bytes | str, spec: BenchmarkSpec) -> None:
        self.model = model
        self.data = data
        self.spec = spec
        self.parts: list[int] = []
        self.failed = False


class _Bench:
    """Measures the request's models on one device."""

    def __init__(self, request: Request, address: str, agent: DeviceAgent, progress: Progress) -> None:
        self.info = agent.info()
        self._request = request
        self._address = address
        self._agent = agent
        self._progress = progress
        specs = [
            request.spec.replace(threads=threads, cores=cores_for(agent, request.cores, threads))
            for threads in request.threads
        ]
        self._cases = [_Case(model, data, spec) for model, data in request.models for spec in specs]
        self._recorded = address.startswith("replay:")
        # A recording answers the same every time: repeating it would feign certainty.
        self._rounds = 1 if self._recorded else request.rounds
        self._session = MeasuringSession(
            agent,
            PRESETS["search"].replace(threads=specs[0].threads, cores=specs[0].cores),
            settings=SessionSettings(every=_ROUNDS_PER_ANCHOR * len(self._cases), interval_s=math.inf),
        )

    @property
    def anchors(self) -> tuple[AnchorReading, ...]:
        return self._session.anchors

    def run(self) -> list[Row]:
        try:
            measurements = self._measure_rounds()
            return [self._row(case, [measurements[i] for i in case.parts]) for case in self._cases]
        except SpecError:
            raise
        except DeviceError as error:
            lost = Measurement(Verdict.DEVICE_LOST, f"{type(error).__name__}: {error}")
            return [Row(case.model, self._address, case.spec.threads, lost, ()) for case in self._cases]

    def _measure_rounds(self) -> list[Measurement]:
        measure = self._agent.measure if self._recorded else self._session.measure
        measurements: list[Measurement] = []
        for round_number in range(self._rounds):
            for number, case in enumerate(self._cases, 1):
                if case.failed or isinstance(case.data, str):
                    continue
                measurement = measure(case.data, _part(case.spec, self._rounds))
                case.parts.append(len(measurements))
                case.failed = _is_failure(measurement)
                measurements.append(measurement)
                self._progress(round_number * len(self._cases) + number, _facts(case, measurement))
        return measurements if self._recorded else self._session.finish()

    def _row(self, case: _Case, parts: Sequence[Measurement]) -> Row:
        if isinstance(case.data, str):
            measurement = Measurement(Verdict.LOAD_FAILED, case.data)
        elif self._recorded:
            (measurement,) = parts
        else:
            measurement = join(parts, case.spec, self._agent.info().cores)
        if case.spec.profile_ops and isinstance(case.data, bytes) and not _is_failure(measurement):
            measurement = self._with_profile(measurement, case.data, case.spec)
        runs = tuple(len(part.samples_ms) for part in parts)
        return Row(case.model, self._address, case.spec.threads, measurement, runs)

    def _with_profile(self, measurement: Measurement, data: bytes, spec: BenchmarkSpec) -> Measurement:
        """Adds operator times, from a run of their own: the profiler costs time and memory, and may crash."""
        profiled = self._agent.measure(
            data, _part(spec, self._request.rounds).replace(profile_ops=True, max_attempts=1)
        )
        note = profiled.profile_note
        if not profiled.profile and not note:
            note = f"{profiled.verdict}: {profiled.detail}" if profiled.detail else "the device gives no operator times"
        return replace(measurement, profile=profiled.profile, profile_note=note)


def cores_for(agent: DeviceAgent, wanted: str | tuple[int, ...] | None, threads: int) -> tuple[int, ...] | None:
    """Returns the CPUs to measure on, None where the device chooses them.

    Args:
        agent: The device.
        wanted: "big", "little", ids, or None to choose.
        threads: Threads the models will run with.

    Raises:
        SpecError: If the device has no such cores.
        DeviceError: If it cannot be reached.
    """
    if isinstance(wanted, str):
        return agent.cores(wanted)
    if wanted is None and agent.info().measures_on_host:
        # The ones left over are where the next candidate may be written meanwhile.
        return pick_cores(threads)
    return wanted


def join(parts: Sequence[Measurement], spec: BenchmarkSpec, device_cores: int | None = None) -> Measurement:
    """Returns one measurement out of several of the same model, judged as a whole.

    Args:
        parts: At least one, in the order of time.
        spec: The settings of the whole.
        device_cores: How many cores the device has.
    """
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
    failed = next((part for part in parts if _is_failure(part)), None)
    if failed is not None:
        return joined.with_verdict(failed.verdict, failed.detail)
    judged = judge(joined, spec, device_cores)
    # What a part knows and the whole does not show; an unsteady part may belong to a steady whole.
    doubt = next((part for part in parts if part.verdict in (Verdict.THROTTLED, Verdict.DRIFTED)), None)
    return judged.with_verdict(doubt.verdict, doubt.detail) if judged.ok and doubt is not None else judged


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


def _part(spec: BenchmarkSpec, rounds: int) -> BenchmarkSpec:
    """The settings of one round: a share of the runs and the time, and as much less certain."""
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


def _is_failure(measurement: Measurement) -> bool:
    return not measurement.ok and (measurement.verdict not in FLAGS or not measurement.samples_ms)


def _facts(case: _Case, measurement: Measurement) -> str:
    statistics = measurement.statistics
    shown = f"{statistics.median_ms:.4g} ms" if statistics and not _is_failure(measurement) else measurement.verdict
    return f"{case.model.name} x{case.spec.threads} {shown}"


def _shifted(progress: Progress, offset: int) -> Progress:
    return lambda done, facts: progress(offset + done, facts)


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """File names; where two are equal the paths; where those are equal too, numbered."""
    short = [path.name for path in paths]
    names = [path.name if short.count(path.name) == 1 else str(path) for path in paths]
    return [f"{name} #{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _read_model(path: Path, name: str) -> tuple[ModelFile, bytes | str]:
    def unreadable(reason: str, size_bytes: int = 0) -> tuple[ModelFile, str]:
        return ModelFile(name, str(path), "", size_bytes), reason

    try:
        if path.is_dir():
            return unreadable(f"it is a directory; its models would be {path}/*.tflite")
        if path.exists() and not path.is_file():
            return unreadable("it is not a regular file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            return unreadable(f"{size} bytes; a model may have {MAX_BYTES}", size)
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        return unreadable(error.strerror if isinstance(error, OSError) and error.strerror else str(error))
    try:
        inputs = open_inputs(data)
    except ModelFileError:  # its row will say so
        inputs = ()
    return ModelFile(name, str(path), hashlib.sha256(data).hexdigest(), len(data), inputs), data
