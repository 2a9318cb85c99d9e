"""`standard`: one training with one learning rate schedule, then batch statistics taken anew."""

from __future__ import annotations

from nas_edge.networks.graph import Weights
from nas_edge.training.context import Loss, OnStep, TrainingContext
from nas_edge.training.settings import TrainingSettings


class StandardSettings(TrainingSettings):
    """Settings of `standard`."""

    method: str = "standard"


def train_standard(settings: TrainingSettings, context: TrainingContext, on_step: OnStep) -> Weights:
    """Trains with `context.data.training_indices`; see `methods`."""
    return train_with(settings, context, on_step)


def train_with(
    settings: TrainingSettings, context: TrainingContext, on_step: OnStep, loss: Loss | None = None
) -> Weights:
    """The same with any loss.

    Args:
        settings: of the training.
        context: what is trained.
        on_step: called after every step.
        loss: in place of the task's; None for that.
    """
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.seeds import generator, integer
    from nas_edge.training.early_stopping import EarlyStopping
    from nas_edge.training.regularization import for_training
    from nas_edge.training.trainer import check_finite, recalibrate, train_model

    network, data, seed = context.network, context.data, context.seed
    trained = for_training(network, settings)
    model = keras_model(trained, context.initial, integer(seed, "training"), precision=settings.precision)
    indices = data.training_indices
    if settings.epochs == 0:
        recalibrate(model, data, indices, settings.batch_size)
    else:
        stopping = (
            None if settings.early_stopping is None else EarlyStopping(settings.early_stopping, settings, context)
        )
        rng = generator(seed, "training")
        train_model(model, trained, data, indices, rng, context.task, settings, on_step, loss, stopping)
        if stopping is not None:
            check_finite(stopping.best)
            return stopping.best
    weights = get_weights(model, network)
    if settings.path_dropout > 0 or settings.precision != "float32":  # statistics are those of what is delivered
        model = keras_model(network, weights)
        recalibrate(model, data, indices, settings.batch_size)
        weights = get_weights(model, network)
    check_finite(weights)
    return weights
