"""What a run hands over: networks trained, converted, checked, measured and bundled; or just what was found."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from device_agents.api import BenchmarkSpec, Measurement, MeasureRequest
from nas_edge.config import RunConfig
from nas_edge.export.representative import representative_set
from nas_edge.export.sensitivity import LayerNoise, worst
from nas_edge.formatting import command, reason
from nas_edge.hardware.gate import HardwareCheck, require_hardware
from nas_edge.hardware.npu import compile_for_npus
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.device import DeviceSource
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.networks.tflite_graph import TFLiteGraph
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.progress import Reporter
from nas_edge.resources import RESOURCES, ResourceUse, Used, most_used, other_uses
from nas_edge.runs.example_scores import ExampleScores, id_of_test_set, write_example_scores
from nas_edge.runs.result import (
    DeviceResult,
    LatencyEstimate,
    OnDeviceCheck,
    Quantization,
    ResourceResult,
    ResultRow,
    RunResult,
    with_intervals,
)
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import DevicePart, RunContext, final_spec
from nas_edge.stages.fastest_precision import TriedPrecision
from nas_edge.stages.final_training import folder_of, train_once, tune_once
from nas_edge.stages.mixed_precision import MIXED, MixedModel, mixed_model
from nas_edge.stages.on_device import CHECKED_IMAGES, checks_on_device
from nas_edge.stages.paired_tests import with_paired_tests
from nas_edge.stages.quantizing import TESTED_AT_ONCE, post_training, quantize_once
from nas_edge.tasks.base import Array, NetworkTask, TaskData
from nas_edge.text import measurement_text

MeasureFiles: TypeAlias = Callable[[Sequence[MeasureRequest]], Sequence[Measurement]]

# Of the outputs' range: how far an int8 file may on average be from the model that was trained with its roundings, as
# runtimes round within operators, too. Measured: 0.4% of small networks with hard swish.
_ROUNDING_SHARE = 0.05

# Test images whose noise is told apart by layers.
EXAMINED_IMAGES = 16

# Test examples that go into the bundle with what the models answer.
GOLDEN_EXAMPLES = 4


@dataclass(frozen=True)
class TrainedModel:
    """A trained network and the files made of it.

    Attributes:
        contender: what was trained.
        files: TFLite bytes by precision.
        quality: on test images, in the task's metric, by precision, of exactly those files.
        example_scores: on the same images, by precision, see `NetworkTask.example_scores`; empty for a metric without
            a paired test.
        breakdown: what else the task tells of each file, as JSON values by precision.
        hardware_check: whether the hardware that was named can run the file in the precision that is delivered; None
            where none was named.
        hardware_files: what that hardware's own tools made of the file, by name.
        quantization: how the quantised file was made; None without one.
        sensitivity: what quantisation adds to each layer's output; empty where activations stay float.
        interval: 95% interval of the quality by precision, where it is known.
        mixed: the file whose noisiest layers stay float; None where that was not asked for.
    """

    contender: Contender
    files: dict[str, bytes]
    quality: dict[str, float]
    example_scores: dict[str, Array]
    breakdown: dict[str, Mapping[str, Any]]
    hardware_check: HardwareCheck | None = None
    hardware_files: Mapping[str, bytes] = field(default_factory=dict)
    quantization: Quantization | None = None
    sensitivity: tuple[LayerNoise, ...] = ()
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mixed: MixedModel | None = None

    @property
    def all_files(self) -> dict[str, bytes]:
        """Those that are measured, by precision."""
        return self.files if self.mixed is None else {**self.files, MIXED: self.mixed.file}


def scores_of(models: Sequence[TrainedModel], data: TaskData) -> ExampleScores:
    """How all files did on each test image."""
    scores = {
        (model.contender.name, precision): array
        for model in models
        for precision, array in model.example_scores.items()
    }
    return ExampleScores(id_of_test_set(data), scores)


def deliver(
    context: RunContext,
    target_ms: float,
    winner: Trial,
    contenders: Sequence[Contender],
    estimate: LatencyEstimate | None = None,
) -> RunResult:
    """Trains, converts, measures and bundles.

    Args:
        context: of the run.
        target_ms: what was asked for.
        winner: of the selection.
        contenders: the winner's network first, then what it is compared with.
        estimate: what the winner was chosen by; None for what the run's latency source says of it.

    Raises:
        TrainingError, ExportError, RunError, DeviceError: see there.
    """
    run, bench, config = context.run, context.bench, context.config
    task, data = context.network_task, context.required_data
    models = [train_and_convert(context, one) for one in contenders]
    write_example_scores(run, scores_of(models, data))
    with _measured_once(context, bench.required_device, "stages/final.jsonl") as measure:
        rows = measure_models(context.config, bench.required_device, measure, models, context.reporter)
    further = []
    for number, part in enumerate(bench.parts[1:], start=2):
        with _measured_once(context, part.source, f"stages/final-{number}.jsonl") as measure:
            further.append((part, measure_models(context.config, part.source, measure, models, context.reporter)))
    rows = _most_used(rows, [there for _, there in further])
    bundle = run.path("bundle")
    # There is one if the run was stopped before its result was written, and half of one if while it was written.
    for left in (bundle, *run.folder.glob(".bundle.*")):
        shutil.rmtree(left, ignore_errors=True)
    bundling = Bundling(
        config, task, context.space, data, bench.required_device, target_ms, tuple(further), reporter=context.reporter
    )
    return bundling.write(bundle, winner.architecture, models, rows, estimate or bench.estimate(winner))


def conclude(context: RunContext, target_ms: float, winner: Trial, rival: Trial | None) -> RunResult:
    """The result of a run that ends with an architecture, and delivers no network."""
    config, found = context.config, [("winner", winner)]
    if rival is not None:
        found.append(("best of random", rival))
    rows = tuple(
        ResultRow(name, str(trial.architecture), trial.quality, {}, {}, trial.latency_ms) for name, trial in found
    )
    precision, hard = config.export.precision, config.target.limit == "hard"
    used = Used(context.space.build(winner.architecture).network, precision, winner.latency, winner.latency_ms)
    asked = tuple(ResourceResult(one, RESOURCES[one.resource].use(used)) for one in config.target.of_resources)
    estimate = context.bench.estimate(winner)
    return RunResult(target_ms, precision, hard, rows, None, estimate, resources=asked)


def train_and_convert(context: RunContext, contender: Contender) -> TrainedModel:
    """Trains a network and makes its files, as far as that was not done before.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
        ExportError: see `convert`.
    """
    run, config, task, data = context.run, context.config, context.network_task, context.required_data
    weights, name = train_once(context, contender), folder_of(contender).rpartition("/")[2]
    tune = partial(tune_once, context, contender, weights)
    settled = quantize_once(run, config, task, data, contender.network, weights, name, tune)
    return convert(config, task, data, contender, weights, *settled)


def convert(
    config: RunConfig,
    task: NetworkTask,
    data: TaskData,
    contender: Contender,
    weights: Weights,
    quantized_weights: Weights | None = None,
    quantization: Quantization = Quantization("post-training"),  # noqa: B008 - it is frozen
    made: Mapping[Precision, bytes] = MappingProxyType({}),
) -> TrainedModel:
    """Converts a trained network to the files to deliver, and tests exactly those files.

    Args:
        config: of the run.
        task: what the network is for.
        data: of the run.
        contender: what was trained.
        weights: as trained.
        quantized_weights: what the quantised file is made of, with the ranges that they keep; None for `weights`.
        quantization: how they came about.
        made: files that the converter has made of these weights already.

    Raises:
        ExportError: when it cannot be converted, or is not what its label says.
    """
    from nas_edge.export import verify
    from nas_edge.export.sensitivity import layer_noise
    from nas_edge.export.tflite_metadata import with_metadata
    from nas_edge.networks.keras_model import keras_model

    network, precision = contender.network, config.export.precision
    model, quantized_weights = keras_model(network, weights), quantized_weights or weights
    files = _files(config, data, network, model, quantized_weights, quantization, made)
    section = task.bundle_section(data)
    files = {name: with_metadata(file, data.preprocessing, section) for name, file in files.items()}
    check, made_by_tools = _checked(config, files[precision])
    found = {
        precision: verify.file_quality(file, data.in_order(data.split.test, TESTED_AT_ONCE), task)
        for precision, file in files.items()
    }
    quality = {precision: one.value for precision, one in found.items()}
    scores = {precision: one.example_scores for precision, one in found.items() if one.example_scores is not None}
    told = {
        precision: {} if one.breakdown is None else task.describe_breakdown(one.breakdown, data)
        for precision, one in found.items()
    }
    made_by = None if precision == "float32" else quantization
    noises, mixed = tuple[LayerNoise, ...](), None
    if PRECISIONS[precision].calibrated:
        layers = [operator.output.name for operator in TFLiteGraph(network).operators]
        examined, _ = data.arrays(data.split.test[:EXAMINED_IMAGES])
        real = tflite_model(network, "float32", quantized_weights)  # of tuned weights there is no other float file
        noises = layer_noise(real, files[precision], examined, layers)
        if config.export.mixed_layers and contender.name == "winner":
            mixed = mixed_model(config, task, data, model, files["float32"], layers, noises)
    intervals = {precision: one.interval for precision, one in found.items() if one.interval is not None}
    return TrainedModel(
        contender, files, quality, scores, told, check, made_by_tools, made_by, noises, intervals, mixed
    )


def _files(
    config: RunConfig,
    data: TaskData,
    network: NetworkSpec,
    model: Any,
    quantized_weights: Weights,
    quantization: Quantization,
    made: Mapping[Precision, bytes],
) -> dict[Precision, bytes]:
    """The float file of a Keras model, compared with it, and the one in the precision that is delivered."""
    from nas_edge.export import verify
    from nas_edge.export.convert import float32_tflite

    precision = config.export.precision
    files = {"float32": made.get("float32") or float32_tflite(model)}
    images, _ = data.arrays(data.split.test[:CHECKED_IMAGES])
    verify.check_outputs(files["float32"], images, np.asarray(model(images, training=False)), "the Keras model")
    if precision != "float32" and quantization.method == "aware":
        files[precision] = _aware_file(network, precision, quantized_weights, images)
    elif precision != "float32":
        files[precision] = made.get(precision) or post_training(config, data, network, quantized_weights)
    return files


def _aware_file(network: NetworkSpec, precision: Precision, weights: Weights, images: Array) -> bytes:
    """The file of weights that keep their ranges, compared with what the training computed."""
    from nas_edge.export import verify
    from nas_edge.networks.fake_quant import fake_quant_model

    file = tflite_model(network, precision, weights)
    verify.check_precision(file, precision)
    expected = np.asarray(fake_quant_model(network, weights)(images, training=False))
    verify.check_outputs(file, images, expected, "the model trained with int8's roundings", _ROUNDING_SHARE)
    return file


def _checked(config: RunConfig, file: bytes) -> tuple[HardwareCheck | None, Mapping[str, bytes]]:
    """Whether the hardware that was named can run a file, and what its tools make of it."""
    hardware = config.export.profile
    if hardware is None:
        return None, {}
    check = require_hardware(file, hardware, config.export.precision)
    if hardware.finish is None:
        return check, {}
    made = hardware.finish(file)
    return replace(check, note=made.says), made.files


@contextmanager
def _measured_once(context: RunContext, device: DeviceSource, name: str) -> Iterator[MeasureFiles]:
    """Yields what measures files side by side, but for those that were measured before the run was interrupted."""
    with closing(context.run.open_journal(context.reporter.say, name)) as journal:
        # What earlier versions measured in parts has other settings, or none, and is measured again.
        known: dict[tuple[str, str | None], deque[Measurement]] = {}
        for key, measured in journal.read(
            lambda record: ((record["file"], record.get("spec")), Measurement.from_json(record["measurement"]))
        ):
            known.setdefault(key, deque()).append(measured)

        def measure(files: Sequence[MeasureRequest]) -> list[Measurement]:
            keys = [(hashlib.sha256(file).hexdigest(), _digest(spec)) for file, spec in files]
            found = [known[key].popleft() if known.get(key) else None for key in keys]
            missing = [i for i, measured in enumerate(found) if measured is None]
            for i, measured in zip(missing, device.measure_files([files[i] for i in missing]), strict=True):
                name, settings = keys[i]
                journal.append({"file": name, "spec": settings, "measurement": measured.to_json()})
                found[i] = measured
            return [measured for measured in found if measured is not None]

        yield measure


def _digest(spec: BenchmarkSpec) -> str:
    """All settings, the effort included: another effort is another measurement."""
    return hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def measure_models(
    config: RunConfig, device: DeviceSource, measure: MeasureFiles, models: Sequence[TrainedModel], reporter: Reporter
) -> tuple[ResultRow, ...]:
    """Measures the delivered files, with more care than in the loop, all of them side by side.

    Args:
        config: of the run.
        device: what measures.
        measure: how it is asked.
        models: what is measured.
        reporter: what the user sees.

    Raises:
        DeviceError: when the device is lost.
    """
    whole = final_spec(config, device)
    files = [(model, precision, file) for model in models for precision, file in model.all_files.items()]
    with reporter.stage("measuring", len(files)) as show:
        measured = measure([(file, whole) for _, _, file in files])
        show(len(files))
    latency: dict[str, dict[str, Measurement]] = {model.contender.name: {} for model in models}
    resources: dict[str, dict[str, dict[str, ResourceUse]]] = {model.contender.name: {} for model in models}
    for (model, precision, file), found in zip(files, measured, strict=True):
        latency[model.contender.name][precision] = found
        # What is computed is so of a file of one precision; of a mixed one, as of the precision that it is mostly in.
        of_network = precision if precision in PRECISIONS else config.export.precision
        used = Used(model.contender.network, of_network, LatencyAnswer.measured(found), made=file)
        resources[model.contender.name][precision] = other_uses(used)
        reporter.say(f"{model.contender.name}, {precision}: {measurement_text(found, ' ms')}")
    return tuple(
        ResultRow(
            model.contender.name,
            model.contender.architecture,
            model.contender.quality,
            model.quality,
            latency[model.contender.name],
            accuracy_interval=model.interval,
            resources=resources[model.contender.name],
        )
        for model in models
    )


def _most_used(rows: Sequence[ResultRow], elsewhere: Sequence[Sequence[ResultRow]]) -> tuple[ResultRow, ...]:
    """Rows with the highest use over all models of devices; not available if it is not on one of them."""

    def joined(row: ResultRow, others: Sequence[ResultRow]) -> ResultRow:
        resources = {
            precision: {
                name: most_used([use, *(other.resources[precision][name] for other in others)])
                for name, use in uses.items()
            }
            for precision, uses in row.resources.items()
        }
        return replace(row, resources=resources)

    return tuple(joined(row, others) for row, *others in zip(rows, *elsewhere, strict=True))


@dataclass(frozen=True)
class Bundling:
    """What a bundle says beside its models.

    Attributes:
        config: of the run.
        task: what the model is for.
        space: in which the architecture is a point.
        data: what the model was trained for.
        device: what it was measured on.
        target_ms: what was asked for.
        further: further models of devices, and what was measured there.
        tried: precisions among which one was chosen, if it was.
        reporter: what the user sees.
    """

    config: RunConfig
    task: NetworkTask
    space: SearchSpace
    data: TaskData
    device: DeviceSource
    target_ms: float
    further: tuple[tuple[DevicePart, tuple[ResultRow, ...]], ...] = ()
    tried: tuple[TriedPrecision, ...] = ()
    reporter: Reporter | None = None

    def write(
        self,
        folder: Path,
        architecture: Architecture,
        tested: Sequence[TrainedModel],
        rows: Sequence[ResultRow],
        estimate: LatencyEstimate | None,
    ) -> RunResult:
        """Checks the winner's files on the device and writes what an app team receives.

        Args:
            folder: new, for the bundle.
            architecture: of the winner.
            tested: all models, the winner first.
            rows: what was measured of them.
            estimate: what the search went by, if not by the device.
        """
        from nas_edge.export.bundle import DeliveredModel, write_bundle

        task, data, model = self.task, self.data, tested[0]
        checks = self._checked(self.device, model)
        further = tuple(
            DeviceResult(
                part.source.name,
                part.target_ms,
                {row.name: row.latency for row in there},
                self._checked(part.source, model),
            )
            for part, there in self.further
        )
        result = replace(self._result(tested, rows, estimate, checks), further=further)
        winner = result.winner
        models = {
            precision: DeliveredModel(
                file,
                model.quality[precision],
                latency_facts(winner.latency[precision]),
                asdict(checks[precision]),
                winner.accuracy_interval.get(precision),
                model.breakdown[precision],
            )
            for precision, file in model.files.items()
        }
        details, more_files = self._beside(result, model)
        write_bundle(
            folder,
            models=models,
            precision=self.config.export.precision,
            section=task.bundle_section(data),
            metric=task.metric,
            preprocessing=data.preprocessing,
            golden_examples=data.dataset.stored(data.split.test[:GOLDEN_EXAMPLES]),
            space=self.space.name,
            architecture=str(architecture),
            decisions=self.space.describe(architecture),
            details=details,
            more_files=more_files,
        )
        return result

    def _checked(self, device: DeviceSource, model: TrainedModel) -> dict[str, OnDeviceCheck]:
        return checks_on_device(self.config, device, model.files, self.task, self.data)

    def _beside(self, result: RunResult, model: TrainedModel) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Further entries of the manifest, and files beside the delivered ones; what they came to is said."""
        precision, mixed = self.config.export.precision, model.mixed
        compiled = compile_for_npus(model.files[precision], f"model_{precision}", self.config.export.npu)
        details = {**self._details(result, model.sensitivity), "npu": compiled.says}
        files = {**model.hardware_files, **compiled.files}
        lines = [f"{target}: {says}" for target, says in compiled.says.items()]
        if mixed is not None:
            told = mixed.told(result.winner.latency, model.quality[precision])
            details["mixed_precision"], files[mixed.name] = told.to_json(), mixed.file
            lines.append(told.text(self.task.metric))
        if self.reporter is not None:
            for line in lines:
                self.reporter.say(line)
        return details, files

    def _details(self, result: RunResult, sensitivity: Sequence[LayerNoise]) -> dict[str, Any]:
        """Further entries of the manifest."""
        return {
            "seed": self.config.seed,
            "data": self.config.data.source,
            "training_images": len(self.data.training_indices),
            "test_set": id_of_test_set(self.data),
            "license": self.config.export.license,
            "target_ms": self.target_ms,
            "outcome": result.outcome.value,
            "meets_target": result.meets_target,
            "warning": result.warning,
            "device": self.device.info.model,
            "further_devices": [
                {
                    "device": each.device,
                    "target_ms": each.target_ms,
                    "outcome": each.outcome(result.winner.name, result.precision).value,
                    "latency": {
                        precision: {key: value for key, value in latency_facts(measured).items() if key != "samples_ms"}
                        for precision, measured in each.latency[result.winner.name].items()
                    },
                    "on_device_check": {name: asdict(check) for name, check in each.on_device_check.items()},
                }
                for each in result.further
            ],
            "test_images": len(self.data.split.test),
            "sensitivity": [one.to_json() for one in sensitivity],
            "precisions": [one.to_json() for one in self.tried],
            "quantization": None if result.quantization is None else result.quantization.to_json(),
            "representative": None
            if result.quantization is None
            else representative_set(self.data, self.config.export.representative_images, self.config.seed).to_json(),
            "latency_estimate": result.to_json()["latency_estimate"],
            "comparisons": result.comparisons(),
            "resources": {
                precision: {name: asdict(use) for name, use in uses.items()}
                for precision, uses in result.winner.resources.items()
            },
            "limits": [each.to_json() for each in result.resources],
            "hardware_check": None if result.hardware_check is None else result.hardware_check.to_json(),
        }

    def _result(
        self,
        tested: Sequence[TrainedModel],
        rows: Sequence[ResultRow],
        estimate: LatencyEstimate | None,
        checks: Mapping[str, OnDeviceCheck],
    ) -> RunResult:
        """What was found, with what is known of how sure the accuracies are."""
        config, metric, precision = self.config, self.task.metric, self.config.export.precision
        compared = with_paired_tests(rows, precision, metric.paired_test, scores_of(tested, self.data))
        uses = compared[0].resources.get(precision, {})
        result = RunResult(
            self.target_ms,
            precision,
            config.target.limit == "hard",
            compared,
            self.device.name,
            estimate,
            checks,
            len(self.data.split.test),
            tested[0].hardware_check,
            quantization=tested[0].quantization,
            noisiest_layers=tuple(map(str, worst(tested[0].sensitivity))),
            resources=tuple(
                ResourceResult(one, uses[one.resource]) for one in config.target.of_resources if one.resource in uses
            ),
        )
        return with_intervals(result, metric)


def latency_facts(measurement: Measurement) -> dict[str, Any]:
    """A measurement for a manifest: latency, statistics of all runs, then every sample and the conditions."""
    statistics = {} if measurement.statistics is None else asdict(measurement.statistics)
    known = {"latency_ms": measurement.best_ms, "latency_interval_ms": measurement.interval_ms}
    return {**known, **statistics, **measurement.to_json()}


def write_report(run: Run, reporter: Reporter) -> None:
    """Writes the page about the run. It can be written again at any time, so its failure is not the run's."""
    try:
        from nas_edge.report import read_run, run_report
        from nas_edge.report import write_report as write

        page = write(run_report(read_run(run.folder)), run.path("report"))
    except Exception as error:  # whatever is wrong with it, hours of work are not to end in an error
        reporter.say(
            f"the report could not be written ({reason(error)}); to try again: {command('report', run.folder)}"
        )
    else:
        reporter.say(f"report: {page}")
