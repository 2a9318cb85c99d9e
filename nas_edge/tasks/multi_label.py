"""Multi-label classification: for each of several labels, whether an image has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas_edge.data.settings import DataSettings
from nas_edge.data.targets import LABELS as LABEL_TARGETS
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, Targets, TaskData, TaskSettings
from nas_edge.tasks.classification import LABELS, labels_file
from nas_edge.tasks.comparing import WILCOXON
from nas_edge.tasks.examples import load_examples

if TYPE_CHECKING:
    from nas_edge.training.settings import OptimizationSettings

F1 = Metric("F1", ".2%", (0.0, 1.0), paired_test=WILCOXON)


class MultiLabelSettings(TaskSettings):
    """Settings of the task."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "data.source": "procedural:size=32,classes=4,difficulty=0.1,train=1200,test=400",
            "space.input_size": 32,
        }
    }

    name: str = "multi-label"


class MultiLabel(NetworkTask):
    """Tells which labels an image has: one logit per label, above 0 for a label that is more likely there than not.

    Targets are 1 for a label that an image has and 0 for others or, in batches that mix images, shares.
    """

    metric = F1
    bootstraps = True
    targets = Targets((None,), "float32")

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`.

        Raises:
            DataError: also when no training image has a label, or every one.
        """
        data = load_examples(settings, input_size, seed, LABEL_TARGETS)
        train = np.asarray(data.dataset.labels)[data.split.train]
        LABEL_TARGETS.check_all(train, data.dataset.class_names, f"{settings.source}, the part to train with")
        return data

    def outputs(self, data: TaskData | None) -> int:
        """One per label."""
        assert data is not None
        return len(data.dataset.class_names)

    def contents(self, data: TaskData) -> str:
        """See `Task`; the number of labels."""
        return f" with any of {self.outputs(data)} labels"

    def loss(self, outputs: Any, targets: Any, settings: OptimizationSettings) -> Any:
        """See `NetworkTask`; sigmoid cross-entropy, the sum over labels, against smoothed targets.

        Targets are `(1 - smoothing) * target + smoothing / 2`, see `classification.smoothed_cross_entropy`.
        """
        smoothing = settings.label_smoothing
        return _cross_entropy(outputs, targets * (1.0 - smoothing) + smoothing / 2)

    def distillation_loss(self, outputs: Any, answers: Any, temperature: float) -> Any:
        """See `NetworkTask`; cross-entropy of the softened logits, times the squared temperature."""
        import tensorflow as tf

        return temperature**2 * _cross_entropy(outputs / temperature, tf.sigmoid(answers / temperature))

    def statistics(self, outputs: Array, targets: Array) -> Array:
        """Labels that were found, found wrongly, and missed."""
        return np.array([part.sum() for part in _outcomes(outputs, targets)], np.float64)

    def quality(self, statistics: Array) -> float:
        """F1 over all labels of all images (micro-averaged), 0 to 1; 1 where there was nothing to find or was found."""
        found, wrong, missed = statistics
        return float(2 * found / (2 * found + wrong + missed)) if statistics.any() else 1.0

    def example_scores(self, outputs: Array, targets: Array) -> Array:
        """F1 over the labels of each image, `[n]`."""
        found, wrong, missed = (part.sum(axis=1) for part in _outcomes(outputs, targets))
        everything = 2 * found + wrong + missed
        return np.where(everything > 0, 2 * found / np.maximum(everything, 1), 1.0)

    def breakdown(self, outputs: Array, targets: Array) -> Array:
        """Of each label, how often it was found, found wrongly, and missed, `[3, labels]`."""
        return np.array([part.sum(axis=0) for part in _outcomes(outputs, targets)])

    def describe_breakdown(self, total: Array, data: TaskData) -> Mapping[str, Any]:
        """F1 and images of each label."""
        found, wrong, missed = total
        known = {}
        for i, name in enumerate(data.dataset.class_names):
            everything = 2 * found[i] + wrong[i] + missed[i]
            value = None if everything == 0 else float(2 * found[i] / everything)
            known[name] = {"F1": value, "images": int(found[i] + missed[i])}
        return {"labels": known}

    def same_answer(self, first: Array, second: Array) -> float:
        """Share of images with the same labels."""
        return float(np.mean(((first > 0) == (second > 0)).all(axis=-1)))

    def bundle_section(self, data: TaskData) -> BundleSection:
        """See `NetworkTask`."""
        labels = data.dataset.class_names
        return BundleSection(
            title="multi-label classifier",
            says=f"tells which of {len(labels)} labels an image has (`{LABELS}`, one per line, in the order of the "
            "outputs)",
            answer="an image has the labels whose logits are above 0; `1 / (1 + exp(-logit))` is how likely each is",
            output="logit",
            output_shape=(len(labels),),
            snippet=(
                f'labels = (FOLDER / "{LABELS}").read_text(encoding="utf-8").splitlines()\n'
                'print("labels:", ", ".join(label for label, logit in zip(labels, outputs) if logit > 0) or "none")'
            ),
            files={LABELS: labels_file(labels)},
            manifest={"labels": len(labels)},
        )


def _cross_entropy(logits: Any, shares: Any) -> Any:
    import tensorflow as tf

    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=shares, logits=logits)
    return tf.reduce_mean(tf.reduce_sum(losses, axis=-1))


def _outcomes(outputs: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Whether each label was found, found wrongly, or missed, bool `[n, labels]` each."""
    said, has = outputs > 0, targets > 0.5
    return said & has, said & ~has, ~said & has
