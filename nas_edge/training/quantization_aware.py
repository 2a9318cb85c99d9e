"""`quantization-aware`: the last share of the training computes with the roundings of the int8 file.

A float training comes first, unless the share is all of it: then the given weights are tuned. The ranges of activations
that were learned stay with the weights, see `networks.graph.with_ranges`, and go into the int8 file.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from pydantic import Field

from nas_edge.networks.graph import Weights, with_ranges
from nas_edge.training.context import OnStep, TrainingContext
from nas_edge.training.settings import TrainingSettings
from nas_edge.training.standard import StandardSettings, train_standard

# Images that ranges of activations start from.
OBSERVED_IMAGES = 256


class QuantizationAwareSettings(StandardSettings):
    """Settings of `quantization-aware`."""

    method: str = "quantization-aware"
    aware_share: float = Field(0.2, gt=0, le=1, description="share of the steps that compute with int8's roundings")
    aware_rate: float = Field(0.1, gt=0, description="the learning rate of these steps, as a share of learning_rate")


def tuning_settings(settings: TrainingSettings, share: float, rate: float) -> QuantizationAwareSettings:
    """Settings that only tune: of weights that were trained with other settings.

    Args:
        settings: that trained the weights.
        share: of that training's epochs.
        rate: of that training's learning rate.
    """
    common = {name: getattr(settings, name) for name in TrainingSettings.model_fields if name != "method"}
    return QuantizationAwareSettings(
        **{**common, "epochs": settings.epochs * share, "aware_share": 1.0, "aware_rate": rate}
    )


def train_quantization_aware(settings: QuantizationAwareSettings, context: TrainingContext, on_step: OnStep) -> Weights:
    """Trains, then tunes with the roundings; see `methods`. The weights keep the ranges."""
    from nas_edge.networks.fake_quant import fake_quant_model, learned, observe_ranges
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.seeds import generator, integer
    from nas_edge.training.batches import mixed
    from nas_edge.training.trainer import check_finite, regularized_layers, train

    network, data, indices = context.network, context.data, context.data.training_indices
    steps = settings.steps(len(indices))
    aware = round(steps * settings.aware_share) if steps == 0 else max(1, round(steps * settings.aware_share))
    if aware < steps or steps == 0:
        first = _float_settings(settings, steps - aware, len(indices))
        weights = train_standard(first, context, lambda step: on_step(replace(step, steps=steps)))
    elif context.initial is None:
        weights = get_weights(keras_model(network, None, integer(context.seed, "training")), network)
    else:
        weights = context.initial
    model = fake_quant_model(network, weights)
    observed = mixed(indices)[:OBSERVED_IMAGES]
    observe_ranges(model, (images for images, _ in data.in_order(observed, settings.batch_size)))
    if aware:
        tuned = settings.model_copy(
            update={"learning_rate": settings.learning_rate * settings.aware_rate, "precision": "float32"}
        )
        with closing(
            data.shuffled(indices, settings.batch_size, generator(context.seed, "quantization-aware training"))
        ) as batches:
            train(
                model,
                batches,
                aware,
                context.task,
                tuned,
                regularized_layers(network),
                lambda step: on_step(replace(step, step=steps - aware + step.step, steps=steps)),
            )
    weights, ranges = learned(model, network)
    weights = with_ranges(weights, ranges)
    check_finite(weights)
    return weights


def _float_settings(settings: QuantizationAwareSettings, steps: int, images: int) -> StandardSettings:
    """Of the float training that takes so many steps."""
    common = {name: getattr(settings, name) for name in StandardSettings.model_fields if name != "method"}
    per_step = settings.batch_size * settings.batches_in_step
    # Half a step more, so that rounding does not take one away.
    return StandardSettings(**{**common, "epochs": (steps + 0.5) * per_step / images if steps else 0})
