"""`RunResult`: what a run was asked and found; `result.json` both ways. Its only reader and writer.

schema 1    no schema_version; `judged` for what the search went by
schema 2    `latency_estimate`, with its kind; quality without bounds; runs that deliver nothing; later `outcome`, too,
            of which `meets_target` is what earlier readers knew; later intervals and tests of accuracies, too, without
            which nothing is said of whether networks differ; later `observed_ms` and `warning`; later `front` and
            `further`; later `resources`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from device_agents.api import Measurement
from device_agents.errors import ProtocolError
from nas_edge.errors import SpaceError
from nas_edge.formatting import ms_text, with_interval
from nas_edge.hardware.gate import HardwareCheck
from nas_edge.latency.answer import LatencyKind
from nas_edge.resources import MEASURED, RESOURCES, ResourceUse, check_resource
from nas_edge.rewards import Objective
from nas_edge.runs.latency_difference import latency_differs
from nas_edge.runs.paired_result import PairedResult
from nas_edge.runs.reselect import Candidate
from nas_edge.runs.untrusted import milliseconds, number, optional_number
from nas_edge.tasks import metric_of
from nas_edge.tasks.base import Metric

if TYPE_CHECKING:
    from nas_edge.runs.run import Run

SCHEMA_VERSION = 2
_LONGEST_TEXT = 200


class Outcome(str, Enum):
    """Whether a target was met."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class ResultRow:
    """One network of the result.

    Attributes:
        name: what it is.
        architecture: its index string, or the published network's name.
        quality: on validation data, as the search scored it; None for a network from outside the space.
        accuracy: on test examples, in the task's metric, by precision; empty where nothing was trained.
        latency: measurements by precision; likewise.
        estimate_ms: what the search went by, where that was not the device.
        accuracy_interval: 95% intervals of `accuracy`, where they are known.
        accuracy_vs_winner: whether it differs from the winner's, in the delivered precision; None for the winner, and
            where that was not tested.
        quantized_vs_float: whether the accuracies of its two files differ; likewise. Earlier results call it
            `int8_vs_float`.
        resources: what it uses of every resource except time, by precision and name; of several models of devices, the
            highest value.
    """

    name: str
    architecture: str
    quality: float | None
    accuracy: Mapping[str, float]
    latency: Mapping[str, Measurement]
    estimate_ms: float | None = None
    accuracy_interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    accuracy_vs_winner: PairedResult | None = None
    quantized_vs_float: PairedResult | None = None
    resources: Mapping[str, Mapping[str, ResourceUse]] = field(default_factory=dict)

    def accuracy_text(self, precision: str, form: str) -> str:
        """Accuracy with its interval, or `-`.

        Args:
            precision: of the file.
            form: format of the accuracy.
        """
        accuracy = self.accuracy.get(precision)
        return "-" if accuracy is None else with_interval(accuracy, self.accuracy_interval.get(precision), form)

    def best_ms(self, precision: str) -> float | None:
        """Latency that nothing disturbs, also when it is flagged: better a flagged number than none."""
        measurement = self.latency.get(precision)
        return None if measurement is None else measurement.best_ms


@dataclass(frozen=True)
class ResourceResult:
    """The target or limit of a resource, and what the winner uses of it.

    Attributes:
        objective: the target, or the limit.
        use: of the delivered file.
    """

    objective: Objective
    use: ResourceUse

    @property
    def outcome(self) -> Outcome:
        """Whether it is at most the target."""
        if self.use.value is None:
            return Outcome.UNKNOWN
        return Outcome.MET if self.use.value <= self.objective.target else Outcome.MISSED

    def __str__(self) -> str:
        resource, value = RESOURCES[self.objective.resource], self.use.value
        shown = str(self.use) if value is None else f"{resource.text(value)} ({self.use})"
        aim = "at most" if self.objective.limit else "target"
        return f"{self.objective.resource}: {shown}, {aim} {resource.text(self.objective.target)}: {self.outcome}"

    def to_json(self) -> dict[str, Any]:
        """As `result.json` has it."""
        return {**asdict(self.objective), **asdict(self.use), "outcome": self.outcome.value}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ResourceResult:
        """The inverse of `to_json`; it may come from anywhere.

        Raises:
            ValueError, LookupError, ConfigError: when it is something else.
        """
        name = str(record["resource"])
        check_resource(name)
        objective = Objective(name, number(record["target"]), number(record["beta"]), bool(record["limit"]))
        return cls(objective, _use(record))


