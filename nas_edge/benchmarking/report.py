"""The record of a benchmark: every sample, every condition, read back with suspicion."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from device_agents.api import BenchmarkSpec, DeviceInfo, Measurement
from device_agents.errors import DeviceError
from device_agents.probe_watch import ProbeState
from device_agents.quiet import VisitSettings
from device_agents.verdicts import DEVICE_FAULTS, is_failure
from nas_edge.errors import StoppedError, UsageError
from nas_edge.formatting import reason

KIND = "nas_edge benchmark"
SCHEMA_VERSION = 2
# Measured in one go, in 8 rounds, with one anchor model in place of the probes.
_SCHEMA_OF_ANCHORS = 1


@dataclass(frozen=True)
class ModelFile:
    """A file that was measured.

    Attributes:
        name: How it is called in the results; unique among them.
        path: As it was given.
        sha256: Hash of its bytes, or "" if it could not be read.
        size_bytes: Its length.
        open_inputs: Names of its inputs with a dimension of any size.
    """

    name: str
    path: str
    sha256: str
    size_bytes: int
    open_inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeRecord:
    """How a probe stood at the end of a benchmark.

    Attributes:
        threads: Threads given to the runtime.
        state: The rest.
    """

    threads: int
    state: ProbeState

    @property
    def undisturbed_ms(self) -> float | None:
        """Its undisturbed time in this benchmark, in milliseconds; None if not known."""
        state = self.state
        if state.session_ms is not None:
            return state.session_ms
        return None if state.floor_ms is None or state.level is None else state.floor_ms * state.level


@dataclass(frozen=True)
class DeviceRecord:
    """A device and how quiet it was.

    Attributes:
        info: What it is.
        probes: Models that tell how quiet it was, for each number of threads; empty for recorded devices.
    """

    info: DeviceInfo
    probes: tuple[ProbeRecord, ...]

    def undisturbed_ms(self, threads: int) -> dict[str, float]:
        """Returns the undisturbed times of the probes with so many threads, in milliseconds by name."""
        times = {probe.state.name: probe.undisturbed_ms for probe in self.probes if probe.threads == threads}
        return {name: time_ms for name, time_ms in times.items() if time_ms}


@dataclass(frozen=True)
class BenchmarkRow:
    """One model on one device with one number of threads.

    Attributes:
        model: The file.
        device: Address of the device.
        threads: Threads given to the runtime.
        measurement: All visits together.
        finished: Whether it was measured for as long as was asked for.
    """

    model: ModelFile
    device: str
    threads: int
    measurement: Measurement
    finished: bool = True

    @property
    def complete(self) -> bool:
        """Whether nothing is left to measure: a model that fails has its answer, one whose device does has none."""
        return self.finished and self.measurement.verdict not in DEVICE_FAULTS

    @property
    def failed(self) -> bool:
        """True if there is no latency at all."""
        return not self.measurement.samples_ms or is_failure(self.measurement)

    @property
    def flagged(self) -> bool:
        """True if there is a latency, but a doubtful one."""
        return not self.failed and not self.measurement.ok

    @property
    def rounds(self) -> int:
        """How many rounds it was visited in."""
        return len({visit.round for visit in self.measurement.visits})


@dataclass(frozen=True)
class Report:
    """A whole benchmark.

    Attributes:
        tool_version: Version of nas_edge.
        created_utc: When it began, ISO 8601.
        preset: Name of the measuring preset.
        spec: The settings of one row, all visits together; threads and cores differ by row.
        devices: Every device by its address.
        rows: In the order of the models as they were given; of one that was stopped, those with a measurement.
        cores: Which CPUs were asked for, as `device_agents.api.parse_cores` reads them; None for the device's choice.
        missing: Measurements that were not made or not finished, because it was stopped or a device was lost.
        continued_utc: When it was continued, ISO 8601; each time is another session.
        in_visits: False for what earlier versions measured in one go.
    """

    tool_version: str
    created_utc: str
    preset: str
    spec: BenchmarkSpec
    devices: Mapping[str, DeviceRecord]
    rows: tuple[BenchmarkRow, ...]
    cores: str | tuple[int, ...] | None = None
    missing: int = 0
    continued_utc: tuple[str, ...] = ()
    in_visits: bool = True

    @property
    def complete(self) -> bool:
        """True if everything was measured."""
        return self.missing == 0

    @property
    def missing_text(self) -> str:
        """How much is missing, in words."""
        return f"{self.missing} measurement{'s are' if self.missing != 1 else ' is'} missing or not finished"

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object; statistics are added for other readers and not read back."""
        return {
            "kind": KIND,
            "schema": SCHEMA_VERSION,
            "tool_version": self.tool_version,
            "created_utc": self.created_utc,
            "preset": self.preset,
            "spec": self.spec.to_json(),
            "cores": list(self.cores) if isinstance(self.cores, tuple) else self.cores,
            "complete": self.complete,
            "missing_measurements": self.missing,
            "continued_utc": list(self.continued_utc),
            "in_visits": self.in_visits,
            "devices": [
                {
                    "info": asdict(device.info),
                    "fingerprint": device.info.fingerprint,
                    "probes": [{"threads": probe.threads, **asdict(probe.state)} for probe in device.probes],
                }
                for device in self.devices.values()
            ],
            "rows": [_row_to_json(row) for row in self.rows],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If it is anything else.
        """
        if not isinstance(data, Mapping) or data.get("kind") != KIND:
            raise ValueError(f"expected kind {KIND!r}")
        schema = data.get("schema")
        if schema not in (SCHEMA_VERSION, _SCHEMA_OF_ANCHORS):
            raise ValueError(f"expected schema {SCHEMA_VERSION} or less, received {schema!r}")
        read_probes, read_finished = (
            (_read_probes, _read_finished) if schema == SCHEMA_VERSION else (_read_anchors, _all_rounds)
        )
        try:
            devices = [_read_device(raw, read_probes) for raw in data["devices"]]
            return cls(
                tool_version=str(data["tool_version"]),
                created_utc=str(data["created_utc"]),
                preset=str(data["preset"]),
                spec=BenchmarkSpec.from_json(data["spec"]),
                devices={device.info.address: device for device in devices},
                rows=tuple(_read_row(raw, read_finished) for raw in data["rows"]),
                cores=_cores(data.get("cores")),
                missing=_whole("missing_measurements", data.get("missing_measurements", 0)),
                continued_utc=tuple(map(str, data.get("continued_utc", ()))),
                in_visits=schema == SCHEMA_VERSION and bool(data["in_visits"]),
            )
        except (DeviceError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(reason(error)) from None


class BenchmarkStoppedError(StoppedError):
    """The user stopped a benchmark.

    Attributes:
        report: what was measured until then.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"stopped; {report.missing_text}")
        self.report = report


