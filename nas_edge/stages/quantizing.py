"""Whether what is delivered is quantised after training, or tuned with the roundings first: `export.quantization`.

What it came to is kept in `stages/quantization-NAME.json`, tuned weights in the network's folder as `aware.npz`, so
that neither is done again when the run is resumed or its bundle written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nas_edge.config import RunConfig
from nas_edge.data.dataset import Indices
from nas_edge.networks.graph import NetworkSpec, Weights, ranges_of
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.runs.result import Quantization
from nas_edge.runs.run import Run
from nas_edge.tasks.base import NetworkTask, TaskData
from nas_edge.training.methods import TrainingSettings
from nas_edge.training.quantization_aware import tuning_settings

_STAGE = "quantization-"

# Images that are held in memory for files, which take them one by one.
TESTED_AT_ONCE = 32


def is_settled(run: Run, name: str) -> bool:
    """Whether a run has decided how a network is quantised."""
    return run.path(f"stages/{_STAGE}{name}.json").exists()


def aware_settings(config: RunConfig) -> TrainingSettings:
    """How weights that are trained are tuned."""
    return tuning_settings(config.training, config.export.aware_share, config.export.aware_rate)


def quantize_once(
    run: Run,
    config: RunConfig,
    task: NetworkTask,
    data: TaskData,
    network: NetworkSpec,
    weights: Weights,
    name: str,
    tune: Callable[[], Weights],
) -> tuple[Weights, Quantization, Mapping[Precision, bytes]]:
    """The weights that the quantised file is made of, how that was settled, and files that were made to settle it now.

    Args:
        run: that keeps it.
        config: of the run.
        task: what the network is for.
        data: of the run; `auto` compares on validation images, so that test images choose nothing.
        network: what was trained.
        weights: as trained.
        name: of the network, in file names.
        tune: trains on with the roundings, and keeps what comes of it.
    """
    asked, activations = config.export.quantization, PRECISIONS[config.export.precision].activations
    if activations == "int8" and ranges_of(weights):  # the training method itself was aware
        return weights, Quantization("aware"), {}
    if asked == "post-training" or activations != "int8":
        return weights, Quantization("post-training"), {}
    made: dict[Precision, bytes] = {}

    def settle() -> dict[str, Any]:
        if asked == "aware":
            tune()
            return Quantization("aware").to_json()
        return _choose(config, task, data, network, weights, tune, made).to_json()

    settled = Quantization.from_json(run.once(f"{_STAGE}{name}", settle))
    return (tune() if settled.method == "aware" else weights), settled, made


def _choose(
    config: RunConfig,
    task: NetworkTask,
    data: TaskData,
    network: NetworkSpec,
    weights: Weights,
    tune: Callable[[], Weights],
    made: dict[Precision, bytes],
) -> Quantization:
    """Which is better; what was converted for that and will be delivered comes into `made`."""
    from nas_edge.export.convert import float32_tflite
    from nas_edge.export.verify import file_quality
    from nas_edge.networks.keras_model import keras_model
    from nas_edge.networks.tflite_model import tflite_model

    indices: Indices = data.split.validation

    def quality(file: bytes) -> float:
        return file_quality(file, data.in_order(indices, TESTED_AT_ONCE), task).value

    precision, budget = config.export.precision, config.export.accuracy_budget
    made["float32"] = float32_tflite(keras_model(network, weights))
    made[precision] = post_training(config, data, network, weights)
    real, after = quality(made["float32"]), quality(made[precision])
    found = Quantization("post-training", real, after, None, budget, len(indices))
    if real - after <= budget:
        return found
    aware = quality(tflite_model(network, precision, tune()))
    if aware > after:
        del made[precision]
        return replace(found, aware_quality=aware, method="aware")
    return replace(found, aware_quality=aware)


def quantized_quality(
    config: RunConfig, task: NetworkTask, data: TaskData, network: NetworkSpec, weights: Weights
) -> float:
    """Quality on all validation data of the file in the precision that is delivered.

    Args:
        config: of the run.
        task: what the network is for.
        data: of the run.
        network: what was trained.
        weights: as trained, or as tuned with the roundings: then with the ranges that they keep.
    """
    from nas_edge.export.verify import file_quality
    from nas_edge.networks.tflite_model import tflite_model

    precision = config.export.precision
    tuned = PRECISIONS[precision].activations == "int8" and bool(ranges_of(weights))
    file = tflite_model(network, precision, weights) if tuned else post_training(config, data, network, weights)
    return file_quality(file, data.in_order(data.split.validation, TESTED_AT_ONCE), task).value


def post_training(config: RunConfig, data: TaskData, network: NetworkSpec, weights: Weights) -> bytes:
    """The file in the precision that is delivered, of weights as trained."""
    from nas_edge.export.quantize import quantized_tflite
    from nas_edge.export.representative import representative_set
    from nas_edge.networks.keras_model import keras_model

    chosen = representative_set(data, config.export.representative_images, config.seed).indices
    return quantized_tflite(
        keras_model(network, weights),
        config.export.precision,
        lambda: (images for images, _ in data.in_order(chosen, TESTED_AT_ONCE)),
    )
