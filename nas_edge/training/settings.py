"""Settings that every training has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from nas_edge.settings import ChoiceSettings, Settings, one_of
from nas_edge.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from typing_extensions import Self


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
    def batches_in_step(self) -> int:
        """Batches whose gradients are averaged in one step."""
        return 1

    @property
    def computed_in(self) -> str:
        """What a network computes with while it trains, see `TrainingSettings.precision`."""
        return "float32"

    @property
    def averaged_with(self) -> float | None:
        """See `TrainingSettings.ema_decay`."""
        return None

    @property
    def peak_learning_rate(self) -> float:
        """The rate at the end of the warm-up, for as many images as a step takes."""
        return self.learning_rate * self.batch_size * self.batches_in_step / 256

    def steps(self, images: int) -> int:
        """Steps of a training on that many images; 0 for no epochs, and else at least 1."""
        if self.epochs == 0:
            return 0
        return max(1, int(images * self.epochs / (self.batch_size * self.batches_in_step)))


# What trainings of other defaults have, too.
Epochs: TypeAlias = Annotated[
    float,
    Field(ge=0, description="passes over the training images; 0 delivers shared weights (export.weights) as they are"),
]
BatchesPerStep: TypeAlias = Annotated[
    int, Field(ge=1, le=1024, description="batches whose gradients are averaged; each has its own batch statistics")
]
TrainedImages: TypeAlias = Annotated[
    Literal["train", "train+validation"],
    Field(description="what a network trains with once its architecture is chosen"),
]
DropoutFromEpochs: TypeAlias = Annotated[
    float,
    Field(
        ge=0, description="trainings of fewer epochs go without the dropout that a network has before its classifier"
    ),
]


class TrainingSettings(OptimizationSettings, ChoiceSettings):
    """The settings of any training method; a method adds its own.

    Attributes:
        method: its name.
    """

    method: str = Field(description="how a single network is trained")
    epochs: Epochs = 90
    batches_per_step: BatchesPerStep = 1
    images: TrainedImages = "train+validation"
    dropout_from_epochs: DropoutFromEpochs = 0
    path_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability of leaving out a residual layer in a training step"
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="what a network computes with while it trains; weights stay float32, mixed_float16 scales the loss",
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of a moving average of the weights, delivered in their place; None: none",
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        description="epochs without a better quality on validation images after which a training ends with its best "
        "weights; requires images=train",
    )

    def to_compare(self, share: float) -> Self:
        """The settings that networks are compared with before one of them is trained as a whole.

        Args:
            share: of the epochs. The schedule is that of a whole training of so many.

        Returns:
            Those of a training without validation images, which then tell the networks apart: none stops early by them.
        """
        return self.model_copy(update={"epochs": share * self.epochs, "images": "train", "early_stopping": None})

    @property
    def batches_in_step(self) -> int:
        """See `OptimizationSettings`."""
        return self.batches_per_step

    @property
    def computed_in(self) -> str:
        """See `OptimizationSettings`."""
        return self.precision

    @property
    def averaged_with(self) -> float | None:
        """See `OptimizationSettings`."""
        return self.ema_decay

    @property
    def teacher(self) -> TrainingSettings | None:
        """How the network that teaches is trained; None for a method without one."""
        return None

    @model_validator(mode="after")
    def _holds_images_out(self) -> Self:
        if self.early_stopping is not None and self.images != "train":
            raise ValueError(
                "early_stopping goes by images that are not trained with; add training.images=train, or leave it out"
            )
        return self
