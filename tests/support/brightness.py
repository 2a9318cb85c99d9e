"""A task without classes: what is the mean brightness of an image? It has no place in the package's tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nas_edge.data.settings import DataSettings
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, Targets, TaskData, TaskSettings
from nas_edge.tasks.examples import load_examples


class BrightnessSettings(TaskSettings):
    name: str = "brightness"
    scale: float = 0.1


class Brightness(NetworkTask):
    """Regression: one output, the mean brightness in units of the scale, around that of half grey."""

    metric = Metric("R2", ".3f", (None, 1.0))
    targets = Targets((1,), "float32")
    settings: BrightnessSettings

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        data = load_examples(settings, input_size, seed)
        pixels = data.pixels(np.arange(len(data.dataset))).reshape(len(data.dataset), -1)
        brightness = (pixels.mean(axis=1, keepdims=True) / 255 - 0.3) / self.settings.scale
        return replace(data, dataset=replace(data.dataset, labels=brightness.astype(np.float32), class_names=()))

    def outputs(self, data: TaskData | None) -> int:
        return 1

    def loss(self, outputs: Any, targets: Any, settings: Any) -> Any:
        import tensorflow as tf

        return tf.reduce_mean(tf.square(outputs - targets))

    def statistics(self, outputs: Array, targets: Array) -> Array:
        wanted = targets.astype(np.float64)
        return np.array([np.square(outputs - wanted).sum(), wanted.sum(), np.square(wanted).sum(), len(wanted)])

    def quality(self, statistics: Array) -> float:
        errors, total, squares, count = statistics
        return float(1 - errors / (squares - total**2 / count))

    def same_answer(self, first: Array, second: Array) -> float:
        return float(np.mean(np.abs(first - second) < 0.5))

    def bundle_section(self, data: TaskData) -> BundleSection:
        return BundleSection(
            title="light meter",
            says="tells how bright an image is",
            answer="the output is the brightness",
            output="brightness",
            output_shape=(1,),
            snippet='print("brightness:", float(outputs[0]))',
            manifest={"brightness_scale": self.settings.scale},
        )
