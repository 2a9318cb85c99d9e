"""Image embedding: a vector per image, near those of other images of its class, to search and compare by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nas_edge.data.settings import DataSettings
from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.networks.graph import Shape
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, Targets, TaskData, TaskSettings
from nas_edge.tasks.classification import wilson_interval
from nas_edge.tasks.examples import load_examples

if TYPE_CHECKING:
    from nas_edge.training.settings import OptimizationSettings

# Images that are compared with all others at a time.
_AT_ONCE = 512

# Embeddings are the same to an app where the cosine of their angle is at least that.
_SAME = 0.98


class EmbeddingSettings(TaskSettings):
    """Settings of the task."""

    name: str = "embedding"
    dimensions: int = Field(64, ge=2, le=4096, description="components of an embedding")
    recall_at: int = Field(1, ge=1, le=100, description="nearest images among which one of the class is looked for")
    temperature: float = Field(0.1, gt=0, le=10, description="of the contrastive loss; small: near images count more")


class Embedding(NetworkTask):
    """Embeds images: networks end with unit vectors, whose dot products say how alike images are.

    Targets are class numbers, which say what images are to be alike; apps may compare images of any classes.
    """

    targets = Targets((), "int32")
    settings: EmbeddingSettings

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        # Images are asked for one after another; that each is an answer to others is neglected by the interval.
        self.metric = Metric(f"recall@{self.settings.recall_at}", ".2%", (0.0, 1.0), wilson_interval)

    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        """See `Task`."""
        return load_examples(settings, input_size, seed, mixes=False)

    def outputs(self, data: TaskData | None) -> int:
        """The dimensions of an embedding."""
        return self.settings.dimensions

    def contents(self, data: TaskData) -> str:
        """See `Task`; the number of classes."""
        return f" of {len(data.dataset.class_names)} classes"

    def head(self, template: L.Layer, input_shape: Shape) -> L.Layer:
        """See `NetworkTask`; a classifier's, whose outputs are normalised to unit length."""
        if not isinstance(template, L.Sequential):
            raise SpaceError("embedding requires a space whose template is a Sequential of parts")
        return L.Sequential((*template.parts, ("normalize", L.L2Normalize())))

    def loss(self, outputs: Any, targets: Any, settings: OptimizationSettings) -> Any:
        """See `NetworkTask`; the supervised contrastive loss, over images of which the batch has another of the class.

        Source: Khosla et al., 2020 (arXiv:2004.11362), equation 2.
        """
        import tensorflow as tf

        vectors = tf.nn.l2_normalize(outputs, axis=-1)
        similar = tf.matmul(vectors, vectors, transpose_b=True) / self.settings.temperature
        itself = tf.eye(tf.shape(outputs)[0])
        labels = tf.reshape(targets, [-1, 1])
        alike = tf.cast(tf.equal(labels, tf.transpose(labels)), tf.float32) - itself
        among_others = tf.nn.log_softmax(similar - 1e9 * itself, axis=-1)
        count = tf.reduce_sum(alike, axis=-1)
        each = tf.reduce_sum(alike * among_others, axis=-1) / tf.maximum(count, 1.0)
        has_others = tf.cast(count > 0, tf.float32)
        return -tf.reduce_sum(each * has_others) / tf.maximum(tf.reduce_sum(has_others), 1.0)

    def distillation_loss(self, outputs: Any, answers: Any, temperature: float) -> Any:
        """See `NetworkTask`; 1 less the cosine of the angle between both embeddings."""
        import tensorflow as tf

        first, second = (tf.nn.l2_normalize(one, axis=-1) for one in (outputs, answers))
        return 1.0 - tf.reduce_mean(tf.reduce_sum(first * second, axis=-1))

    def statistics(self, outputs: Array, targets: Array) -> Array:
        """Unit vectors, and the class, `[n, dimensions + 1]`."""
        lengths = np.maximum(np.linalg.norm(outputs, axis=-1, keepdims=True), 1e-12)
        return np.concatenate([outputs / lengths, targets[:, None]], axis=1).astype(np.float64)

    def join(self, statistics: Any) -> Array:
        """All of them in a row."""
        return np.concatenate(statistics)

    def quality(self, statistics: Array) -> float:
        """Recall@k, 0 to 1: share of images with one of their class among the k nearest of all others."""
        vectors, labels = statistics[:, :-1].astype(np.float32), statistics[:, -1]
        nearest = min(self.settings.recall_at, len(vectors) - 1)
        if nearest < 1:
            return 0.0
        found = 0
        for start in range(0, len(vectors), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            similar = vectors[rows] @ vectors.T
            similar[np.arange(len(similar)), np.arange(len(similar)) + start] = -np.inf
            first = np.argpartition(-similar, nearest - 1, axis=1)[:, :nearest]
            found += np.count_nonzero((labels[first] == labels[rows, None]).any(axis=1))
        return found / len(vectors)

    def same_answer(self, first: Array, second: Array) -> float:
        """Share of images whose embeddings point the same way, the cosine of their angle at least 0.98."""
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        return float(np.mean((first * second).sum(axis=-1) >= _SAME * lengths))

    def bundle_section(self, data: TaskData) -> BundleSection:
        """See `NetworkTask`."""
        count = self.settings.dimensions
        return BundleSection(
            title="image embedding",
            says=f"maps an image to a {count}-dimensional unit vector; similar images have nearby vectors",
            answer="the dot product of two images' outputs is their cosine similarity, 1 for the same image",
            output="number",
            output_shape=(count,),
            snippet='print("embedding:", " ".join(f"{number:.3f}" for number in outputs))',
            manifest={"embedding": {"dimensions": count, "similarity": "dot product"}},
        )
