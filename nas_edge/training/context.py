"""What a training method is given, and what it reports. Free of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.tasks.base import NetworkTask, TaskData
from nas_edge.training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainingContext:
    """What a training method is given.

    Attributes:
        network: what is trained.
        initial: the weights to start from; None draws them.
        task: what the loss is, and the quality.
        data: of the run, see `training_data`; `training_indices` are the images to train with.
        seed: of the run; every purpose has its own stream, see `seeds`.
    """

    network: NetworkSpec
    initial: Weights | None
    task: NetworkTask
    data: TaskData
    seed: int


def training_data(settings: TrainingSettings, data: TaskData) -> TaskData:
    """The data as a training may see it: without validation images, where `settings.images` holds them out."""
    if settings.images == "train+validation":
        return data
    return replace(data, split=replace(data.split, validation=data.split.validation[:0]))


@dataclass(frozen=True)
class TrainingStep:
    """What a training reports after each step.

    Attributes:
        step: steps done, from 1 to `steps`.
        steps: steps of the whole training.
        loss: of this batch, penalty included.
        quality: of this batch, in the task's metric, before the update.
        learning_rate: of this step.
    """

    step: int
    steps: int
    loss: float
    quality: float
    learning_rate: float


OnStep: TypeAlias = Callable[[TrainingStep], None]
