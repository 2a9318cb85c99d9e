"""The vocabulary of measuring on a device, shared with everybody who measures.

    BenchmarkSpec + model bytes --DeviceAgent.measure--> Measurement (verdict, samples)

A candidate that fails is a `Measurement` with a verdict, never an exception; an
exception (`errors`) means that the bench is broken. There are no sentinel numbers:
what was not measured is None.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents.errors import ProtocolError, SpecError
from device_agents.worker.spec import (
    CPU_DELEGATES,
    DELEGATES,
    EFFORT,
    PRESETS,
    RANDOM_VALUES,
    BenchmarkSpec,
    Delegate,
    parse_cores,
)
from device_agents.worker.statistics import Statistics, median_interval, quantile, summarize

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CPU_DELEGATES",
    "DELEGATES",
    "EFFORT",
    "PRESETS",
    "RANDOM_VALUES",
    "BenchmarkSpec",
    "Conditions",
    "Delegate",
    "DeviceAgent",
    "DeviceInfo",
    "MeasureRequest",
    "Measurement",
    "OpTime",
    "QuietLatency",
    "Statistics",
    "Verdict",
    "Visit",
    "median_interval",
    "parse_cores",
    "quantile",
]

MEASUREMENT_SCHEMA_VERSION = 1
_LARGEST = 1e300
_T = TypeVar("_T")


class Verdict(str, Enum):
    """What a measurement is worth.

    Only `ok` and, within its interval, `corrected` are latencies to rely on; whose fault the others are,
    `verdicts.OWNERS` says. No device answers `not_known`: it is what a table says of
    what it does not have.
    """

    OK = "ok"
    CORRECTED = "corrected"
    CONTENDED = "contended"
    UNSTEADY = "unsteady"
    DRIFTED = "drifted"
    THROTTLED = "throttled"
    FALLBACK = "fallback"
    CONVERT_FAILED = "convert_failed"
    COMPILE_FAILED = "compile_failed"
    LOAD_FAILED = "load_failed"
    RUN_FAILED = "run_failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    DEVICE_LOST = "device_lost"
    BENCH_FAILED = "bench_failed"
    NOT_KNOWN = "not_known"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class DeviceInfo:
    """What a device is.

    Attributes:
        address: The address that opens it, for example "host:".
        kind: The way it is reached, for example "host".
        model: Product or CPU name.
        soc: System on chip or instruction set, for example "x86_64".
        cores: Number of CPUs the worker may use.
        memory_bytes: Physical memory, or None if unknown.
        os: Operating system and version.
        runtime: Name of the TFLite runtime, for example "ai_edge_litert".
        runtime_version: Its version; latencies of two versions are not comparable.
        measures_on_host: True if work on this machine disturbs the measurement, so
            that nothing should train while a model is being timed.
    """

    address: str
    kind: str
    model: str
    soc: str
    cores: int
    memory_bytes: int | None
    os: str
    runtime: str
    runtime_version: str
    measures_on_host: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Short stable hash of what makes two devices interchangeable.

        Latencies share a column or a cache only between equal fingerprints. The
        address and the runtime are not part of it; a cache keys on the runtime's
        version separately.
        """
        identity = [self.kind, self.model, self.soc, self.cores, self.os]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Conditions:
    """Under which conditions samples were taken. None means: not known.

    Attributes:
        device_fingerprint: `DeviceInfo.fingerprint` of the device.
        device_model: `DeviceInfo.model`.
        delegate: What was asked for, see `DELEGATES`.
        delegate_kernels: Parts of the graph the delegate took over; 0 means none.
        threads: Threads given to the runtime.
        cores: CPU ids the worker was allowed to run on.
        governor: CPU frequency governor of those cores.
        cpu_mhz_before: Mean clock of those cores before timing, in MHz.
        cpu_mhz_after: The same after timing.
        temperature_c_before: Hottest sensor before timing, in degrees Celsius.
        temperature_c_after: The same after timing.
        throttle_events: Thermal throttling events counted by the CPU during timing.
        load_average_before: One-minute load average before timing.
        load_average_after: The same after timing.
        other_load_cores: CPU time other programs took on those cores while timing,
            per second, so 0.5 is half a core.
        wait_share: Share of the timing in which the worker waited for a core.
        inputs: What the model was run on: the digest of examples, see `BenchmarkSpec.inputs`, or `RANDOM_VALUES`.
        anchor_ratio: Time of the session's compute probe when it was last measured, over
            its first; 1.0 is no drift. See `probe_watch`.
        started_utc: Start of the measurement, ISO 8601.
    """

    device_fingerprint: str
    device_model: str
    runtime: str
    runtime_version: str
    delegate: str
    threads: int
    started_utc: str
    delegate_kernels: int | None = None
    cores: tuple[int, ...] | None = None
    governor: str | None = None
    cpu_mhz_before: float | None = None
    cpu_mhz_after: float | None = None
    temperature_c_before: float | None = None
    temperature_c_after: float | None = None
    throttle_events: int | None = None
    load_average_before: float | None = None
    load_average_after: float | None = None
    other_load_cores: float | None = None
    wait_share: float | None = None
    anchor_ratio: float | None = None
    inputs: str | None = None


