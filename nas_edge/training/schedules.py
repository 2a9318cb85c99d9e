"""Learning rate over the steps of a training: linear warm-up from zero, then half a cosine down to zero."""

from __future__ import annotations

import math
from typing import Any

import keras


def cosine_with_warmup(step: float, peak: float, steps: int, warmup_steps: int = 0) -> float:
    """The learning rate of one step.

    Args:
        step: counted from 0; past `steps` the rate stays zero.
        peak: the highest rate, reached at step `warmup_steps`.
        steps: steps of the whole training.
        warmup_steps: steps of the linear rise from zero; 0 starts at the peak.

    Returns:
        `peak * step / warmup_steps`, then `peak / 2 * (1 + cos(pi * (step - warmup) / (steps - warmup)))`.

    Source: Loshchilov and Hutter, 2017 (arXiv:1608.03983), with the warm-up of the TuNAS reference code.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return peak / 2 * (1 + math.cos(math.pi * progress))


@keras.saving.register_keras_serializable(package="nas_edge")
class CosineWithWarmup(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc] # Keras ships no types.
    """`cosine_with_warmup` as a Keras schedule, for use inside a compiled step. Arguments are those of the function."""

    def __init__(self, peak: float, steps: int, warmup_steps: int = 0) -> None:
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step, as a tensor."""
        step = keras.ops.cast(step, "float32")
        rising = self.peak * step / max(1, self.warmup_steps)
        progress = keras.ops.minimum(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        falling = self.peak / 2 * (1 + keras.ops.cos(math.pi * progress))
        return keras.ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="nas_edge")
class PowerOfCosine(CosineWithWarmup):
    """`CosineWithWarmup` whose fall, as a share of the peak, is taken to a power, which may change from step to step.

    Attributes:
        power: a variable; 1 is the cosine, more falls sooner, less later.
    """

    def __init__(self, peak: float, steps: int, warmup_steps: int = 0) -> None:
        super().__init__(peak, steps, warmup_steps)
        self.power = keras.Variable(1.0, dtype="float32", trainable=False, name="power_of_cosine")

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step, as a tensor."""
        rate = super().__call__(step)
        falling = self.peak * keras.ops.maximum(rate / self.peak, 0.0) ** self.power
        return keras.ops.where(keras.ops.cast(step, "float32") < self.warmup_steps, rate, falling)
