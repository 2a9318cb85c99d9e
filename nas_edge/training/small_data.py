"""`small-data` and `fine-tuning`: trainings for a few thousand images, as settings of `standard`.

    small-data     from the start: 120 epochs of small batches, a high rate, and a moving average of the weights
    fine-tuning    from weights that know images already (`--init`): 30 epochs at a quarter of that rate, so that they
                   are not unlearned at first

Both deliver the moving average over about 50 steps: with few images, the last steps of a training differ much. Rate and
batch of `small-data` are those of the preset `laptop`. What of an image is changed is a setting of the data.
"""

from __future__ import annotations

from pydantic import Field

from nas_edge.training.settings import Epochs
from nas_edge.training.standard import StandardSettings


class SmallDataSettings(StandardSettings):
    """Settings of `small-data`."""

    method: str = "small-data"
    epochs: Epochs = 120
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(0.4, gt=0, description="peak at a batch of 256; scaled in proportion to the batch")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    ema_decay: float | None = Field(
        0.98, gt=0, lt=1, description="of a moving average of the weights, delivered in their place; None: none"
    )


class FineTuningSettings(SmallDataSettings):
    """Settings of `fine-tuning`."""

    method: str = "fine-tuning"
    epochs: Epochs = 30
    learning_rate: float = Field(0.1, gt=0, description="peak at a batch of 256; scaled in proportion to the batch")
