"""Image classification: one label per image. The only module that knows classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_edge.data.settings import DataSettings
from nas_edge.errors import DataError, ExportError
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, PairedTest, Targets, TaskData, TaskSettings
from nas_edge.tasks.examples import load_examples

if TYPE_CHECKING:
    from nas_edge.training.settings import OptimizationSettings

LABELS = "labels.txt"

# The 97.5% quantile of the normal distribution.
_Z95 = 1.959963984540054


# A confusion matrix of more classes is megabytes that nobody reads.
_MOST_IN_MATRIX = 100


class ClassificationSettings(TaskSettings):
    """Settings of the task."""

    name: str = "classification"


def wilson_interval(share: float, count: int) -> tuple[float, float] | None:
    """95% interval of a share found on `count` examples; None without examples.

    Source: Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if count < 1:
        return None
    z2 = _Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # At the ends the interval reaches the share itself, which rounding may miss.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def mcnemar_p_value(first: Array, second: Array) -> float:
    """Exact two-sided p-value of McNemar's test of two classifiers on the same images.

    Only images that one classifies correctly and the other does not can tell them apart. Were both equally accurate,
    each such image would be as likely one way as the other: a binomial test.

    Args:
        first: whether the first classifies each image correctly, bool `[n]`.
        second: the same of the second.

    Source: McNemar, 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    from scipy.stats import binomtest

    first, second = first.astype(bool), second.astype(bool)
    only_first, only_second = np.count_nonzero(first & ~second), np.count_nonzero(second & ~first)
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


ACCURACY = Metric("accuracy", ".2%", (0.0, 1.0), wilson_interval, PairedTest("McNemar", mcnemar_p_value))


class Classification(NetworkTask):
    """Tells classes apart: one logit per class, of which the largest is the answer.

    Targets are class numbers or, in batches that mix images, the share of each class.
    """

    metric = ACCURACY
    targets = Targets((), "int32")

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`."""
        data = load_examples(settings, input_size, seed)
        self.settle_targets(data)
        return data

    def settle_targets(self, data: TaskData) -> None:
        """Uses class shares as targets if the data mixes examples."""
        if data.mixing is not None and data.mixing.mixes_targets:
            self.targets = Targets((len(data.dataset.class_names),), "float32")

    def outputs(self, data: TaskData | None) -> int:
        """One per class."""
        assert data is not None
        return len(data.dataset.class_names)

    def contents(self, data: TaskData) -> str:
        """See `Task`; the number of classes."""
        return f" of {self.outputs(data)} classes"

    def loss(self, outputs: Any, targets: Any, settings: OptimizationSettings) -> Any:
        """See `NetworkTask`; `smoothed_cross_entropy`."""
        return smoothed_cross_entropy(outputs, targets, settings.label_smoothing)

    def distillation_loss(self, outputs: Any, answers: Any, temperature: float) -> Any:
        """See `NetworkTask`; cross-entropy of the softened logits, times the squared temperature.

        So its gradients are as large at any temperature.

        Source: Hinton et al., 2015 (arXiv:1503.02531), section 2.
        """
        import tensorflow as tf

        shares = tf.nn.softmax(answers / temperature)
        losses = tf.nn.softmax_cross_entropy_with_logits(labels=shares, logits=outputs / temperature)
        return temperature**2 * tf.reduce_mean(losses)

    def statistics(self, outputs: Array, targets: Array) -> Array:
        """Images classified correctly, and images."""
        if len(outputs) == 0 or len(outputs) != len(targets):
            raise DataError(
                f"expected as many labels as images, at least one; received {len(targets)} and {len(outputs)}"
            )
        return np.array([np.count_nonzero(self.example_scores(outputs, targets)), len(targets)], np.float64)

    def quality(self, statistics: Array) -> float:
        """Top-1 accuracy, 0 to 1."""
        correct, count = statistics
        return float(correct / count)

    def example_scores(self, outputs: Array, targets: Array) -> Array:
        """Whether each image is classified correctly, bool `[n]`."""
        classes = targets.argmax(axis=-1) if targets.ndim == 2 else targets
        return np.asarray(outputs.argmax(axis=-1) == classes)

    def breakdown(self, outputs: Array, targets: Array) -> Array:
        """The confusion matrix, `[classes, classes]`: images by class, and by the class that they were taken for."""
        classes = outputs.shape[-1]
        actual = targets.argmax(axis=-1) if targets.ndim == 2 else targets
        cells = actual.astype(np.int64) * classes + outputs.argmax(axis=-1)
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    def describe_breakdown(self, total: Array, data: TaskData) -> Mapping[str, Any]:
        """Accuracy and number of examples of each class; of few classes the confusion matrix as well."""
        names, counts = data.dataset.class_names, total.sum(axis=1)
        per_class = {
            name: {"accuracy": None if count == 0 else float(total[i, i] / count), self.examples: int(count)}
            for i, (name, count) in enumerate(zip(names, counts, strict=True))
        }
        matrix = {"confusion_matrix": total.tolist()} if len(names) <= _MOST_IN_MATRIX else {}
        return {"classes": per_class, **matrix}

    def same_answer(self, first: Array, second: Array) -> float:
        """Share of images with the same most likely class."""
        return float(np.mean(first.argmax(axis=-1) == second.argmax(axis=-1)))

    def bundle_section(self, data: TaskData) -> BundleSection:
        """See `NetworkTask`."""
        return labels_section(data.dataset.class_names)


def labels_file(labels: Sequence[str]) -> bytes:
    """Names, one per line, in the order of the outputs.

    Raises:
        ExportError: for a name that does not fit on one line.
    """
    for label in labels:
        if not label or label.splitlines() != [label]:
            raise ExportError(
                f"label {label!r} cannot be written",
                expected=f"one non-empty line of text, as {LABELS} has one label per line",
            )
    return "".join(f"{label}\n" for label in labels).encode()


def labels_section(labels: Sequence[str]) -> BundleSection:
    """What a bundle says of a classifier.

    Args:
        labels: class names, in the order of the outputs.

    Raises:
        ExportError: for a label that does not fit on one line.
    """
    return BundleSection(
        title="image classifier",
        says=f"classifies images into {len(labels)} classes (`{LABELS}`, one per line, in the order of the outputs)",
        answer="the largest logit is the predicted class",
        output="logit",
        output_shape=(len(labels),),
        snippet=(
            f'labels = (FOLDER / "{LABELS}").read_text(encoding="utf-8").splitlines()\n'
            'print("predicted:", labels[int(outputs.argmax())])'
        ),
        files={LABELS: labels_file(labels)},
        manifest={"classes": len(labels)},
    )


def read_labels(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Class names of a bundle's files, in the order of the outputs."""
    return tuple(files[LABELS].decode().splitlines())


def smoothed_cross_entropy(logits: Any, labels: Any, smoothing: float) -> Any:
    """Mean softmax cross-entropy against `(1 - smoothing) * one_hot + smoothing / classes`.

    Args:
        logits: `[batch, classes]`.
        labels: int `[batch]`, or shares of each class, float `[batch, classes]`, in place of the one-hot ones.
        smoothing: 0 for plain cross-entropy.

    Returns:
        A scalar tensor.

    Source: Szegedy et al., 2016 (arXiv:1512.00567), section 7.
    """
    import tensorflow as tf

    classes = logits.shape[-1]
    labels = tf.convert_to_tensor(labels)
    shares = tf.one_hot(labels, classes) if labels.dtype.is_integer else labels
    targets = shares * (1.0 - smoothing) + smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits))