@dataclass(frozen=True)
class OpTime:
    """Time of one operator.

    Attributes:
        op: Operator type, for example "CONV_2D".
        name: Name of its output tensor.
        mean_ms: Mean time per inference, in milliseconds.
        share: Share of the sum over all operators, 0 to 1.
    """

    op: str
    name: str
    mean_ms: float
    share: float


@dataclass(frozen=True)
class Visit:
    """A short time in which a model was run, one of the many that a measurement is made of.

    Attributes:
        samples: How many of the measurement's samples were taken in it; visits follow one another as their samples do.
        round: Number of the round it was part of. Whatever is measured together is visited once in a round.
        at_s: When it was, in seconds since the measurement began.
        wait_share: Share of it in which the model waited for a core, None if not known.
    """

    samples: int
    round: int
    at_s: float
    wait_share: float | None = None


@dataclass(frozen=True)
class QuietLatency:
    """What a network costs where nothing disturbs it: from the visits that were disturbed least.

    Attributes:
        latency_ms: The latency in milliseconds.
        interval_ms: Low and high end of its 95% interval.
        visits: How many visits agree on it.
    """

    latency_ms: float
    interval_ms: tuple[float, float]
    visits: int

    @property
    def relative_half_width(self) -> float:
        """Half the width of the interval divided by the latency."""
        return (self.interval_ms[1] - self.interval_ms[0]) / 2 / self.latency_ms if self.latency_ms else math.inf


