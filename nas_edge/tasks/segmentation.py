"""Semantic segmentation: a class per pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from nas_edge.data.settings import DataSettings
from nas_edge.data.targets import MASKS, VOID
from nas_edge.networks import layers as L
from nas_edge.networks.graph import Shape
from nas_edge.spaces import blocks
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, Targets, TaskData, TaskSettings
from nas_edge.tasks.classification import LABELS, labels_file
from nas_edge.tasks.comparing import WILCOXON
from nas_edge.tasks.examples import load_examples
from nas_edge.tasks.pyramid import pyramid

if TYPE_CHECKING:
    from nas_edge.training.settings import OptimizationSettings

MEAN_IOU = Metric("mean IoU", ".2%", (0.0, 1.0), paired_test=WILCOXON)


class SegmentationSettings(TaskSettings):
    """Settings of the task."""

    # It moves parts of an image, and masks would not follow.
    defaults: ClassVar[Mapping[str, Any]] = {"data.augmentation.randaugment": 0}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "data.source": "procedural:size=32,classes=4,difficulty=0.3,train=1000,test=300",
            "space.input_size": 32,
        }
    }

    name: str = "segmentation"
    stride: int = Field(4, ge=1, le=32, description="pixels of the input, in each direction, for one of the output")
    width: int = Field(32, ge=8, le=512, description="channels of the head")


class Segmentation(NetworkTask):
    """Tells the class of each pixel: a logit per class for each pixel of the output, which is smaller than the input.

    Loss and metric are those of the outputs resized bilinearly to the input's size. Targets are class numbers, or
    `targets.VOID` where no class is known, which neither teaches nor counts.
    """

    metric = MEAN_IOU
    bootstraps = True
    targets = Targets((None, None), "int32")
    settings: SegmentationSettings

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`."""
        from nas_edge.data.masks import MaskView

        data = load_examples(settings, input_size, seed, MASKS, mixes=False, moves=False)
        return replace(data, dataset=replace(data.dataset, target_view=MaskView()))

    def outputs(self, data: TaskData | None) -> int:
        """One per class."""
        assert data is not None
        return len(data.dataset.class_names)

    def contents(self, data: TaskData) -> str:
        """See `Task`; the number of classes."""
        return f" with masks of {self.outputs(data)} classes"

    def head(self, template: L.Layer, input_shape: Shape) -> L.Layer:
        """See `NetworkTask`; joins the features at all strides from `stride` on, see `pyramid`."""
        found = pyramid(template, input_shape, self.settings.stride, self.settings.width, "segmentation")
        dense = L.sequential(
            pyramid=found.joined,
            smooth=blocks.separable(self.settings.width, blocks.depthwise_norm(3, "relu", 1)),
            resize=L.Resize(*(-(-size // self.settings.stride) for size in input_shape[:2])),
            logits=found.logits,
        )
        return L.Sequential((*found.early, *dense.parts))

    def loss(self, outputs: Any, targets: Any, settings: OptimizationSettings) -> Any:
        """See `NetworkTask`; cross-entropy, the mean over pixels of known classes, against smoothed targets."""
        import tensorflow as tf

        classes = outputs.shape[-1]
        known = tf.cast(targets != VOID, tf.float32)
        smoothing = settings.label_smoothing
        shares = tf.one_hot(targets, classes) * (1.0 - smoothing) + smoothing / classes
        logits = tf.image.resize(outputs, tf.shape(targets)[1:3])
        losses = tf.nn.softmax_cross_entropy_with_logits(labels=shares, logits=logits)
        return tf.reduce_sum(losses * known) / tf.maximum(tf.reduce_sum(known), 1.0)

    def distillation_loss(self, outputs: Any, answers: Any, temperature: float) -> Any:
        """See `NetworkTask`; cross-entropy of the softened logits of each pixel, times the squared temperature."""
        import tensorflow as tf

        shares = tf.nn.softmax(answers / temperature)
        losses = tf.nn.softmax_cross_entropy_with_logits(labels=shares, logits=outputs / temperature)
        return temperature**2 * tf.reduce_mean(losses)

    def statistics(self, outputs: Array, targets: Array) -> Array:
        """Of each class pixels that have it and were answered so, then pixels that have it or were answered so."""
        both, either = self._overlaps(outputs, targets)
        return np.concatenate([both.sum(axis=0), either.sum(axis=0)])

    def quality(self, statistics: Array) -> float:
        """Mean IoU: intersection over union of each class over all images, the mean over classes, 0 to 1."""
        both, either = np.split(statistics, 2)
        return float((both[either > 0] / either[either > 0]).mean()) if either.any() else 1.0

    def example_scores(self, outputs: Array, targets: Array) -> Array:
        """Mean IoU of each image, over the classes that it has or was answered to have, `[n]`."""
        both, either = self._overlaps(outputs, targets)
        counted = either > 0
        shares = np.where(counted, both / np.maximum(either, 1), 0.0)
        return np.where(counted.any(axis=1), shares.sum(axis=1) / np.maximum(counted.sum(axis=1), 1), 1.0)

    def breakdown(self, outputs: Array, targets: Array) -> Array:
        """Statistics, and images with each class."""
        classes = outputs.shape[-1]
        flat = targets.reshape(len(targets), -1)
        images = [(flat == number).any(axis=1).sum() for number in range(classes)]
        return np.concatenate([self.statistics(outputs, targets), images])

    def describe_breakdown(self, total: Array, data: TaskData) -> Mapping[str, Any]:
        """IoU and images of each class."""
        both, either, images = np.split(total, 3)
        return {
            "classes": {
                name: {"IoU": float(both[i] / either[i]) if either[i] else None, "images": int(images[i])}
                for i, name in enumerate(data.dataset.class_names)
            }
        }

    def same_answer(self, first: Array, second: Array) -> float:
        """Share of the outputs' pixels with the same most likely class."""
        return float(np.mean(first.argmax(axis=-1) == second.argmax(axis=-1)))

    def bundle_section(self, data: TaskData) -> BundleSection:
        """See `NetworkTask`."""
        labels, side = data.dataset.class_names, -(-data.preprocessing.shape[0] // self.settings.stride)
        return BundleSection(
            title="segmentation model",
            says=f"tells which of {len(labels)} classes each of {side} x {side} pixels is of (`{LABELS}`, one per "
            "line, in the order of the outputs' last axis)",
            answer="resize the logits bilinearly to the square that was cut out of the image; the largest logit of a "
            "pixel is its class, and nothing is said of what lies outside of that square",
            output="logit",
            output_shape=(side, side, len(labels)),
            snippet=(
                f'labels = (FOLDER / "{LABELS}").read_text(encoding="utf-8").splitlines()\n'
                "classes = outputs.argmax(axis=-1)\n"
                "for number, label in enumerate(labels):\n"
                '    print(f"{label}: {(classes == number).mean():.1%} of the pixels")'
            ),
            files={LABELS: labels_file(labels)},
            manifest={"classes": len(labels), "output_stride": self.settings.stride, "void": VOID},
        )

    def _overlaps(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Of each image and class, pixels that have it and were answered so, and those of either, `[n, classes]`."""
        classes = outputs.shape[-1]
        across, along = _bilinear(outputs.shape[1], targets.shape[1]), _bilinear(outputs.shape[2], targets.shape[2])
        resized = np.einsum("yh,xw,nhwc->nyxc", across, along, outputs, optimize=True)
        answered = np.where(targets == VOID, VOID, resized.argmax(axis=-1)).reshape(len(targets), -1)
        actual = targets.reshape(len(targets), -1)
        both, either = np.zeros((2, len(targets), classes))
        for number in range(classes):
            has, said = actual == number, answered == number
            both[:, number], either[:, number] = (has & said).sum(axis=1), (has | said).sum(axis=1)
        return both, either


@lru_cache
def _bilinear(source: int, result: int) -> Array:
    """How much each of `source` pixels in a row is of each of `result`, `[result, source]`, as in `tf.image.resize`."""
    at = np.clip((np.arange(result) + 0.5) * source / result - 0.5, 0, source - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(source)))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
