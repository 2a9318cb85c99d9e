"""Measures several models side by side.

    for each device:  round 1: every model with every number of threads and the probes, shuffled   round 2: ...

Drift and load affect all models equally, and the probes show them. A model is visited until it has the preset's runs
and time, and its lowest visits agree; see `device_agents.visiting`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from device_agents.api import BenchmarkSpec, DeviceAgent, Measurement, Verdict
from device_agents.devices import open_device, parse_address
from device_agents.errors import DeviceError, ModelFileError, SpecError
from device_agents.floors import FloorStore
from device_agents.host import pick_cores
from device_agents.patient import PATIENT, PatientAgent
from device_agents.pool import PoolSettings
from device_agents.tflite_file import MAX_BYTES, open_inputs
from device_agents.verdicts import is_failure, verdict_of_error
from device_agents.visiting import VisitedFile, VisitingAgent
from nas_edge import __version__
from nas_edge.benchmarking.probes import change_of_probes
from nas_edge.benchmarking.report import (
    BenchmarkRow,
    BenchmarkStoppedError,
    DeviceRecord,
    ModelFile,
    ProbeRecord,
    Report,
)
from nas_edge.errors import UsageError
from nas_edge.terminal import printable

# Progress is told in so many parts of a measurement.
PARTS = 10
# Operators are timed in a share of a measurement's time.
_PROFILED_SHARE = 1 / 8
_NOT_PROFILED = "stopped before its operators were timed"

Progress = Callable[[int, str], None]
"""Is told the parts of measurements done so far, see `PARTS`, and a few words about the last one."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        models: Files with their bytes, as `read_models` returns them; the reason for one that could not be read.
        devices: Addresses.
        threads: Numbers of threads, each measured on its own.
        preset: A name of `device_agents.api.PRESETS`.
        spec: That preset with changes; `threads` and `cores` are ignored.
        cores: What `device_agents.api.parse_cores` read, None to choose.
    """

    models: Sequence[tuple[ModelFile, bytes | str]]
    devices: Sequence[str]
    threads: Sequence[int]
    preset: str
    spec: BenchmarkSpec
    cores: str | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for what, values in (("model", self.models), ("device", self.devices), ("thread count", self.threads)):
            if not values:
                raise UsageError(f"no {what} to measure; name at least one")
        unique_addresses(self.devices)

    @property
    def parts(self) -> int:
        """How many parts of measurements `Progress` is told of in the end."""
        return len(self.models) * len(self.devices) * len(self.threads) * PARTS


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
        raise UsageError(f"cannot read the model {printable(str(paths[0]))}: {reasons[0]}; expected a TFLite file")
    return models


def run_benchmark(
    request: Request,
    progress: Progress = lambda done, facts: None,
    open_agent: Callable[[str], DeviceAgent] = open_device,
    *,
    earlier: Report | None = None,
    on_stop: Callable[[Report], object] = lambda report: None,
    floors: FloorStore | None = None,
    patience: PoolSettings = PATIENT,
) -> Report:
    """Measures everything; a model that fails is a row, and so is a device that is lost on the way.

    Args:
        request: What to measure.
        progress: Is called after each round.
        open_agent: Opens a device; tests may pass their own.
        earlier: The same benchmark, stopped or with a device that was lost: what it has is not measured again.
        on_stop: Is given what was measured when the user stops it, before the devices are closed, which may take as
            long as the round they are at.
        floors: Where what is known of the devices' probes is kept; None keeps nothing.
        patience: How a device that is lost or fails is asked again.

    Raises:
        UsageError: If `earlier` is another benchmark.
        DeviceError: If a device cannot be opened, or the settings do not fit it.
        BenchmarkStoppedError: When the user stops it (KeyboardInterrupt) once the devices are open.
    """
    if earlier is not None:
        check_continues(request, earlier)
    created_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with ExitStack() as stack:
        # All before the first measurement, so that a wrong address does not cost the time of the others.
        agents = {
            address: stack.enter_context(PatientAgent(open_agent(address), patience)) for address in request.devices
        }
        per_device = request.parts // len(agents)
        benches = [
            stack.enter_context(_Bench(request, address, agent, _shifted(progress, n * per_device), earlier, floors))
            for n, (address, agent) in enumerate(agents.items())
        ]
        try:
            for bench in benches:
                bench.run()
        except KeyboardInterrupt:
            report = _report(request, benches, created_utc, earlier)
            on_stop(report)
            raise BenchmarkStoppedError(report) from None
    return _report(request, benches, created_utc, earlier)


def check_continues(request: Request, earlier: Report) -> None:
    """Raises UsageError unless a request is for what an earlier benchmark has begun to measure; it may ask for more."""
    if not earlier.in_visits:
        raise UsageError(
            f"the benchmark of {earlier.created_utc} was begun by nas_edge {earlier.tool_version}, which measured in "
            "another way, and cannot be continued; name a new file"
        )
    models = {(model.name, model.sha256) for model, _ in request.models}
    checks = {
        "preset": (request.preset, earlier.preset),
        "settings": (request.spec.to_json(), earlier.spec.to_json()),
        "cores": (request.cores, earlier.cores),
        "models": (sorted({(row.model.name, row.model.sha256) for row in earlier.rows} - models), []),
        "devices": (sorted({row.device for row in earlier.rows} - set(request.devices)), []),
        "threads": (sorted({row.threads for row in earlier.rows} - set(request.threads)), []),
    }
    differing = [what for what, (now, then) in checks.items() if now != then]
    if differing:
        raise UsageError(
            f"the benchmark of {earlier.created_utc} cannot be continued with other {', '.join(differing)}; repeat its "
            "options, or name a new file"
        )


def _report(request: Request, benches: Sequence[_Bench], created_utc: str, earlier: Report | None) -> Report:
    rows = [row for bench in benches for row in bench.rows()]
    positions = {model.name: i for i, (model, _) in enumerate(request.models)}
    rows.sort(key=lambda row: positions[row.model.name])  # stable: devices and threads stay in order
    return Report(
        __version__,
        created_utc if earlier is None else earlier.created_utc,
        request.preset,
        request.spec,
        {bench.address: DeviceRecord(bench.info, bench.probes) for bench in benches},
        tuple(rows),
        request.cores,
        missing=sum(bench.missing for bench in benches),
        continued_utc=() if earlier is None else (*earlier.continued_utc, created_utc),
    )


@dataclass(eq=False)
class _Case:
    """One row in the making.

    Attributes:
        model: The file.
        file: Its bytes and what is known of it; None where it could not be read.
        spec: How it is measured.
        earlier: What an earlier session has of it.
        unreadable: Why it could not be read.
        visits_before: How many visits are of earlier sessions.
        doubt: What makes these incomparable with one another, in words.
        profiled: The run with the profiler.
    """

    model: ModelFile
    file: VisitedFile | None
    spec: BenchmarkSpec
    earlier: BenchmarkRow | None = None
    unreadable: str = ""
    visits_before: int = 0
    doubt: str = ""
    profiled: Measurement | None = None

    @classmethod
    def begun(cls, model: ModelFile, data: bytes | str, spec: BenchmarkSpec, earlier: BenchmarkRow | None) -> _Case:
        """Returns a row with what an earlier session has of it."""
        if isinstance(data, str):
            return cls(model, None, spec, unreadable=data)
        if earlier is None:
            return cls(model, VisitedFile(data, spec), spec)
        file = VisitedFile.of(data, spec, earlier.measurement)
        if earlier.complete:
            file.answer = earlier.measurement
        doubt = earlier.measurement.detail if earlier.measurement.verdict is Verdict.DRIFTED else ""
        return cls(model, file, spec, earlier, visits_before=len(file.visits), doubt=doubt)

    @property
    def is_mixed(self) -> bool:
        """Whether it has visits of earlier sessions and of this one."""
        return self.file is not None and 0 < self.visits_before < len(self.file.visits)

    @property
    def done(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.file is None or self.file.answer is not None:
            return 1.0
        time_share = self.file.timed_s / self.spec.min_duration_s if self.spec.min_duration_s else 1.0
        # Whether its visits agree by then is not known before.
        return min(0.99, time_share, self.file.runs / self.spec.min_runs)


class _Bench:
    """Measures the request's models on one device."""

    def __init__(
        self,
        request: Request,
        address: str,
        agent: DeviceAgent,
        progress: Progress,
        earlier: Report | None,
        floors: FloorStore | None,
    ) -> None:
        self.info = agent.info()
        self.address = address
        self._agent = agent
        self._progress = progress
        known_devices = [] if earlier is None else [*earlier.devices.values()]
        self._before = next((record for record in known_devices if record.info.address == self.info.address), None)
        self._check_same_device()
        specs = [
            request.spec.replace(threads=threads, cores=cores_for(agent, request.cores, threads))
            for threads in request.threads
        ]
        known = {(row.model.name, row.threads): row for row in earlier.rows if row.device == address} if earlier else {}
        self._cases = [
            _Case.begun(model, data, spec, known.get((model.name, spec.threads)))
            for model, data in request.models
            for spec in specs
        ]
        self._lost: Measurement | None = None
        self._visiting = VisitingAgent(agent, floors=floors)

    def __enter__(self) -> _Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self._visiting.close()

    def _check_same_device(self) -> None:
        if self._before is None:
            return
        now, then = self.info, self._before.info
        if (now.fingerprint, now.runtime, now.runtime_version) != (
            then.fingerprint,
            then.runtime,
            then.runtime_version,
        ):
            raise UsageError(
                f"{self.address} is {now.model} with {now.runtime} {now.runtime_version}, and the benchmark was begun "
                f"on {then.model} with {then.runtime} {then.runtime_version}; name a new file"
            )

    @property
    def probes(self) -> tuple[ProbeRecord, ...]:
        """How they stand; where they were not visited in this session, how they stood in the one before."""
        return tuple(probe for case in self._first_of_each_setting() for probe in self._probes_of(case.spec))

    def _first_of_each_setting(self) -> list[_Case]:
        return [*{case.spec.threads: case for case in reversed(self._cases)}.values()][::-1]

    def _probes_of(self, spec: BenchmarkSpec) -> list[ProbeRecord]:
        before = [] if self._before is None else [p for p in self._before.probes if p.threads == spec.threads]
        watch = self._visiting.watch_of(spec)
        return before if watch is None else [ProbeRecord(spec.threads, state) for state in watch.states()]

    @property
    def missing(self) -> int:
        """Measurements that were not made or not finished."""
        rows = {(row.model.name, row.threads): row for row in self.rows()}
        found = [rows.get((case.model.name, case.spec.threads)) for case in self._cases]
        return sum(row is None or not row.complete or row.measurement.profile_note == _NOT_PROFILED for row in found)

    def run(self) -> None:
        """Measures; what there is until an error is in `rows` all the same."""
        try:
            files = [case.file for case in self._cases if case.file is not None]
            for _ in self._visiting.rounds(files):
                self._tell()
            for case in self._cases:
                self._profile(case)
        except SpecError:
            raise
        except DeviceError as error:
            self._lost = Measurement(verdict_of_error(error), str(error))

    def rows(self) -> list[BenchmarkRow]:
        """What was measured so far, in this session and before; nothing of what was not reached."""
        return [row for row in map(self._row, self._cases) if row is not None]

    def _tell(self) -> None:
        visited = [case for case in self._cases if case.file is not None and case.file.visits]
        under_way = [case for case in visited if case.file is not None and case.file.answer is None]
        shown = (under_way or visited or self._cases)[0]
        self._progress(sum(int(case.done * PARTS) for case in self._cases), _facts(shown))

    def _measured(self, case: _Case) -> Measurement | None:
        """What is known of a file, None if nothing is."""
        file = case.file
        if file is None:
            return Measurement(Verdict.LOAD_FAILED, case.unreadable)
        if file.answer is not None:
            measurement = file.answer
        elif self._lost is not None:
            lost = (self._lost.verdict, self._lost.detail)
            return file.joined().with_verdict(*lost) if file.visits else self._lost
        elif file.visits:
            measurement = self._visiting.provisional(file)
        else:
            return None
        doubt = (case.doubt or self._change_since(case)) if case.is_mixed and not is_failure(measurement) else ""
        return measurement.with_verdict(Verdict.DRIFTED, doubt) if doubt else measurement

    def _change_since(self, case: _Case) -> str:
        """How the device has changed since the session before, in words; "" if it has not."""
        if self._before is None:
            return ""
        now = DeviceRecord(self.info, tuple(self._probes_of(case.spec)))
        threads = case.spec.threads
        change = change_of_probes(now.undisturbed_ms(threads), self._before.undisturbed_ms(threads))
        if change is None or change.is_none:
            return ""
        return f"measured in two sessions, between which the device has changed ({change})"

    def _row(self, case: _Case) -> BenchmarkRow | None:
        measurement = self._measured(case)
        if measurement is None:
            return None
        if case.spec.profile_ops:
            measurement = _with_profile(measurement, case)
        finished = case.file is None or case.file.answer is not None
        return BenchmarkRow(case.model, self.address, case.spec.threads, measurement, finished)

    def _profile(self, case: _Case) -> None:
        """Times operators in a run of their own: the profiler costs time and memory, and may crash."""
        measurement = self._measured(case)
        if not case.spec.profile_ops or case.file is None or measurement is None:
            return
        if is_failure(measurement) or measurement.profile:
            return
        case.profiled = self._agent.measure(case.file.model, _profiling(case.spec))


