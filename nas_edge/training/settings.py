"""Settings that every training has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nas_edge.settings import ChoiceSettings, Settings, one_of
from nas_edge.training.optimizers import OPTIMIZERS


class OptimizationSettings(Settings):
    """How weights are trained, in the search or for a single network.

    Source of the defaults: TuNAS reference code, `mobile_train_eval.py`.
    """

    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field(
        next(iter(OPTIMIZERS)), description=f"{', '.join(OPTIMIZERS)}; rmsprop is TensorFlow 1's"
    )
    learning_rate: float = Field(0.165, gt=0, description="peak at a batch of 256; scaled in proportion to the batch")
    epochs: float = Field(90, gt=0, description="passes over the training images; the search goes by steps instead")
    batch_size: int = Field(128, ge=2)
    warmup_fraction: float = Field(0.025, ge=0, lt=1, description="share of the steps in which the rate rises")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="for tasks with classes; the task's loss reads it")
    weight_decay: float = Field(4e-5, ge=0, description="w in w / 2 * sum(kernel^2), part of the loss")
    epsilon: float = Field(1.0, gt=0, description="of rmsprop, inside the root")

    @property
    def peak_learning_rate(self) -> float:
        """The rate at the end of the warm-up, for this batch size."""
        return self.learning_rate * self.batch_size / 256

    def steps(self, images: int) -> int:
        """Steps of a training on that many images."""
        return max(1, int(images * self.epochs / self.batch_size))


class TrainingSettings(OptimizationSettings, ChoiceSettings):
    """The settings of any training method; a method adds its own.

    Attributes:
        method: its name.
    """

    method: str = Field(description="how a single network is trained")