@dataclass(frozen=True)
class Measurement:
    """One model measured on one device, or the reason why it could not be.

    Attributes:
        verdict: What the numbers are worth.
        detail: One line saying why; empty for `ok`.
        samples_ms: What was timed, in order, in milliseconds: single runs, or blocks of them.
        runs_per_sample: Runs that each sample stands for, the fewest of any where they differ: 1 where single runs are
            timed; the size of a block where the tool on the device prints no single runs, and the sample is the
            block's median, or else its mean; of a visit, its fastest run. None: not known.
        init_ms: Time to create the interpreter and allocate tensors.
        startup_ms: What a process of the tool took beyond running the model: to start, to load it and to end; of
            several the median. None where the process stays.
        first_inference_ms: Time of the first inference.
        warmup_runs: Untimed runs after the first inference.
        busy_s: Seconds in which the device warmed up or timed, over all attempts.
        peak_memory_bytes: Approximate growth of resident memory while the model was
            loaded and run, in bytes.
        energy_mj: Energy of one inference in millijoules, if requested and available; it covers all that `energy_note`
            names, whatever else that did meanwhile. The median of several visits.
        energy_note: What the energy covers; or why it is not known although it was requested.
        profile: Times of single operators, if asked for and available.
        profile_note: Why there is no profile although one was asked for.
        attempts: How often the model was measured.
        visits: What the samples were taken in; empty where the model was measured in one go.
        quiet: The quiet latency, None where it is not known or the model was measured in one go.
        conditions: See `Conditions`; None if nothing was measured.
    """

    verdict: Verdict
    detail: str = ""
    samples_ms: tuple[float, ...] = ()
    runs_per_sample: int | None = 1
    init_ms: float | None = None
    startup_ms: float | None = None
    first_inference_ms: float | None = None
    warmup_runs: int | None = None
    busy_s: float = 0.0
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    energy_note: str = ""
    profile: tuple[OpTime, ...] = ()
    profile_note: str = ""
    attempts: int = 1
    visits: tuple[Visit, ...] = ()
    quiet: QuietLatency | None = None
    conditions: Conditions | None = None

    @property
    def ok(self) -> bool:
        """True if the latency can be relied on, a corrected one within its interval."""
        return self.verdict in (Verdict.OK, Verdict.CORRECTED)

    @cached_property
    def statistics(self) -> Statistics | None:
        """The observed latency: statistics of all samples whatever the verdict; None without samples."""
        return summarize(self.samples_ms) if self.samples_ms else None

    @property
    def latency_ms(self) -> float | None:
        """The latency in milliseconds if it can be relied on, else None.

        It is the quiet latency, or the median of what was measured in one go. What a measurement that is flagged has
        (`contended`, `unsteady`, `drifted`, ...) is `best_ms`, to be used knowingly.
        """
        return self.best_ms if self.ok else None

    @property
    def best_ms(self) -> float | None:
        """The latency in milliseconds whatever the verdict; None where nothing was timed."""
        if self.quiet is not None:
            return self.quiet.latency_ms
        return self.statistics.median_ms if self.statistics else None

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """The 95% interval of `best_ms`, where it is known."""
        if self.quiet is not None:
            return self.quiet.interval_ms
        return self.statistics.interval_ms if self.statistics else None

    @property
    def runs(self) -> int | None:
        """Timed runs, at least; None if not known."""
        return None if self.runs_per_sample is None else len(self.samples_ms) * self.runs_per_sample

    def with_verdict(self, verdict: Verdict, detail: str) -> Measurement:
        """Returns a copy with another verdict."""
        return replace(self, verdict=verdict, detail=detail)

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object; statistics are left out, being derived."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["verdict"] = self.verdict.value
        data["samples_ms"] = list(self.samples_ms)
        data["profile"] = [asdict(row) for row in self.profile]
        data["visits"] = [[v.samples, v.round, v.at_s, v.wait_share] for v in self.visits]
        data["quiet"] = None if self.quiet is None else {**asdict(self.quiet), "interval_ms": [*self.quiet.interval_ms]}
        if self.conditions is not None:
            data["conditions"] = asdict(self.conditions)
            if self.conditions.cores is not None:
                data["conditions"]["cores"] = list(self.conditions.cores)
        return {"schema": MEASUREMENT_SCHEMA_VERSION, **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Reads what `to_json` wrote, trusting nothing.

        Raises:
            ProtocolError: If a field is missing, unknown, of a wrong type, negative
                or not finite.
        """
        return _read_measurement(data)


MeasureRequest = tuple[bytes, BenchmarkSpec]
"""A TFLite file, and how to measure it."""


class DeviceAgent(ABC):
    """A device that measures and runs TFLite models, one at a time.

    Not thread-safe: `pool.DevicePool` gives each agent its own thread.

    Attributes:
        recorded: Whether answers are recordings: measured again, a model would give the same samples.
        rounds_at_once: So many rounds of visits are best asked for in one `measure_all`: more than one where the way
            there and back takes long.
    """

    recorded: bool = False
    rounds_at_once: int = 1

    @abstractmethod
    def info(self) -> DeviceInfo:
        """Returns what the device is.

        Raises:
            DeviceError: If the device cannot be reached.
        """

    @abstractmethod
    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """Measures a model.

        Args:
            model: A TFLite file; may be malformed or hostile.
            spec: How to measure.

        Returns:
            The measurement; a bad model is a verdict, not an exception.

        Raises:
            DeviceError: If the bench itself is broken.
        """

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """Measures models one after the other, in the order given; the same one may come several times.

        A device to which every trip takes time does it in one.

        Returns:
            The measurements in that order; see `measure`.

        Raises:
            DeviceError: If the bench itself is broken.
        """
        return [self.measure(model, spec) for model, spec in requests]

    @abstractmethod
    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs a model once, for checking its outputs.

        Args:
            model: A TFLite file.
            inputs: One array for each input, in the model's order.

        Returns:
            One array for each output, in the model's order.

        Raises:
            ModelError: If the model or the inputs do not work.
            DeviceError: If the bench itself is broken.
        """

    def take_examples(self, examples: NDArray[Any]) -> str:
        """Takes what models are to be run on while they are timed, in turns, from now on until the agent is closed.

        A device gets them once in a session, however many models are measured.

        Args:
            examples: float32 [examples, ...], as a network takes them before it is quantised.

        Returns:
            Their digest, for `BenchmarkSpec.inputs`; "" where this kind of device times on random values only.
        """
        return ""

    def cores(self, kind: str) -> tuple[int, ...]:
        """Returns the CPU ids of a kind of core, for `BenchmarkSpec.cores`.

        Args:
            kind: "big" or "little".

        Raises:
            SpecError: If the device does not tell them apart.
            DeviceError: If the device cannot be reached.
        """
        raise SpecError(
            f"{self.info().model} does not tell big cores from little ones", fix="name ids, for example 4-7"
        )

    @abstractmethod
    def close(self) -> None:
        """Frees the device; may be called twice."""

    def __enter__(self: _AgentT) -> _AgentT:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_AgentT = TypeVar("_AgentT", bound=DeviceAgent)


# Readers of untrusted JSON. Each says which field is wrong and what came instead.


def _read_measurement(data: Mapping[str, Any]) -> Measurement:
    if not isinstance(data, Mapping) or data.get("schema") != MEASUREMENT_SCHEMA_VERSION:
        received = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
        raise ProtocolError(
            "Not a measurement",
            expected=f"a JSON object of schema {MEASUREMENT_SCHEMA_VERSION}",
            received=f"{received!r}",
        )
    # Records from before there were blocks hold single runs, those from before there were visits none.
    later = {
        "runs_per_sample": 1,
        "visits": [],
        "quiet": None,
        "startup_ms": None,
        "energy_mj": None,
        "energy_note": "",
    }
    raw = {**later, **{k: v for k, v in data.items() if k != "schema"}}
    _check_names("measurement", raw, Measurement)
    profile = _list("profile", raw["profile"])
    conditions = raw["conditions"]
    return Measurement(
        verdict=_verdict(raw["verdict"]),
        detail=_text("detail", raw["detail"]),
        samples_ms=tuple(_number("samples_ms", x) for x in _list("samples_ms", raw["samples_ms"])),
        runs_per_sample=_optional_count("runs_per_sample", raw["runs_per_sample"]),
        init_ms=_optional_number("init_ms", raw["init_ms"]),
        startup_ms=_optional_number("startup_ms", raw["startup_ms"]),
        first_inference_ms=_optional_number("first_inference_ms", raw["first_inference_ms"]),
        warmup_runs=_optional_count("warmup_runs", raw["warmup_runs"]),
        busy_s=_number("busy_s", raw["busy_s"]),
        peak_memory_bytes=_optional_count("peak_memory_bytes", raw["peak_memory_bytes"]),
        energy_mj=_optional_number("energy_mj", raw["energy_mj"]),
        energy_note=_text("energy_note", raw["energy_note"]),
        profile=tuple(_read_op_time(row) for row in profile),
        profile_note=_text("profile_note", raw["profile_note"]),
        attempts=_count("attempts", raw["attempts"]),
        visits=tuple(_read_visit(row) for row in _list("visits", raw["visits"])),
        quiet=None if raw["quiet"] is None else _read_quiet(raw["quiet"]),
        conditions=None if conditions is None else _read_conditions(conditions),
    )


def _read_visit(raw: Any) -> Visit:
    row = _list("visit", raw)
    if len(row) != 4:
        raise ProtocolError("A visit must have 4 values", received=f"{row!r:.80}")
    samples, number, at_s, wait_share = row
    return Visit(
        _count("samples", samples),
        _count("round", number),
        _number("at_s", at_s),
        _optional_number("wait_share", wait_share),
    )


def _read_quiet(raw: Any) -> QuietLatency:
    _check_names("quiet", raw, QuietLatency)
    interval_ms = _list("interval_ms", raw["interval_ms"])
    if len(interval_ms) != 2:
        raise ProtocolError("An interval must have 2 ends", received=f"{interval_ms!r:.80}")
    low_ms, high_ms = (_number("interval_ms", end) for end in interval_ms)
    return QuietLatency(_number("latency_ms", raw["latency_ms"]), (low_ms, high_ms), _count("visits", raw["visits"]))


def _read_op_time(raw: Any) -> OpTime:
    _check_names("profile row", raw, OpTime)
    return OpTime(
        op=_text("op", raw["op"]),
        name=_text("name", raw["name"]),
        mean_ms=_number("mean_ms", raw["mean_ms"]),
        share=_number("share", raw["share"]),
    )


def _read_conditions(raw: Any) -> Conditions:
    if isinstance(raw, Mapping):  # records of earlier versions do not tell the inputs
        raw = {"inputs": None, **raw}
    _check_names("conditions", raw, Conditions)
    cores = raw["cores"]
    values: dict[str, Any] = {name: _text(name, raw[name]) for name in _CONDITION_TEXTS}
    for name in _CONDITION_NUMBERS:
        values[name] = _optional_number(name, raw[name], signed=True)
    return Conditions(
        **values,
        threads=_count("threads", raw["threads"]),
        delegate_kernels=_optional_count("delegate_kernels", raw["delegate_kernels"]),
        cores=None if cores is None else tuple(_count("cores", x) for x in _list("cores", cores)),
        governor=None if raw["governor"] is None else _text("governor", raw["governor"]),
        inputs=None if raw["inputs"] is None else _text("inputs", raw["inputs"]),
        throttle_events=_optional_count("throttle_events", raw["throttle_events"]),
    )


_CONDITION_TEXTS = (
    "device_fingerprint",
    "device_model",
    "runtime",
    "runtime_version",
    "delegate",
    "started_utc",
)
_CONDITION_NUMBERS = (
    "cpu_mhz_before",
    "cpu_mhz_after",
    "temperature_c_before",
    "temperature_c_after",
    "load_average_before",
    "load_average_after",
    "other_load_cores",
    "wait_share",
    "anchor_ratio",
)


def _check_names(what: str, raw: Any, cls: type[Any]) -> None:
    expected = {field.name for field in fields(cls)}
    if not isinstance(raw, Mapping):
        raise _wrong(what, "a JSON object", raw)
    if set(raw) != expected:
        odd = sorted(map(str, expected ^ set(raw)))
        raise ProtocolError(f"Missing or unknown fields in {what}", received=f"{odd[:8]}")


def _wrong(name: str, expected: str, received: object) -> ProtocolError:
    return ProtocolError(f"Wrong value for {name}", expected=f"{expected}", received=f"{received!r:.80}")


def _verdict(value: object) -> Verdict:
    try:
        return Verdict(value)
    except ValueError:
        known = ", ".join(verdict.value for verdict in Verdict)
        raise _wrong("verdict", f"one of {known}", value) from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "text", value)
    return value


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    return value


def _number(name: str, value: object, signed: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, "a number", value)
    if not -_LARGEST <= value <= _LARGEST:  # NaN fails this too
        raise _wrong(name, "a finite number", value)
    if not signed and value < 0:
        raise _wrong(name, "a number >= 0", value)
    return float(value)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise _wrong(name, "a whole number >= 0", value)
    return value


def _optional_number(name: str, value: object, signed: bool = False) -> float | None:
    return None if value is None else _number(name, value, signed)


def _optional_count(name: str, value: object) -> int | None:
    return None if value is None else _count(name, value)
