"""What a training method is given, and what it reports. Free of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from nas_edge.data.dataset import Indices
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.tasks.base import NetworkTask, TaskData
from nas_edge.training.settings import TrainingSettings


@dataclass(frozen=True)
class Teacher:
    """A trained network that others learn from.

    Attributes:
        network: of the same inputs and outputs.
        weights: its own.
    """

    network: NetworkSpec
    weights: Weights


@dataclass(frozen=True)
class TrainingContext:
    """What a training method is given.

    Attributes:
        network: what is trained.
        initial: the weights to start from; None draws them.
        task: what the loss is, and the quality.
        data: of the run, see `training_data`; `training_indices` are the images to train with.
        seed: of the run; every purpose has its own stream, see `seeds`.
        teacher: where the settings ask for one.
        validation: images of the data that tell when to stop, where the settings ask for that; not trained with.
    """

    network: NetworkSpec
    initial: Weights | None
    task: NetworkTask
    data: TaskData
    seed: int
    teacher: Teacher | None = None
    validation: Indices | None = None


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
        validation: quality on validation images after this step, where early stopping has it looked at.
    """

    step: int
    steps: int
    loss: float
    quality: float
    learning_rate: float
    validation: float | None = None


# Of images, outputs and targets, tensors: what is made small.
Loss: TypeAlias = Callable[[Any, Any, Any], Any]
OnStep: TypeAlias = Callable[[TrainingStep], None]
