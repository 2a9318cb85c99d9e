"""`standard`: one training with one learning rate schedule, then batch statistics taken anew."""

from __future__ import annotations

from nas_edge.networks.graph import Weights
from nas_edge.training.context import OnStep, TrainingContext
from nas_edge.training.settings import TrainingSettings


class StandardSettings(TrainingSettings):
    """Settings of `standard`."""

    method: str = "standard"


def train_standard(settings: TrainingSettings, context: TrainingContext, on_step: OnStep) -> Weights:
    """Trains with `context.data.training_indices`; see `methods`."""
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.seeds import generator, integer
    from nas_edge.training.regularization import for_training
    from nas_edge.training.trainer import check_finite, recalibrate, train_model

    network, data, seed = context.network, context.data, context.seed
    trained = for_training(network, settings)
    model = keras_model(trained, context.initial, integer(seed, "training"), precision=settings.precision)
    indices = data.training_indices
    if settings.epochs == 0:
        recalibrate(model, data, indices, settings.batch_size)
    else:
        train_model(model, trained, data, indices, generator(seed, "training"), context.task, settings, on_step)
    weights = get_weights(model, network)
    if settings.path_dropout > 0 or settings.precision != "float32":  # statistics are those of what is delivered
        model = keras_model(network, weights)
        recalibrate(model, data, indices, settings.batch_size)
        weights = get_weights(model, network)
    check_finite(weights)
    return weights