@dataclass(frozen=True)
class LatencyEstimate:
    """What the search went by, where that was not the device.

    Attributes:
        source: name of the latency source.
        latency_ms: what it says of the winner.
        kind: how it knows.
        interval_ms: 95% interval of that latency, where the source gives one.
    """

    source: str
    latency_ms: float | None
    kind: LatencyKind = LatencyKind.LOOKED_UP
    interval_ms: tuple[float, float] | None = None


@dataclass(frozen=True)
class OnDeviceQuality:
    """How good a delivered file is when the device runs it; see `export.on_device`.

    Attributes:
        metric: what it is measured in.
        value: of what the device answered; None where it answered nothing, or what is no number.
        here: of what this machine answers for the same images; likewise.
        interval: 95%, of `value`; None where that is not known.
        images: test examples that the device ran, a random sample unless they are all.
        test_images: of how many.
        seed: of the sample.
        seconds: that it took.
        limit_s: after which no further image was begun.
        device: what it is.
        runtime: of the device, with its version.
        problem: why it ended early; empty if it did not, or for the limit.
    """

    metric: str
    value: float | None
    here: float | None
    interval: tuple[float, float] | None
    images: int
    test_images: int
    seed: int
    seconds: float
    limit_s: float
    device: str
    runtime: str
    problem: str = ""

    def __str__(self) -> str:
        if self.value is None or self.here is None:
            return f"{self.metric} not tested there: {self.problem or 'the answers are no numbers'}"
        sample = f"all {self.images}" if self.images == self.test_images else f"{self.images} of {self.test_images}"
        ended = f" ({self.problem})" if self.problem else ""
        return f"{self.metric} on {sample} test examples {self.value:.4g} there, {self.here:.4g} here{ended}"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> OnDeviceQuality:
        """Reads `asdict` of one; it may come from anywhere.

        Raises:
            ValueError, LookupError: when it is something else.
        """
        value = optional_number(record["value"])
        return cls(
            metric=str(record["metric"]),
            value=value,
            here=optional_number(record["here"]),
            interval=None if record["interval"] is None or value is None else _interval(record["interval"], value),
            images=int(number(record["images"], 0)),
            test_images=int(number(record["test_images"], 0)),
            seed=int(number(record["seed"])),
            seconds=number(record["seconds"], 0),
            limit_s=number(record["limit_s"], 0),
            device=str(record["device"]),
            runtime=str(record["runtime"]),
            problem=str(record["problem"]),
        )


