"""Optimisers by name. A new one is a function and one line in `OPTIMIZERS`.

TensorFlow is imported when one is made, so that settings can be validated without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from nas_edge.errors import ConfigError

if TYPE_CHECKING:
    from nas_edge.training.settings import OptimizationSettings

# Settings, and the learning rate: a number or a `LearningRateSchedule`, to a `keras.optimizers.Optimizer`.
MakeOptimizer: TypeAlias = "Callable[[OptimizationSettings, Any], Any]"


def _rmsprop(settings: OptimizationSettings, learning_rate: Any) -> Any:
    from nas_edge.training.rmsprop import RMSProp

    return RMSProp(learning_rate, epsilon=settings.epsilon)


def _sgd(settings: OptimizationSettings, learning_rate: Any) -> Any:
    import keras

    return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)


def _adam(settings: OptimizationSettings, learning_rate: Any) -> Any:
    import keras

    return keras.optimizers.Adam(learning_rate)


OPTIMIZERS: Mapping[str, MakeOptimizer] = {"rmsprop": _rmsprop, "sgd": _sgd, "adam": _adam}


def scaled_if_float16(optimizer: Any, precision: str) -> Any:
    """The optimiser, its loss scaled as far as float16 needs, whose gradients otherwise vanish; see `PRECISIONS`."""
    import keras

    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer


def make_optimizer(settings: OptimizationSettings, learning_rate: Any) -> Any:
    """The Keras optimiser that the settings name.

    Args:
        settings: `optimizer` is its name.
        learning_rate: a number or a `LearningRateSchedule`.

    Raises:
        ConfigError: for an unknown name, in settings that were not validated.
    """
    if settings.optimizer not in OPTIMIZERS:
        raise ConfigError(f"unknown optimizer {settings.optimizer!r}; supported: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[settings.optimizer](settings, learning_rate)
