"""Quality of an architecture after a short training of its own; what MnasNet calls a proxy task (arXiv:1807.11626)."""

from __future__ import annotations

import math

from pydantic import Field

from nas_edge.errors import ConfigError, DataError, TrainingError
from nas_edge.latency.source import Candidate
from nas_edge.quality.source import Quality, QualityContext, QualitySettings, QualitySource
from nas_edge.tasks.base import NetworkTask
from nas_edge.training.settings import OptimizationSettings


class ShortTrainingSettings(QualitySettings):
    """Settings of `short-training`."""

    source: str = "short-training"
    weights: OptimizationSettings = Field(
        OptimizationSettings(epochs=5, warmup_fraction=0.1), description="how each architecture is trained"
    )

    @property
    def origin(self) -> str:
        """See `QualitySettings`."""
        return f"after {self.weights.epochs:g} epochs of training"


class ShortTraining(QualitySource):
    """Trains each architecture from scratch and scores it on the validation data.

    The training of an architecture depends on the run's seed and what decides the network alone, so it may be repeated
    at any time.

    Args:
        settings: of the trainings.
        context: of the run.

    Raises:
        ConfigError: for a run without networks or data.
    """

    def __init__(self, settings: ShortTrainingSettings, context: QualityContext) -> None:
        if context.data is None or not isinstance(context.task, NetworkTask):
            raise ConfigError(
                f"{context.space.name} describes no networks to train",
                fix="name where qualities come from, for example --quality-column NAME",
            )
        self._settings, self._seed, self._space = settings.weights, context.seed, context.space
        self._task, self._data = context.task, context.data
        self._evaluation_batch_size = context.evaluation_batch_size

    @property
    def name(self) -> str:
        """See `QualitySource`."""
        return f"{self._settings.epochs:g} epochs of training"

    def evaluate(self, candidate: Candidate) -> Quality:
        """See `QualitySource`; one that diverges has no quality."""
        import keras

        from nas_edge.networks.keras_model import keras_model
        from nas_edge.seeds import generator, integer
        from nas_edge.training.trainer import evaluate, train_model

        data, task, seed = self._data, self._task, self._seed
        train = data.split.train
        network, architecture = candidate.network, candidate.architecture
        purpose = f"short training {architecture and self._space.of_network(architecture)}"
        keras.backend.clear_session()  # or a search would keep the graph of every architecture
        model = keras_model(network, seed=integer(seed, purpose))
        try:
            train_model(model, network, data, train, generator(seed, purpose), task, self._settings)
        except DataError:
            raise
        except TrainingError as error:
            return Quality(None, str(error))
        quality = evaluate(model, data.in_order(data.split.validation, self._evaluation_batch_size), task)
        if not math.isfinite(quality):
            return Quality(None, "the training diverged: what the network answers is not numbers")
        return Quality(quality)
