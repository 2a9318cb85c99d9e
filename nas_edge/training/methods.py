"""How a single network is trained, by name.

    standard       one training with one learning rate schedule, see `standard.py`
    published-a    the same with TuNAS's settings for 90 epochs, see `published.py`
    published-b    the same with TuNAS's settings for 360 epochs
    distillation   the same, learning from the largest network of the space as well, see `distillation.py`
    quantization-aware    the last share of the training rounds as int8 does, see `quantization_aware.py`

A method is a function of its settings, a `TrainingContext` and `on_step`:

    def train(settings: MySettings, context: TrainingContext, on_step: OnStep) -> Weights: ...

It reports every step to `on_step`, as many as `settings.steps(images)` says; what `on_step` raises ends the training.
Trained again in the same context, the weights are the same. A training that diverges raises `TrainingError`.

A new method of this package is one file with its settings and that function, and one line in `TRAINING_METHODS`. Other
packages add theirs by entry points of the group `nas_edge.training_methods`. `nas_edge.testing.check_training_method`
checks what a method promises; see `docs/own-training-method.md`.
"""

from __future__ import annotations

from typing import Any

from nas_edge.networks.graph import Weights
from nas_edge.registry import Entry, Registry
from nas_edge.training.context import OnStep, Teacher, TrainingContext, TrainingStep
from nas_edge.training.distillation import DistillationSettings, train_distillation
from nas_edge.training.published import PublishedASettings, PublishedBSettings
from nas_edge.training.quantization_aware import QuantizationAwareSettings, train_quantization_aware
from nas_edge.training.settings import TrainingSettings
from nas_edge.training.standard import StandardSettings, train_standard

TRAINING_METHODS: Registry[Any] = Registry(
    "method",
    "training method",
    "nas_edge.training_methods",
    {
        "standard": Entry(StandardSettings, train_standard, "one training with one learning rate schedule"),
        "distillation": Entry(DistillationSettings, train_distillation, "taught by the largest network of the space"),
        "published-a": Entry(PublishedASettings, train_standard, "as published: 90 epochs, without validation images"),
        "published-b": Entry(PublishedBSettings, train_standard, "as published: 360 epochs, with validation images"),
        "quantization-aware": Entry(
            QuantizationAwareSettings, train_quantization_aware, "the last share of it with the roundings of int8"
        ),
    },
    made=dict,
)


def train_network(settings: TrainingSettings, context: TrainingContext, on_step: OnStep) -> Weights:
    """Trains a network with the method that the settings name.

    Args:
        settings: of the method.
        context: what is trained, for what, with which data.
        on_step: called after every step; what it raises ends the training.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """
    weights: Weights = TRAINING_METHODS.make(settings, context, on_step)
    return weights


__all__ = [
    "TRAINING_METHODS",
    "OnStep",
    "Teacher",
    "TrainingContext",
    "TrainingSettings",
    "TrainingStep",
    "train_network",
]