def _profiling(spec: BenchmarkSpec) -> BenchmarkSpec:
    """Returns the settings with which operators are timed."""
    return spec.replace(
        profile_ops=True,
        max_attempts=1,
        min_duration_s=spec.min_duration_s * _PROFILED_SHARE,
        max_duration_s=spec.max_duration_s * _PROFILED_SHARE,
        warmup_min_duration_s=spec.warmup_min_duration_s * _PROFILED_SHARE,
        warmup_max_duration_s=spec.warmup_max_duration_s * _PROFILED_SHARE,
        max_runs=max(spec.min_runs, int(spec.max_runs * _PROFILED_SHARE)),
    )


def _with_profile(measurement: Measurement, case: _Case) -> Measurement:
    """The measurement with operator times, if they were asked for and there are any."""
    profiled = case.profiled
    if is_failure(measurement) or measurement.profile:
        return measurement
    if profiled is None:
        return replace(measurement, profile_note=measurement.profile_note or _NOT_PROFILED)
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


def _facts(case: _Case) -> str:
    """The row's last visit in words."""
    if case.file is None or not case.file.visits:
        return f"{case.model.name} x{case.spec.threads}"
    last = case.file.visits[-1]
    shown = f"{last.statistics.median_ms:.4g} ms" if last.statistics and not is_failure(last) else last.verdict
    return f"{case.model.name} x{case.spec.threads} {shown}"


def _shifted(progress: Progress, offset: int) -> Progress:
    return lambda done, facts: progress(offset + done, facts)


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """File names, fit to be printed; where two are equal the paths; where those are equal too, numbered."""
    short = [printable(path.name) for path in paths]
    names = [name if short.count(name) == 1 else printable(str(path)) for name, path in zip(short, paths, strict=True)]
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
