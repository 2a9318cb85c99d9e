"""`standard`: one training with one learning rate schedule, then batch statistics taken anew."""

from __future__ import annotations

from nas_edge.networks.graph import Weights
from nas_edge.training.context import OnStep, TrainingContext
from nas_edge.training.settings import TrainingSettings


class StandardSettings(TrainingSettings):
    """Settings of `standard`."""

    method: str = "standard"


def train_standard(settings: StandardSettings, context: TrainingContext, on_step: OnStep) -> Weights:
    """Trains on training and validation images; see `methods`."""
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.seeds import generator, integer
    from nas_edge.training.trainer import check_finite, train_model

    network, data, seed = context.network, context.data, context.seed
    model = keras_model(network, context.initial, seed=integer(seed, "training"))
    train_model(
        model, network, data, data.training_indices, generator(seed, "training"), context.task, settings, on_step
    )
    weights = get_weights(model, network)
    check_finite(weights)
    return weights
