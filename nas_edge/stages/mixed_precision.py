"""What leaving the noisiest layers of an int8 file in float32 gains and costs: measured, with a file of that kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from device_agents.api import Measurement
from nas_edge.config import RunConfig
from nas_edge.export.sensitivity import LayerNoise, worst
from nas_edge.formatting import ms_text
from nas_edge.networks.tflite_model import operators
from nas_edge.stages.quantizing import TESTED_AT_ONCE
from nas_edge.tasks.base import Metric, NetworkTask, TaskData

# What the file is called among those that are measured.
MIXED = "int8 with float32 layers"

_INT8 = "int8"


@dataclass(frozen=True)
class MixedModel:
    """A file in which some layers stay float32.

    Attributes:
        file: TFLite bytes; input and output are int8.
        layers: that stay, the noisiest first.
        quality: on test images, in the task's metric.
    """

    file: bytes
    layers: tuple[LayerNoise, ...]
    quality: float
    name: str = "model_int8_mixed.tflite"

    def told(self, latency: Mapping[str, Measurement], int8_quality: float) -> MixedCost:
        """Compared with the int8 file that was measured beside it.

        Args:
            latency: by precision, with that of this file.
            int8_quality: of the int8 file.
        """
        return MixedCost(
            self.name,
            tuple(one.layer for one in self.layers),
            len(self.file),
            self.quality,
            int8_quality,
            latency[MIXED].best_ms,
            latency[_INT8].best_ms,
        )


@dataclass(frozen=True)
class MixedCost:
    """What came of it; latencies are quiet ones, in ms, measured side by side, None where that failed.

    Attributes:
        file: its name in the bundle.
        layers: that stay float32.
        size_bytes: of the file.
        quality: on test images, in the task's metric.
        int8_quality: of the int8 file.
        latency_ms: of the file.
        int8_latency_ms: of the int8 file.
    """

    file: str
    layers: tuple[str, ...]
    size_bytes: int
    quality: float
    int8_quality: float
    latency_ms: float | None
    int8_latency_ms: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def text(self, metric: Metric) -> str:
        """For the user."""
        return (
            f"with {', '.join(self.layers)} in float32: {metric.name} {metric.text(self.quality)} instead of "
            f"{metric.text(self.int8_quality)}, {ms_text(self.latency_ms)} ms instead of "
            f"{ms_text(self.int8_latency_ms)} ms"
        )


def mixed_model(
    config: RunConfig,
    task: NetworkTask,
    data: TaskData,
    model: Any,
    real: bytes,
    layers: Sequence[str],
    noises: Sequence[LayerNoise],
) -> MixedModel:
    """Makes and tests the file.

    Args:
        config: of the run: how many layers stay float32.
        task: what the network is for.
        data: of the run.
        model: of Keras.
        real: the float32 file that the converter made of it.
        layers: what its operators are called, in their order.
        noises: of layers in the int8 file, by these names.

    Raises:
        ExportError: when the converter fails.
    """
    from nas_edge.export.mixed import mixed_tflite
    from nas_edge.export.representative import representative_set
    from nas_edge.export.verify import file_quality

    written = dict(zip(layers, (one.outputs[0].name for one in operators(real)), strict=True))
    left = worst(noises, config.export.mixed_layers)
    chosen = representative_set(data, config.export.representative_images, config.seed).indices
    file = mixed_tflite(
        model,
        [written[one.layer] for one in left],
        lambda: (images for images, _ in data.in_order(chosen, TESTED_AT_ONCE)),
    )
    return MixedModel(file, left, file_quality(file, data.in_order(data.split.test, TESTED_AT_ONCE), task).value)