@dataclass(frozen=True)
class OnDeviceCheck:
    """Result of running a delivered file on the device and on the host; see `export.on_device`.

    Attributes:
        images: number of images.
        agrees: whether every output is within `verify.tolerance` of this machine's; None when the device could not run
            the file.
        kernels: the family of this machine's kernels whose outputs are closer.
        max_difference: the largest difference of any output, in real values.
        max_steps: the same in quantisation steps; None for a float output.
        same_answer: share of images, 0 to 1, with the same answer, such as the same most likely class.
        problem: why the device could not run the file; empty if it did.
        quality: in the task's metric, on as many test examples as there was time for; None where that was not asked
            for, and on this machine, which has tested the file on all of them.
    """

    images: int
    agrees: bool | None = None
    kernels: str | None = None
    max_difference: float | None = None
    max_steps: float | None = None
    same_answer: float | None = None
    problem: str = ""
    quality: OnDeviceQuality | None = None

    def __str__(self) -> str:
        if self.max_difference is None or self.same_answer is None:
            return f"outputs not checked: {self.problem}"
        far = f"{self.max_difference:.2g}" if self.max_steps is None else f"{self.max_steps:.0f} quantisation steps"
        agreement = "match" if self.agrees else "differ from"
        apart = "identical" if self.max_difference == 0 else f"difference at most {far}"
        tested = "" if self.quality is None else f"; {self.quality}"
        return (
            f"outputs {agreement} this machine's ({self.kernels} kernels): {apart}, same answer for "
            f"{self.same_answer:.0%} of {self.images} examples{tested}"
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> OnDeviceCheck:
        """Reads `asdict` of a check; it may come from anywhere.

        Raises:
            ValueError, LookupError: when it is something else.
        """
        return cls(
            images=int(number(record["images"], 0)),
            agrees=None if record["agrees"] is None else bool(record["agrees"]),
            kernels=None if record["kernels"] is None else str(record["kernels"]),
            max_difference=optional_number(record["max_difference"], 0),
            max_steps=optional_number(record["max_steps"], 0),
            # "same_class" in results of before there were other tasks
            same_answer=optional_number(record["same_answer" if "same_answer" in record else "same_class"], 0, 1),
            problem=str(record["problem"]),
            quality=None if record.get("quality") is None else OnDeviceQuality.from_json(record["quality"]),
        )


@dataclass(frozen=True)
class DeviceResult:
    """The delivered networks on one more model of devices, with a target of its own.

    Attributes:
        device: model.
        target_ms: what was asked for there.
        latency: measurements by precision, by name of the row.
        on_device_check: see `RunResult`.
    """

    device: str
    target_ms: float
    latency: Mapping[str, Mapping[str, Measurement]]
    on_device_check: Mapping[str, OnDeviceCheck] = field(default_factory=dict)

    def best_ms(self, name: str, precision: str) -> float | None:
        """Latency of a row, also when it is flagged."""
        measurement = self.latency.get(name, {}).get(precision)
        return None if measurement is None else measurement.best_ms

    def outcome(self, name: str, precision: str) -> Outcome:
        """Whether a row meets the target."""
        measurement = self.latency.get(name, {}).get(precision)
        return _outcome(measurement.interval_ms if measurement and measurement.ok else None, self.target_ms)

    def to_json(self) -> dict[str, Any]:
        """As `result.json` has it."""
        latency = {
            name: {precision: measurement.to_json() for precision, measurement in measured.items()}
            for name, measured in self.latency.items()
        }
        checks = {precision: asdict(check) for precision, check in self.on_device_check.items()}
        return {"device": self.device, "target_ms": self.target_ms, "latency": latency, "on_device_check": checks}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DeviceResult:
        """The inverse of `to_json`; it may come from anywhere.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, ProtocolError: when it is something else.
        """
        latency = {
            str(name): {str(precision): Measurement.from_json(value) for precision, value in measured.items()}
            for name, measured in record["latency"].items()
        }
        checks = {str(name): OnDeviceCheck.from_json(check) for name, check in record["on_device_check"].items()}
        return cls(str(record["device"]), milliseconds(record["target_ms"]), latency, checks)


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    return next((outcome for outcome in (Outcome.MISSED, Outcome.UNKNOWN) if outcome in outcomes), Outcome.MET)


def _outcome(interval_ms: tuple[float, float] | None, target_ms: float) -> Outcome:
    if interval_ms is None:
        return Outcome.UNKNOWN
    low_ms, high_ms = interval_ms
    if high_ms <= target_ms:
        return Outcome.MET
    return Outcome.MISSED if low_ms > target_ms else Outcome.UNKNOWN


@dataclass(frozen=True)
class Quantization:
    """How the delivered file was quantised, and what that was decided by.

    Attributes:
        method: `post-training`, or `aware`: from weights that were tuned with the roundings.
        float_quality: of the float file on validation examples, in the task's metric; None where nothing was compared.
        post_training_quality: the same of the file quantised after training.
        aware_quality: the same of the file of the tuned weights; None where it was not called for.
        budget: what quantisation might cost, in the metric.
        images: validation examples.
    """

    method: str
    float_quality: float | None = None
    post_training_quality: float | None = None
    aware_quality: float | None = None
    budget: float | None = None
    images: int | None = None

    def text(self, metric_name: str, form: str) -> str:
        """One line of a report: `form` is how the metric's values are written."""
        line = f"quantisation: {self.method}"
        if self.float_quality is None or self.post_training_quality is None or self.budget is None:
            return line
        aware = "" if self.aware_quality is None else f", aware {self.aware_quality:{form}}"
        return (
            f"{line}; {metric_name} on {self.images} validation examples: float {self.float_quality:{form}}, "
            f"post-training {self.post_training_quality:{form}}{aware} (budget {self.budget:{form}})"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Quantization:
        """Reads `to_json`; it may come from anywhere.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: when it is something else.
        """
        method, images = record["method"], record["images"]
        if method not in ("post-training", "aware"):
            raise ValueError(f"expected the quantisation post-training or aware, received {method!r:.100}")
        return cls(
            method,
            optional_number(record["float_quality"]),
            optional_number(record["post_training_quality"]),
            optional_number(record["aware_quality"]),
            optional_number(record["budget"]),
            None if images is None else int(number(images, 0)),
        )


@dataclass(frozen=True)
class RunResult:
    """What a run was asked and found.

    Attributes:
        target_ms: what was asked for.
        precision: what was measured and delivered.
        hard_limit: whether the target was a limit.
        rows: the winner first, then what it is compared with.
        device: what it was measured on; None for a run that ends with an architecture, and delivers no network.
        latency_estimate: what the search went by, if not by that device. Whether the target is met is for the device
            to say, if there is one.
        on_device_check: whether the delivered files compute there what they compute here, by precision; see
            `export.on_device`.
        test_images: how many the accuracies are of; None if that is not known.
        hardware_check: whether the hardware that was named can run the delivered file; None where none was named.
        front: the architectures that no other one of the search beats in both latency and quality, the fastest first;
            any of them can be delivered, see `stages.choosing`. Empty in results of before they were kept.
        further: on further models of devices, each with a target of its own.
        quantization: how the delivered file was quantised; None for float32, and in earlier results.
        noisiest_layers: of the delivered file, those that quantisation harms most, in words; the manifest has all.
        resources: targets and limits of resources other than time.
    """

    target_ms: float
    precision: str
    hard_limit: bool
    rows: tuple[ResultRow, ...]
    device: str | None
    latency_estimate: LatencyEstimate | None = None
    on_device_check: Mapping[str, OnDeviceCheck] = field(default_factory=dict)
    test_images: int | None = None
    hardware_check: HardwareCheck | None = None
    front: tuple[Candidate, ...] = ()
    further: tuple[DeviceResult, ...] = ()
    quantization: Quantization | None = None
    noisiest_layers: tuple[str, ...] = ()
    resources: tuple[ResourceResult, ...] = ()

    @property
    def winner(self) -> ResultRow:
        """The network that was asked for."""
        return self.rows[0]

    @property
    def measurement(self) -> Measurement | None:
        """Of the winner, in the precision that is delivered; None where nothing was measured."""
        return self.winner.latency.get(self.precision)

    @property
    def latency_ms(self) -> float | None:
        """Latency of the winner: that of the delivered file, else what the search went by."""
        if self.device is not None:
            return self.winner.best_ms(self.precision)
        return None if self.latency_estimate is None else self.latency_estimate.latency_ms

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """Between which the winner's latency is, with 95% confidence; None where that is not known.

        Of what was measured, it is the latency that nothing disturbs.
        A latency that was looked up is taken at its word where it comes without an interval; one that was measured is
        not, nor is a measurement that is flagged.
        """
        if self.device is not None:
            measured = self.measurement
            return measured.interval_ms if measured and measured.ok else None
        estimate = self.latency_estimate
        if estimate is None or estimate.latency_ms is None:
            return None
        return estimate.interval_ms or (estimate.latency_ms, estimate.latency_ms)

    @property
    def outcome(self) -> Outcome:
        """Whether the winner is as fast as asked: known only where its interval is on one side of the target.

        On several models of devices, it has to hold on each; and limits of other resources have to be met.
        """
        return _worst([*self._time_outcomes, *self._resource_outcomes])

    @property
    def limit_outcome(self) -> Outcome:
        """As `outcome`, but of hard limits only."""
        return _worst([*(self._time_outcomes if self.hard_limit else ()), *self._resource_outcomes])

    @property
    def _time_outcomes(self) -> list[Outcome]:
        return [self.first_outcome, *(each.outcome(self.winner.name, self.precision) for each in self.further)]

    @property
    def _resource_outcomes(self) -> list[Outcome]:
        return [each.outcome for each in self.resources if each.objective.limit]

    @property
    def first_outcome(self) -> Outcome:
        """Whether it is as fast as asked on `device`, or as far as `latency_estimate` tells."""
        return _outcome(self.interval_ms, self.target_ms)

    @property
    def observed_ms(self) -> float | None:
        """Median over all runs of the winner, whatever disturbed them; None where nothing was measured."""
        statistics = None if self.measurement is None else self.measurement.statistics
        return None if statistics is None else statistics.median_ms

    @property
    def warning(self) -> str:
        """A line where the target is met only by what nothing disturbs; else empty."""
        if self.outcome is not Outcome.MET or self.observed_ms is None or self.observed_ms <= self.target_ms:
            return ""
        return (
            f"the target of {ms_text(self.target_ms)} ms is met where nothing disturbs the model; half of the runs "
            f"took {ms_text(self.observed_ms)} ms or more, because other programs were busy"
        )

    @property
    def latency_kind(self) -> LatencyKind | None:
        """How `latency_ms` is known; None when there is none."""
        if self.device is not None:
            return LatencyKind.MEASURED
        return None if self.latency_estimate is None else self.latency_estimate.kind

    def latency_differs(self, row: ResultRow) -> bool | None:
        """Whether the measured latencies of the winner and another row differ significantly; None if not known."""
        return latency_differs(self.measurement, row.latency.get(self.precision))

    def comparisons(self) -> list[dict[str, Any]]:
        """What other networks than the winner reach, and whether they differ from it, as JSON values."""
        return [
            {
                "network": row.name,
                "accuracy": row.accuracy.get(self.precision),
                "accuracy_interval": row.accuracy_interval.get(self.precision),
                "accuracy_vs_winner": None if row.accuracy_vs_winner is None else asdict(row.accuracy_vs_winner),
                "latency_ms": row.best_ms(self.precision),
                "latency_differs": self.latency_differs(row),
            }
            for row in self.rows[1:]
        ]

    def latency_of(self, row: ResultRow) -> float | None:
        """Latency of any row, known as that of the winner."""
        return row.estimate_ms if self.device is None else row.best_ms(self.precision)

    @property
    def meets_target(self) -> bool:
        """Whether the winner is known to be as fast as asked."""
        return self.outcome is Outcome.MET

    @property
    def meets_limit(self) -> bool:
        """Whether the result is what was asked for: a target that is no limit may be missed."""
        return self.limit_outcome is Outcome.MET

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target_ms": self.target_ms,
            "precision": self.precision,
            "hard_limit": self.hard_limit,
            "outcome": self.outcome.value,
            "meets_target": self.meets_target,
            "latency_ms": self.latency_ms,
            "observed_ms": self.observed_ms,
            "warning": self.warning,
            "device": self.device,
            "on_device_check": {precision: asdict(check) for precision, check in self.on_device_check.items()},
            "latency_estimate": None if self.latency_estimate is None else _plain_estimate(self.latency_estimate),
            "test_images": self.test_images,
            "hardware_check": None if self.hardware_check is None else self.hardware_check.to_json(),
            "further": [each.to_json() for each in self.further],
            "quantization": None if self.quantization is None else self.quantization.to_json(),
            "noisiest_layers": list(self.noisiest_layers),
            "resources": [each.to_json() for each in self.resources],
            "front": [candidate.to_json() for candidate in self.front],
            "rows": [
                {
                    **asdict(row),
                    "latency": {precision: m.to_json() for precision, m in row.latency.items()},
                    "latency_differs": None if row is self.winner else self.latency_differs(row),
                }
                for row in self.rows
            ],
        }

    @classmethod
    def from_json(cls, result: Mapping[str, Any]) -> RunResult:
        """Reads a result of this schema or an earlier one; it may come from anywhere.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, ProtocolError, SpaceError: when it is something else.
        """
        if result.get("schema_version", 1) not in (1, SCHEMA_VERSION):
            raise ValueError(f"expected schema {SCHEMA_VERSION}, received {result['schema_version']!r}")
        rows = tuple(map(_row, result["rows"]))
        if not rows:
            raise ValueError("it names no networks")
        estimate, device = result.get("latency_estimate", result.get("judged")), result["device"]
        checks = result.get("on_device_check") or {}
        quantization = result.get("quantization")
        test_images, hardware_check = result.get("test_images"), result.get("hardware_check")
        return cls(
            target_ms=milliseconds(result["target_ms"]),
            precision=str(result["precision"]),
            hard_limit=bool(result["hard_limit"]),
            rows=rows,
            device=None if device is None else str(device),
            latency_estimate=None if estimate is None else _estimate(estimate),
            on_device_check={str(name): OnDeviceCheck.from_json(check) for name, check in checks.items()},
            test_images=None if test_images is None else int(number(test_images, 0)),
            hardware_check=None if hardware_check is None else HardwareCheck.from_json(hardware_check),
            front=tuple(map(Candidate.from_json, result.get("front") or ())),
            further=tuple(map(DeviceResult.from_json, result.get("further") or ())),
            quantization=None if quantization is None else Quantization.from_json(quantization),
            noisiest_layers=tuple(map(str, result.get("noisiest_layers") or ())),
            resources=tuple(map(ResourceResult.from_json, result.get("resources") or ())),
        )


def read_result(run: Run) -> RunResult | None:
    """Reads `result.json`; None before the end.

    Raises:
        RunError: when it cannot be read.
    """
    from nas_edge.runs.run import RunFolderError

    if not run.finished:
        return None
    content = run.read_json("result.json")
    try:
        result = RunResult.from_json(content)
        metric = metric_of(run.config.task)
        for value in (value for row in result.rows for value in row.accuracy.values()):
            if not metric.allows(value):
                raise ValueError(f"{metric.name} is {value:g}, expected a number within {metric.bounds}")
        return with_intervals(result, metric)
    except LookupError as error:
        reason = f"it has no {error.args[0]!r}" if error.args else "it is incomplete"
    except (AttributeError, ProtocolError, SpaceError, TypeError, ValueError) as error:
        reason = str(error)
    raise RunFolderError(f"{run.path('result.json')} is damaged: {reason:.200}")


def with_intervals(result: RunResult, metric: Metric) -> RunResult:
    """A result with the accuracies' intervals, where it does not have them and they can be known."""
    count = result.test_images
    if count is None:
        return result
    rows = []
    for row in result.rows:
        known = {precision: metric.interval(value, count) for precision, value in row.accuracy.items()}
        intervals = {precision: interval for precision, interval in known.items() if interval is not None}
        rows.append(replace(row, accuracy_interval={**intervals, **row.accuracy_interval}))
    return replace(result, rows=tuple(rows))


def _row(row: Mapping[str, Any]) -> ResultRow:
    accuracy = {str(name): number(value) for name, value in row["accuracy"].items() if value is not None}
    intervals = row.get("accuracy_interval") or {}
    return ResultRow(
        name=str(row["name"]),
        architecture=str(row["architecture"]),
        quality=optional_number(row["quality"]),
        accuracy=accuracy,
        latency={str(name): Measurement.from_json(value) for name, value in row["latency"].items()},
        estimate_ms=optional_number(row.get("estimate_ms"), 0),
        accuracy_interval={str(name): _interval(bounds, accuracy[name]) for name, bounds in intervals.items()},
        accuracy_vs_winner=_paired_result(row.get("accuracy_vs_winner")),
        quantized_vs_float=_paired_result(row.get("quantized_vs_float", row.get("int8_vs_float"))),
        resources={
            str(precision): {str(name): _use(use) for name, use in uses.items()}
            for precision, uses in (row.get("resources") or {}).items()
        },
    )


def _use(record: Mapping[str, Any]) -> ResourceUse:
    kind = str(record.get("kind", MEASURED))[:_LONGEST_TEXT]
    return ResourceUse(optional_number(record["value"], 0), kind, str(record["note"])[:_LONGEST_TEXT])


def _interval(bounds: Sequence[object], value: float) -> tuple[float, float]:
    """The interval of a value, which must contain it."""
    low, high = bounds
    return number(low, most=value), number(high, value)


def _paired_result(record: Mapping[str, Any] | None) -> PairedResult | None:
    return None if record is None else PairedResult.from_json(record)


def _plain_estimate(estimate: LatencyEstimate) -> dict[str, Any]:
    return {
        "source": estimate.source,
        "kind": estimate.kind.value,
        "latency_ms": estimate.latency_ms,
        "interval_ms": None if estimate.interval_ms is None else list(estimate.interval_ms),
    }


def _estimate(record: Mapping[str, Any]) -> LatencyEstimate:
    interval_ms = record.get("interval_ms")
    return LatencyEstimate(
        str(record["source"]),
        optional_number(record["latency_ms"], 0),
        LatencyKind(record.get("kind", LatencyKind.LOOKED_UP)),
        None if interval_ms is None else (number(interval_ms[0], 0), number(interval_ms[1], 0)),
    )
