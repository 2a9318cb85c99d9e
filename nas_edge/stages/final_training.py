"""The training of what is delivered, and of what it is compared with: each once."""

from __future__ import annotations

from dataclasses import replace

from nas_edge.errors import TrainingError
from nas_edge.networks.graph import Weights
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext
from nas_edge.stages.quantizing import aware_settings
from nas_edge.stages.teaching import teacher_of
from nas_edge.stages.training import slower, train
from nas_edge.stages.warm_start import note, warm_started
from nas_edge.training.settings import TrainingSettings


def train_once(context: RunContext, contender: Contender) -> Weights:
    """Trains a network to be delivered, unless that was done before.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """

    def trained() -> Weights:
        started, start = warm_started(context, contender)
        note(context, contender.name, start)
        return _trained(context, started, context.config.training)

    return context.run.weights_once(f"{folder_of(contender)}/weights.npz", trained)


def tune_once(context: RunContext, contender: Contender, weights: Weights) -> Weights:
    """Trains a network on with the roundings of int8, unless that was done before.

    Args:
        context: of the run.
        contender: the network.
        weights: as `train_once` gave them.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """

    def tuned() -> Weights:
        return _trained(context, replace(contender, initial=weights), aware_settings(context.config), "tuning")

    return context.run.weights_once(f"{folder_of(contender)}/aware.npz", tuned)


def folder_of(contender: Contender) -> str:
    """Where a run keeps the weights of a network."""
    return "winner" if contender.name == "winner" else f"compared/{contender.name.replace(' ', '-')}"


def _trained(context: RunContext, contender: Contender, settings: TrainingSettings, doing: str = "training") -> Weights:
    name = contender.name
    try:
        return train(context, contender, settings, teacher_of(context), doing)
    except TrainingError as error:
        alike = "" if name == "winner" else " (after removing its winner/ and compared/: all are trained alike)"
        raise TrainingError(f"{name}: {error}, for example{alike}: {slower(context)}") from None
