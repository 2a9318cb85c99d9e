"""`distillation`: as `standard`, and what a trained network answers is learned beside the targets.

The teacher is the largest network of the space, trained once by the `standard` method. What of its answers is learned,
and how, the task says.

Source: Hinton et al., 2015 (arXiv:1503.02531); teacher and student see the same augmented images, as in Beyer et al.,
2022 (arXiv:2106.05237).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nas_edge.errors import ConfigError
from nas_edge.networks.graph import Weights
from nas_edge.training.context import OnStep, TrainingContext
from nas_edge.training.settings import TrainingSettings
from nas_edge.training.standard import StandardSettings, train_with


class DistillationSettings(StandardSettings):
    """Settings of `distillation`."""

    method: str = "distillation"
    temperature: float = Field(2.0, gt=0, le=100, description="by which both networks' answers are made softer")
    teacher_weight: float = Field(
        0.5, ge=0, le=1, description="share of the loss that goes by the teacher's answers; the rest by the targets"
    )
    teacher_epochs: float | None = Field(
        None, gt=0, description="passes over the training images for the teacher; None: as many as its students"
    )

    @property
    def teacher(self) -> TrainingSettings:
        """See `TrainingSettings`; it sees no validation images, or what its students are scored on would leak."""
        own = {name: getattr(self, name) for name in StandardSettings.model_fields if name != "method"}
        epochs = self.epochs if self.teacher_epochs is None else self.teacher_epochs
        return StandardSettings(**{**own, "epochs": epochs, "images": "train"})


def train_distillation(settings: DistillationSettings, context: TrainingContext, on_step: OnStep) -> Weights:
    """Trains with `context.data.training_indices`; see `methods`.

    Raises:
        ConfigError: without a teacher, or for a task that says nothing of what is learned from one.
    """
    from nas_edge.networks.keras_model import keras_model

    task, given = context.task, context.teacher
    if given is None:
        raise ConfigError("training.method=distillation requires a network that teaches")
    teacher = keras_model(given.network, given.weights, precision=settings.precision)
    share = settings.teacher_weight

    def loss(images: Any, outputs: Any, targets: Any) -> Any:
        import tensorflow as tf

        answers = tf.stop_gradient(tf.cast(teacher(images, training=False), tf.float32))
        taught = task.distillation_loss(outputs, answers, settings.temperature)
        return share * taught + (1.0 - share) * task.loss(outputs, targets, settings)

    return train_with(settings, context, on_step, loss)
