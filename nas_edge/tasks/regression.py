"""Regression: one or several numbers per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_edge.data.settings import DataSettings
from nas_edge.data.targets import VALUES
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, Targets, TaskData, TaskSettings
from nas_edge.tasks.classification import labels_file
from nas_edge.tasks.comparing import WILCOXON
from nas_edge.tasks.examples import load_examples

if TYPE_CHECKING:
    from nas_edge.training.settings import OptimizationSettings

NAMES = "values.txt"

R2 = Metric("R2", ".3f", (None, 1.0), paired_test=WILCOXON)

# Answers that differ by less than this share of the targets' spread are the same to an app.
_SAME = 0.1

# Targets vary by at least this share of their variance on the training images, which is 1, when R2 is computed.
_LEAST_VARIANCE = 0.1


class RegressionSettings(TaskSettings):
    """Settings of the task."""

    # A value may change with an image's place, angle, size and side, whatever a preset does to photographs.
    defaults: ClassVar[Mapping[str, Any]] = {
        "data.augmentation.shift": 0.0,
        "data.augmentation.rotation_degrees": 0.0,
        "data.augmentation.zoom": 0.0,
        "data.augmentation.flip": False,
        "data.augmentation.crop_area": 1.0,
        "data.augmentation.randaugment": 0,
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "data.source": "procedural:size=32,classes=4,difficulty=0.5,train=1200,test=400",
            "space.input_size": 32,
            "training.epochs": 24,
        }
    }

    name: str = "regression"


class Regression(NetworkTask):
    """Predicts numbers. Networks learn them standardised: to mean 0 and standard deviation 1 on the training images.

    Targets, and so outputs, are standardised values; the bundle says how they become values again.
    """

    metric = R2
    bootstraps = True
    targets = Targets((None,), "float32")

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`; the values become standardised ones, of which the dataset keeps how.

        Raises:
            DataError: also when a value is the same for all training images.
        """
        data = load_examples(settings, input_size, seed, VALUES)
        train = np.asarray(data.dataset.labels, np.float64)[data.split.train]
        VALUES.check_all(train, data.dataset.class_names, f"{settings.source}, the part to train with")
        mean, std = train.mean(axis=0), train.std(axis=0)
        labels = ((data.dataset.labels - mean) / std).astype(np.float32)
        scale = np.stack([mean, std])
        return replace(data, dataset=replace(data.dataset, labels=labels, target_scale=scale))

    def outputs(self, data: TaskData | None) -> int:
        """One per value."""
        assert data is not None
        return int(data.dataset.labels.shape[1])

    def contents(self, data: TaskData) -> str:
        """See `Task`; the names of the values."""
        return f" with {', '.join(data.dataset.class_names)}"

    def loss(self, outputs: Any, targets: Any, settings: OptimizationSettings) -> Any:
        """See `NetworkTask`; half the squared error, the mean over values."""
        return _squared_error(outputs, targets)

    def distillation_loss(self, outputs: Any, answers: Any, temperature: float) -> Any:
        """See `NetworkTask`; likewise."""
        return _squared_error(outputs, answers)

    def statistics(self, outputs: Array, targets: Array) -> Array:
        """Of each value squared errors, targets, their squares, and examples, summed."""
        wanted = targets.astype(np.float64)
        errors = np.square(outputs - wanted)
        return np.concatenate([part.sum(axis=0) for part in (errors, wanted, np.square(wanted), np.ones_like(wanted))])

    def quality(self, statistics: Array) -> float:
        """R2, the explained share of the variance, the mean over values: at most 1, 0 for answering the mean.

        Where targets vary by less than a tenth of what they do on the training images, as on a single image, that
        tenth stands for their variance: there is little to explain, and small errors must not count as huge ones.
        """
        return float(_r2(statistics).mean())

    def example_scores(self, outputs: Array, targets: Array) -> Array:
        """Less the mean absolute error of each image, `[n]`."""
        return np.asarray(-np.abs(outputs - targets).mean(axis=1))

    def breakdown(self, outputs: Array, targets: Array) -> Array:
        """Statistics, and absolute errors."""
        return np.concatenate([self.statistics(outputs, targets), np.abs(outputs - targets).sum(axis=0)])

    def describe_breakdown(self, total: Array, data: TaskData) -> Mapping[str, Any]:
        """R2 of each value, and its mean absolute error in the value's own unit."""
        names, (_, std) = data.dataset.class_names, data.dataset.target_scale
        errors = total[-len(names) :] / total[3 * len(names)] * std
        r2 = _r2(total[: -len(names)])
        return {
            "values": {
                name: {"R2": float(r2[i]), "mean absolute error": float(f"{errors[i]:.4g}")}
                for i, name in enumerate(names)
            }
        }

    def same_answer(self, first: Array, second: Array) -> float:
        """Share of images whose values differ by less than a tenth of the targets' standard deviation."""
        return float(np.mean((np.abs(first - second) < _SAME).all(axis=-1)))

    def bundle_section(self, data: TaskData) -> BundleSection:
        """See `NetworkTask`."""
        names = data.dataset.class_names
        mean, std = ([float(f"{number:.7g}") for number in row] for row in data.dataset.target_scale)
        return BundleSection(
            title="regression model",
            says=f"predicts {', '.join(names)} (`{NAMES}`, one per line, in the order of the outputs)",
            answer=f"`value = mean + std * output`, with mean {mean} and std {std}",
            output="output",
            output_shape=(len(names),),
            snippet=(
                f'names = (FOLDER / "{NAMES}").read_text(encoding="utf-8").splitlines()\n'
                "for name, mean, std, output in zip(names, "
                f"{mean}, {std}, outputs):\n"
                '    print(f"{name}: {mean + std * output:.4g}")'
            ),
            files={NAMES: labels_file(names)},
            manifest={"values": {"names": list(names), "mean": mean, "std": std}},
        )


def _squared_error(outputs: Any, targets: Any) -> Any:
    import tensorflow as tf

    return 0.5 * tf.reduce_mean(tf.square(outputs - targets))


def _r2(statistics: Array) -> Array:
    """Of each value, see `Regression.quality`."""
    errors, total, squares, count = np.split(statistics, 4)
    return np.asarray(1 - errors / np.maximum(squares - total**2 / count, _LEAST_VARIANCE * count))
