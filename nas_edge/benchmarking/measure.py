"""Measures several models side by side.

    for each device:  anchor, round 1: every model, round 2: every model, anchor, round 3 ...

Drift and load affect all models equally, and the anchor model shows them. Each round takes a share of the preset's runs
and time, see `device_agents.rounds`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from device_agents.anchor_watch import AnchorReading, AnchorSettings
from device_agents.api import PRESETS, BenchmarkSpec, DeviceAgent, Measurement, Verdict
from device_agents.devices import open_device, parse_address
from device_agents.errors import DeviceError, ModelFileError, SpecError
from device_agents.host import pick_cores
from device_agents.patient import PatientAgent
from device_agents.rounds import join_rounds, measure_in_rounds, share_of
from device_agents.session import MeasuringSession
from device_agents.tflite_file import MAX_BYTES, open_inputs
from device_agents.verdicts import DEVICE_FAULTS, assess, is_failure, verdict_of_error
from nas_edge import __version__
from nas_edge.benchmarking.report import BenchmarkRow, BenchmarkStoppedError, DeviceRecord, ModelFile, Report
from nas_edge.errors import UsageError
from nas_edge.terminal import printable

ROUNDS = 8
# The anchor takes about as long as a model; between every two rounds is often enough.
_ROUNDS_PER_ANCHOR = 2
_NOT_PROFILED = "stopped before its operators were timed"

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
        raise UsageError(f"cannot read the model {printable(str(paths[0]))}: {reasons[0]}; expected a TFLite file")
    return models


def run_benchmark(
    request: Request,
    progress: Progress = lambda done, facts: None,
    open_agent: Callable[[str], DeviceAgent] = open_device,
    *,
    earlier: Report | None = None,
    on_stop: Callable[[Report], object] = lambda report: None,
) -> Report:
    """Measures everything; a model that fails is a row, and so is a device that is lost on the way.

    Args:
        request: What to measure.
        progress: Is called after each measurement.
        open_agent: Opens a device; tests may pass their own.
        earlier: The same benchmark, stopped or with a device that was lost: what it has is not measured again.
        on_stop: Is given what was measured when the user stops it, before the devices are closed, which may take as
            long as the measurement they are at.

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
        agents = {address: stack.enter_context(PatientAgent(open_agent(address))) for address in request.devices}
        per_device = request.measurements // len(agents)
        benches = [
            _Bench(request, address, agent, _shifted(progress, number * per_device), earlier)
            for number, (address, agent) in enumerate(agents.items())
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
        {bench.address: DeviceRecord(bench.info, bench.anchors) for bench in benches},
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
        data: Its bytes, or why there are none.
        spec: How it is measured.
        earlier: What an earlier session has of it.
        parts: Its rounds in this session so far.
        profiled: The run with the profiler.
    """

    model: ModelFile
    data: bytes | str
    spec: BenchmarkSpec
    earlier: BenchmarkRow | None = None
    parts: list[Measurement] = field(default_factory=list)
    profiled: Measurement | None = None

    @property
    def rounds_before(self) -> tuple[int, ...]:
        """Samples of each round of the earlier session."""
        return () if self.earlier is None else self.earlier.finished_rounds


class _Bench:
    """Measures the request's models on one device."""

    def __init__(
        self, request: Request, address: str, agent: DeviceAgent, progress: Progress, earlier: Report | None
    ) -> None:
        self.info = agent.info()
        self._request = request
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
            _Case(model, data, spec, known.get((model.name, spec.threads)))
            for model, data in request.models
            for spec in specs
        ]
        # A recording answers the same every time: repeating it would feign certainty.
        self._rounds = 1 if agent.recorded else request.rounds
        self._lost: Measurement | None = None
        self._rounds_done = False
        self._session = MeasuringSession(
            agent,
            PRESETS["search"].replace(threads=specs[0].threads, cores=specs[0].cores),
            settings=AnchorSettings(every=_ROUNDS_PER_ANCHOR * len(self._cases), interval_s=math.inf),
        )

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
    def anchors(self) -> tuple[AnchorReading, ...]:
        """Those of earlier sessions first; ratios are to the very first."""
        before = self._before.anchors if self._before is not None else ()
        first_ms = before[0].median_ms if before else None
        taken = sum(len(case.rounds_before) for case in self._cases)
        return *before, *(
            AnchorReading(taken + reading.after, reading.median_ms, reading.median_ms / (first_ms or reading.median_ms))
            if before
            else reading
            for reading in self._session.anchors
        )

    @property
    def missing(self) -> int:
        """Measurements that were not made."""
        rows = {(row.model.name, row.threads): row for row in self.rows()}
        found = [rows.get((case.model.name, case.spec.threads)) for case in self._cases]
        unprofiled = sum(row is not None and row.measurement.profile_note == _NOT_PROFILED for row in found)
        return unprofiled + sum(self._rounds if row is None else row.missing for row in found)

    def run(self) -> None:
        """Measures; what there is until an error is in `rows` all the same."""
        try:
            self._measure_rounds()
            self._rounds_done = True
            for case in self._cases:
                self._profile(case)
        except SpecError:
            raise
        except DeviceError as error:
            self._lost = Measurement(verdict_of_error(error), str(error))

    def rows(self) -> list[BenchmarkRow]:
        """What was measured so far, in this session and before; nothing of what was not reached."""
        return [row for row in map(self._row, self._cases) if row is not None]

    def _measure_rounds(self) -> None:
        """Measures what is missing of the files that could be read."""
        cases = [case for case in self._cases if isinstance(case.data, bytes)]
        cases = [case for case in cases if case.earlier is None or case.earlier.missing]
        told: list[_Case] = []

        def progress(done: int, position: int, measurement: Measurement) -> None:
            told.append(cases[position])
            cases[position].parts.append(measurement)
            others = (done - 1) // len(cases) * (len(self._cases) - len(cases))
            self._progress(done + others, _facts(cases[position], measurement))

        recorded = self._agent.recorded
        try:
            measured = measure_in_rounds(
                [(case.data, case.spec) for case in cases if isinstance(case.data, bytes)],
                self._rounds,
                self._agent.measure if recorded else self._session.measure,
                progress=progress,
                finish=None if recorded or not cases else self._session.finish,
                device_cores=self.info.cores,
                first_rounds=[min(len(case.rounds_before), self._rounds - 1) for case in cases],
            )
        except (DeviceError, KeyboardInterrupt):
            if not recorded:  # what drifted was measured again since it was told
                _take_parts(zip(told, self._session.results, strict=False))
            raise
        _take_parts((case, part) for case, found in zip(cases, measured, strict=True) for part in found.parts)

    def _row(self, case: _Case) -> BenchmarkRow | None:
        def row(measurement: Measurement, runs: Sequence[int], rounds: int | None = None) -> BenchmarkRow:
            return BenchmarkRow(case.model, self.address, case.spec.threads, measurement, tuple(runs), rounds)

        if isinstance(case.data, str):
            return row(Measurement(Verdict.LOAD_FAILED, case.data), ())
        runs = [*case.rounds_before, *(len(part.samples_ms) for part in case.parts)]
        parts = [*_as_part(case.earlier), *case.parts]
        whole_before = case.earlier is not None and not case.earlier.missing
        if self._lost is not None and not self._rounds_done and not whole_before:
            parts.append(self._lost)
        if not parts:
            return None
        whole = parts[0] if whole_before else self._join(parts, case.spec)
        return row(_with_profile(whole, case) if case.spec.profile_ops else whole, runs, self._rounds)

    def _join(self, parts: Sequence[Measurement], spec: BenchmarkSpec) -> Measurement:
        # The verdict of a single round is about the share of a round.
        if len(parts) == 1 and self._rounds > 1 and parts[0].ok:
            return assess(parts[0], spec, self.info.cores)
        return join_rounds(parts, spec, self.info.cores)

    def _profile(self, case: _Case) -> None:
        """Times operators in a run of their own: the profiler costs time and memory, and may crash."""
        row = self._row(case)
        wanted = case.spec.profile_ops and isinstance(case.data, bytes) and row is not None
        if not wanted or row is None or is_failure(row.measurement) or row.measurement.profile:
            return
        assert isinstance(case.data, bytes)
        spec = share_of(case.spec, self._request.rounds).replace(profile_ops=True, max_attempts=1)
        case.profiled = self._agent.measure(case.data, spec)


def _take_parts(found: Iterable[tuple[_Case, Measurement]]) -> None:
    """Gives cases their rounds in place of those they have."""
    taken: dict[_Case, list[Measurement]] = {}
    for case, part in found:
        taken.setdefault(case, []).append(part)
    for case, parts in taken.items():
        case.parts[:] = parts


def _as_part(earlier: BenchmarkRow | None) -> list[Measurement]:
    """What an earlier session has of a row, as one part of the whole; that its device was lost then is past."""
    if earlier is None:
        return []
    measurement = earlier.measurement
    if measurement.verdict in DEVICE_FAULTS:
        return [measurement.with_verdict(Verdict.OK, "")] if measurement.samples_ms else []
    return [measurement]


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


def _facts(case: _Case, measurement: Measurement) -> str:
    statistics = measurement.statistics
    shown = f"{statistics.median_ms:.4g} ms" if statistics and not is_failure(measurement) else measurement.verdict
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
