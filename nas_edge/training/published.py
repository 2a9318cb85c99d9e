"""`published-a` and `published-b`: how TuNAS trains what its search found, as settings of `standard`.

    mode    epochs    trained with             compared on            dropout
    A       90        train                    the validation part    none, as below 150 epochs
    B       360       train and validation     the test part          0.15, or 0.25 in networks of the MobileNetV3 kind

A step takes 32 batches of 128 images, each with its own batch statistics: what 32 replicas do at once. Test accuracies
of either are those of the run's test images, which no mode trains with.

Source: TuNAS reference code, `mobile_train_eval.py`.
"""

from __future__ import annotations

from nas_edge.training.settings import BatchesPerStep, DropoutFromEpochs, Epochs, TrainedImages
from nas_edge.training.standard import StandardSettings


class PublishedASettings(StandardSettings):
    """Settings of `published-a`."""

    method: str = "published-a"
    epochs: Epochs = 90
    batches_per_step: BatchesPerStep = 32
    images: TrainedImages = "train"
    dropout_from_epochs: DropoutFromEpochs = 150


class PublishedBSettings(PublishedASettings):
    """Settings of `published-b`."""

    method: str = "published-b"
    epochs: Epochs = 360
    images: TrainedImages = "train+validation"
