"""Early stopping: after each epoch the network is scored as it would be delivered, and the best weights are kept.

Scored is a second model, with the weights as they are or their moving average, and batch statistics taken anew: what is
scored is what is kept, and the training does not notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas_edge.errors import ConfigError
from nas_edge.networks.graph import Weights
from nas_edge.networks.keras_model import get_weights, keras_model
from nas_edge.training.context import TrainingContext
from nas_edge.training.settings import TrainingSettings
from nas_edge.training.trainer import evaluator, recalibrate


class EarlyStopping:
    """Decides after each epoch whether a training goes on.

    Args:
        patience: epochs without a better quality after which it ends.
        settings: of the training.
        context: what is trained; its `validation` images are scored.

    Attributes:
        best: weights with the best quality, the first of equals; empty before the first epoch has ended.

    Raises:
        ConfigError: without validation images.
    """

    def __init__(self, patience: int, settings: TrainingSettings, context: TrainingContext) -> None:
        if context.validation is None or len(context.validation) == 0:
            raise ConfigError("training.early_stopping requires validation images, which the data do not have")
        self._patience, self._batch_size, self._context = patience, settings.batch_size, context
        self._validation = context.validation
        self._model = keras_model(context.network)
        self._evaluate = evaluator(self._model, context.task)
        self._best_quality, self._waited = -float("inf"), 0
        self.best: Weights = {}

    def score(self, values: Sequence[Any]) -> float:
        """The quality of the weights that are trained, in the model's order."""
        data = self._context.data
        for variable, value in zip(self._model.trainable_variables, values, strict=True):
            variable.assign(value)
        recalibrate(self._model, data, data.training_indices, self._batch_size)
        quality = self._evaluate(data.in_order(self._validation, self._batch_size))
        if quality > self._best_quality or not self.best:
            self._best_quality, self._waited = quality, 0
            self.best = get_weights(self._model, self._context.network)
        else:
            self._waited += 1
        return quality

    @property
    def ends(self) -> bool:
        """Whether it has waited long enough."""
        return self._waited >= self._patience