def read_report(path: Path) -> Report:
    """Reads a file written with `--format json`.

    Raises:
        UsageError: If it cannot be read or is something else.
    """
    try:
        return Report.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a baseline; expected a file written with `nas-edge benchmark --format json`: {error}"
        ) from None


def _row_to_json(row: BenchmarkRow) -> dict[str, Any]:
    observed = row.measurement.statistics
    return {
        "model": asdict(row.model),
        "device": row.device,
        "threads": row.threads,
        "finished": row.finished,
        "measurement": row.measurement.to_json(),
        "observed": None if observed is None else asdict(observed),
    }


def _read_row(raw: Mapping[str, Any], read_finished: Callable[[Mapping[str, Any], Measurement], bool]) -> BenchmarkRow:
    model = raw["model"]
    measurement = Measurement.from_json(raw["measurement"])
    if measurement.visits and sum(visit.samples for visit in measurement.visits) != len(measurement.samples_ms):
        raise ValueError("visits do not add up to the number of samples")
    return BenchmarkRow(
        model=ModelFile(
            str(model["name"]),
            str(model["path"]),
            str(model["sha256"]),
            _whole("size_bytes", model["size_bytes"]),
            tuple(map(str, model.get("open_inputs", ()))),
        ),
        device=str(raw["device"]),
        threads=_whole("threads", raw["threads"]),
        measurement=measurement,
        finished=read_finished(raw, measurement),
    )


def _read_finished(raw: Mapping[str, Any], measurement: Measurement) -> bool:
    return bool(raw["finished"])


def _all_rounds(raw: Mapping[str, Any], measurement: Measurement) -> bool:
    """Whether a row of an earlier version has all its rounds; it says how many samples each took."""
    round_runs = [_whole("round_runs", count) for count in raw["round_runs"]]
    if sum(round_runs) != len(measurement.samples_ms):
        raise ValueError("round_runs do not add up to the number of samples")
    wanted = len(round_runs) if raw.get("rounds") is None else _whole("rounds", raw["rounds"])
    return is_failure(measurement) or len(round_runs) >= wanted


def _read_device(
    raw: Mapping[str, Any], read_probes: Callable[[Mapping[str, Any]], Iterable[ProbeRecord]]
) -> DeviceRecord:
    info = raw["info"]
    _check_fields("a device", info, DeviceInfo)
    return DeviceRecord(DeviceInfo(**info), tuple(read_probes(raw)))


def _read_probes(raw: Mapping[str, Any]) -> list[ProbeRecord]:
    probes = []
    for row in raw["probes"]:
        values = dict(row)
        threads = _whole("threads", values.pop("threads", None))
        _check_fields("a probe", values, ProbeState)
        times = {name: values[name] for name in ("floor_ms", "level", "median_level", "high_level", "session_ms")}
        state = ProbeState(
            name=str(values["name"]),
            quiet_share=_share("quiet_share", values["quiet_share"]),
            visits=_whole("visits", values["visits"]),
            **{name: None if value is None else _positive(name, value) for name, value in times.items()},
        )
        probes.append(ProbeRecord(threads, state))
    return probes


def _read_anchors(raw: Mapping[str, Any]) -> list[ProbeRecord]:
    """What an earlier version has in place of probes: the medians of one model, of one number of threads."""
    medians_ms = [_positive("median_ms", reading["median_ms"]) for reading in raw["anchors"]]
    if not medians_ms:
        return []
    lowest_ms = min(medians_ms)
    quiet = sum(median_ms <= lowest_ms * (1 + VisitSettings().probe_tolerance) for median_ms in medians_ms)
    level = statistics.median(medians_ms) / lowest_ms
    state = ProbeState("anchor", lowest_ms, 1.0, level, quiet / len(medians_ms), len(medians_ms))
    return [ProbeRecord(1, state)]


def _check_fields(what: str, raw: Mapping[str, Any], cls: type[Any]) -> None:
    expected = {field.name for field in fields(cls)}
    if set(raw) != expected:
        raise ValueError(f"missing or unknown fields in {what}: {sorted(map(str, expected ^ set(raw)))[:8]}")


def _cores(raw: Any) -> str | tuple[int, ...] | None:
    return tuple(_whole("cores", core) for core in raw) if isinstance(raw, list) else None if raw is None else str(raw)


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number >= 0, received {value!r:.80}")
    return value


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise ValueError(f"{name} must be a number above 0, received {value!r:.80}")
    return float(value)


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number between 0 and 1, received {value!r:.80}")
    return float(value)
