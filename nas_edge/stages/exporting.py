"""Delivers a finished run's winner again: in another precision, for other hardware, or measured on another device."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from nas_edge.config import RunConfig
from nas_edge.latency.device import DeviceSource
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.progress import Reporter
from nas_edge.runs.result import RunResult
from nas_edge.runs.run import Run
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import open_parts, timing_inputs
from nas_edge.stages.delivering import Bundling, convert, measure_models
from nas_edge.stages.deployed import deployed, with_precision
from nas_edge.stages.fastest_precision import AUTO, TriedPrecision, fastest_precision
from nas_edge.stages.quantizing import TESTED_AT_ONCE, is_settled, post_training, quantize_once
from nas_edge.tasks.base import NetworkTask, TaskData


def export_winner(
    run: Run,
    config: RunConfig,
    task: NetworkTask,
    data: TaskData,
    space: SearchSpace,
    architecture: Architecture,
    weights: Weights,
    found: RunResult,
    out: Path,
    reporter: Reporter,
    precision: str | None = None,
) -> RunResult:
    """Converts, tests, measures and bundles; nothing is written to the run.

    Args:
        run: finished.
        config: with the device and the hardware of the export.
        task: of the run.
        data: of the run.
        space: of the run.
        architecture: of the winner.
        weights: of the winner, as trained.
        found: the run's result.
        out: new folder for the bundle.
        reporter: what the user sees.
        precision: see `pipeline.export`.
    """
    config = deployed(config, space.build(architecture))
    if precision is not None and precision != AUTO:
        config = with_precision(config, precision)
    if not is_settled(run, "winner"):  # nothing was tuned, and a finished run is not written to
        config = _changed(config, quantization="post-training")
    with ExitStack() as stack:
        first, *others = open_parts(config, found.target_ms, timing_inputs(config, data))
        for part in (first, *others):
            stack.enter_context(part.source)
        network = space.build(architecture).needed_network()
        contender = Contender("winner", str(architecture), None, network)

        def kept() -> Weights:
            return run.read_weights("winner/aware.npz")

        tried: tuple[TriedPrecision, ...] = ()
        files: dict[Precision, bytes] = {}
        if precision == AUTO:
            tried, files = _precisions(run, config, task, data, network, weights, first.source, reporter)
            config = with_precision(config, tried[0].precision)
        chosen, how, made = quantize_once(run, config, task, data, network, weights, "winner", kept)
        model = convert(config, task, data, contender, weights, chosen, how, {**files, **made})
        rows, *further = (
            measure_models(config, part.source, part.source.measure_files, [model], reporter)
            for part in (first, *others)
        )
        elsewhere = tuple(zip(others, further, strict=True))
        bundling = Bundling(config, task, space, data, first.source, first.target_ms, elsewhere, tried, reporter)
        return bundling.write(out, architecture, [model], rows, found.latency_estimate)


def _changed(config: RunConfig, **export: object) -> RunConfig:
    """Settings with others of what is delivered, which need not go together with all else."""
    return config.model_copy(update={"export": config.export.model_copy(update=export)})


def _precisions(
    run: Run,
    config: RunConfig,
    task: NetworkTask,
    data: TaskData,
    network: NetworkSpec,
    weights: Weights,
    device: DeviceSource,
    reporter: Reporter,
) -> tuple[tuple[TriedPrecision, ...], dict[Precision, bytes]]:
    """What came of each precision, the chosen one first, and the files."""
    from nas_edge.export.verify import file_quality

    files: dict[Precision, bytes] = {}

    def quality(file: bytes) -> float:
        return file_quality(file, data.in_order(data.split.validation, TESTED_AT_ONCE), task).value

    def kept() -> Weights:
        return run.read_weights("winner/aware.npz")

    def make(precision: Precision) -> bytes:
        changed = _changed(config, precision=precision)  # whether the hardware runs it, the gate says
        chosen, how, _ = quantize_once(run, changed, task, data, network, weights, "winner", kept)
        if how.method == "aware" and PRECISIONS[precision].activations == "int8":
            files[precision] = tflite_model(network, precision, chosen)
        else:
            files[precision] = post_training(changed, data, network, weights)
        return files[precision]

    return fastest_precision(config, task.metric, device, make, quality, reporter), files
