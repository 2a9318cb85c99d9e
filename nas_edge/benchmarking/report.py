"""The record of a benchmark: every sample, every condition, read back with suspicion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from device_agents.anchor_watch import AnchorReading
from device_agents.api import BenchmarkSpec, DeviceInfo, Measurement, Verdict
from device_agents.errors import DeviceError
from device_agents.verdicts import DEVICE_FAULTS, FLAGS, is_failure
from nas_edge.errors import StoppedError, UsageError
from nas_edge.formatting import reason

KIND = "nas_edge benchmark"
SCHEMA_VERSION = 1


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
class DeviceRecord:
    """A device and how steady it was.

    Attributes:
        info: What it is.
        anchors: Times of the anchor model during the benchmark; empty for recorded devices.
    """

    info: DeviceInfo
    anchors: tuple[AnchorReading, ...]

    @property
    def anchor_ms(self) -> float | None:
        """Mean of the anchor's medians, in milliseconds; None if it was not measured."""
        medians = [reading.median_ms for reading in self.anchors]
        return sum(medians) / len(medians) if medians else None


@dataclass(frozen=True)
class BenchmarkRow:
    """One model on one device with one number of threads.

    Attributes:
        model: The file.
        device: Address of the device.
        threads: Threads given to the runtime.
        measurement: All rounds together; its verdict is about all of them.
        round_runs: How many of the samples each round took, in their order.
        rounds: How many rounds were asked for; None for as many as there are.
    """

    model: ModelFile
    device: str
    threads: int
    measurement: Measurement
    round_runs: tuple[int, ...]
    rounds: int | None = None

    @property
    def missing(self) -> int:
        """Rounds that are still to be measured: none of a model that fails, but of one whose device does."""
        wanted = len(self.round_runs) if self.rounds is None else self.rounds
        if self.measurement.verdict in DEVICE_FAULTS:
            return max(1, wanted - len(self.finished_rounds))
        return 0 if is_failure(self.measurement) else max(0, wanted - len(self.round_runs))

    @property
    def finished_rounds(self) -> tuple[int, ...]:
        """As `round_runs`, without the round in which the device was lost."""
        lost = self.measurement.verdict in DEVICE_FAULTS
        return tuple(runs for runs in self.round_runs if runs or not lost)

    @property
    def failed(self) -> bool:
        """True if there is no latency at all."""
        return not self.measurement.samples_ms or self.measurement.verdict not in (Verdict.OK, *FLAGS)

    @property
    def flagged(self) -> bool:
        """True if there is a latency, but a doubtful one."""
        return not self.failed and not self.measurement.ok

    @property
    def rounds_ms(self) -> list[tuple[float, ...]]:
        """The samples of each round, in milliseconds."""
        rounds, start = [], 0
        for count in self.round_runs:
            rounds.append(self.measurement.samples_ms[start : start + count])
            start += count
        return [samples for samples in rounds if samples]


@dataclass(frozen=True)
class Report:
    """A whole benchmark.

    Attributes:
        tool_version: Version of nas_edge.
        created_utc: When it began, ISO 8601.
        preset: Name of the measuring preset.
        spec: The settings of one row, all rounds together; threads and cores differ by row.
        devices: Every device by its address.
        rows: In the order of the models as they were given; of one that was stopped, those with a measurement.
        cores: Which CPUs were asked for, as `device_agents.api.parse_cores` reads them; None for the device's choice.
        missing: Measurements that were not made, because it was stopped or a device was lost.
        continued_utc: When it was continued, ISO 8601; each time is another session.
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

    @property
    def complete(self) -> bool:
        """True if everything was measured."""
        return self.missing == 0

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
            "devices": [
                {
                    "info": asdict(device.info),
                    "fingerprint": device.info.fingerprint,
                    "anchors": [asdict(reading) for reading in device.anchors],
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
        if data.get("schema") != SCHEMA_VERSION:
            raise ValueError(f"expected schema {SCHEMA_VERSION}, received {data.get('schema')!r}")
        try:
            devices = [_read_device(raw) for raw in data["devices"]]
            return cls(
                tool_version=str(data["tool_version"]),
                created_utc=str(data["created_utc"]),
                preset=str(data["preset"]),
                spec=BenchmarkSpec.from_json(data["spec"]),
                devices={device.info.address: device for device in devices},
                rows=tuple(_read_row(raw) for raw in data["rows"]),
                cores=_cores(data.get("cores")),
                missing=_whole("missing_measurements", data.get("missing_measurements", 0)),
                continued_utc=tuple(map(str, data.get("continued_utc", ()))),
            )
        except (DeviceError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(reason(error)) from None


class BenchmarkStoppedError(StoppedError):
    """The user stopped a benchmark.

    Attributes:
        report: what was measured until then.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"stopped; {report.missing} measurements are missing")
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
    statistics = row.measurement.statistics
    return {
        "model": asdict(row.model),
        "device": row.device,
        "threads": row.threads,
        "round_runs": list(row.round_runs),
        "rounds": row.rounds,
        "measurement": row.measurement.to_json(),
        "statistics": None if statistics is None else asdict(statistics),
    }


def _read_row(raw: Mapping[str, Any]) -> BenchmarkRow:
    model = raw["model"]
    measurement = Measurement.from_json(raw["measurement"])
    round_runs = tuple(_whole("round_runs", count) for count in raw["round_runs"])
    if sum(round_runs) != len(measurement.samples_ms):
        raise ValueError("round_runs do not add up to the number of samples")
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
        round_runs=round_runs,
        rounds=None if raw.get("rounds") is None else _whole("rounds", raw["rounds"]),
    )


def _read_device(raw: Mapping[str, Any]) -> DeviceRecord:
    info = raw["info"]
    expected = {field.name for field in fields(DeviceInfo)}
    if set(info) != expected:
        raise ValueError(f"missing or unknown fields in a device: {sorted(map(str, expected ^ set(info)))[:8]}")
    anchors = tuple(
        AnchorReading(
            _whole("after", reading["after"]),
            _positive("median_ms", reading["median_ms"]),
            _positive("ratio", reading["ratio"]),
        )
        for reading in raw["anchors"]
    )
    return DeviceRecord(DeviceInfo(**info), anchors)


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
