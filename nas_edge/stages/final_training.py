"""The training of what is delivered, and of what it is compared with: each once."""

from __future__ import annotations

from nas_edge.errors import TrainingError
from nas_edge.networks.graph import Weights
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext
from nas_edge.stages.teaching import teacher_of
from nas_edge.stages.training import slower, train
from nas_edge.stages.warm_start import note, warm_started


def train_once(context: RunContext, contender: Contender) -> Weights:
    """Trains a network to be delivered, unless that was done before.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """
    name = contender.name
    folder = "winner" if name == "winner" else f"compared/{name.replace(' ', '-')}"

    def trained() -> Weights:
        teacher = teacher_of(context)
        started, start = warm_started(context, contender)
        note(context, name, start)
        try:
            return train(context, started, context.config.training, teacher)
        except TrainingError as error:
            alike = "" if name == "winner" else " (after removing its winner/ and compared/: all are trained alike)"
            raise TrainingError(f"{name}: {error}, for example{alike}: {slower(context)}") from None

    return context.run.weights_once(f"{folder}/weights.npz", trained)
