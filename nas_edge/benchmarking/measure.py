"""Measures several models side by side.

    for each device:  anchor, round 1: every model, round 2: every model, anchor, round 3 ...

Drift and load affect all models equally, and the anchor model shows them. Each round takes a share of the preset's runs
and time, see `device_agents.rounds`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
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
from device_agents.rounds import FileInRounds, join_rounds, measure_in_rounds, share_of
from device_agents.session import MeasuringSession
from device_agents.tflite_file import MAX_BYTES, open_inputs
from device_agents.verdicts import is_failure, verdict_of_error
from nas_edge import __version__
from nas_edge.benchmarking.report import BenchmarkRow, DeviceRecord, ModelFile, Report
from nas_edge.errors import UsageError
from nas_edge.formatting import reason

ROUNDS = 8
# The anchor takes about as long as a model; between every two rounds is often enough.
_ROUNDS_PER_ANCHOR = 2
# The name by which pipeline.py imports it.

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
        agents = {address: stack.enter_context(PatientAgent(open_agent(address))) for address in request.devices}
        devices: dict[str, DeviceRecord] = {}
        rows: list[BenchmarkRow] = []
        for number, (address, agent) in enumerate(agents.items()):
            bench = _Bench(request, address, agent, _shifted(progress, number * request.measurements // len(agents)))
            rows += bench.run()
            devices[address] = DeviceRecord(bench.info, bench.anchors)
    positions = {model.name: i for i, (model, _) in enumerate(request.models)}
    rows.sort(key=lambda row: positions[row.model.name])  # stable: devices and threads stay in order
    return Report(__version__, created_utc, request.preset, request.spec, devices, tuple(rows))


@dataclass(frozen=True)
class _Case:
    """One row in the making: a file, its bytes or why there are none, how it is measured, and its rounds so far."""

    model: ModelFile
    data: bytes | str
    spec: BenchmarkSpec
    parts: list[Measurement] = field(default_factory=list)


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
        # A recording answers the same every time: repeating it would feign certainty.
        self._rounds = 1 if agent.recorded else request.rounds
        self._session = MeasuringSession(
            agent,
            PRESETS["search"].replace(threads=specs[0].threads, cores=specs[0].cores),
            settings=AnchorSettings(every=_ROUNDS_PER_ANCHOR * len(self._cases), interval_s=math.inf),
        )

    @property
    def anchors(self) -> tuple[AnchorReading, ...]:
        return self._session.anchors

    def run(self) -> list[BenchmarkRow]:
        try:
            measured = iter(self._measure_rounds())
            return [self._row(case, None if isinstance(case.data, str) else next(measured)) for case in self._cases]
        except SpecError:
            raise
        except DeviceError as error:
            lost = Measurement(verdict_of_error(error), reason(error))
            return [self._lost_row(case, lost) for case in self._cases]

    def _lost_row(self, case: _Case, lost: Measurement) -> BenchmarkRow:
        """A row of a device that is gone: with the rounds it has, and why there are no more."""
        measurement = join_rounds([*case.parts, lost], case.spec, self.info.cores)
        runs = tuple(len(part.samples_ms) for part in case.parts)
        return BenchmarkRow(case.model, self._address, case.spec.threads, measurement, runs)

    def _measure_rounds(self) -> list[FileInRounds]:
        """Measures the files that could be read."""
        cases = [case for case in self._cases if isinstance(case.data, bytes)]

        def progress(done: int, position: int, measurement: Measurement) -> None:
            cases[position].parts.append(measurement)
            unread = (done - 1) // len(cases) * (len(self._cases) - len(cases))
            self._progress(done + unread, _facts(cases[position], measurement))

        return measure_in_rounds(
            [(case.data, case.spec) for case in cases if isinstance(case.data, bytes)],
            self._rounds,
            self._agent.measure if self._agent.recorded else self._session.measure,
            progress=progress,
            finish=None if self._agent.recorded else self._session.finish,
            device_cores=self.info.cores,
        )

    def _row(self, case: _Case, measured: FileInRounds | None) -> BenchmarkRow:
        if measured is None:
            return BenchmarkRow(
                case.model, self._address, case.spec.threads, Measurement(Verdict.LOAD_FAILED, str(case.data)), ()
            )
        measurement = measured.whole
        if case.spec.profile_ops and isinstance(case.data, bytes) and not is_failure(measurement):
            measurement = self._with_profile(measurement, case.data, case.spec)
        runs = tuple(len(part.samples_ms) for part in measured.parts)
        return BenchmarkRow(case.model, self._address, case.spec.threads, measurement, runs)

    def _with_profile(self, measurement: Measurement, data: bytes, spec: BenchmarkSpec) -> Measurement:
        """Adds operator times, from a run of their own: the profiler costs time and memory, and may crash."""
        profiled = self._agent.measure(
            data, share_of(spec, self._request.rounds).replace(profile_ops=True, max_attempts=1)
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


def _facts(case: _Case, measurement: Measurement) -> str:
    statistics = measurement.statistics
    shown = f"{statistics.median_ms:.4g} ms" if statistics and not is_failure(measurement) else measurement.verdict
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
