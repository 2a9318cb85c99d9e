"""Trainings of single networks, each as the run's settings say: what is delivered, and what competes to be."""

from __future__ import annotations

import hashlib
import json

from nas_edge.config import RunConfig
from nas_edge.errors import TrainingError
from nas_edge.networks.graph import Weights
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext
from nas_edge.stages.warm_start import note, warm_started
from nas_edge.training.context import training_data
from nas_edge.training.methods import TrainingContext, TrainingSettings, TrainingStep, train_network


def recipe(config: RunConfig) -> str:
    """Names everything in the settings that decides what comes of a network's training, data and seed apart."""
    training = config.training.model_dump(mode="json")
    settings = {"training": training, "weights": config.export.weights, "init": config.init}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def train(context: RunContext, contender: Contender, settings: TrainingSettings) -> Weights:
    """Trains a network, and shows how far it is.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """
    contender, _ = warm_started(context, contender)
    data, task = training_data(settings, context.required_data), context.network_task
    steps = settings.steps(len(data.training_indices))
    with context.reporter.stage(f"training {contender.name}", steps) as show:

        def on_step(step: TrainingStep) -> None:
            show(step.step, f"loss {step.loss:.3f} {task.metric.name} {task.metric.text(step.quality)}")

        training = TrainingContext(contender.network, contender.initial, task, data, context.config.seed)
        return train_network(settings, training, on_step)


def train_once(context: RunContext, contender: Contender) -> Weights:
    """Trains a network to be delivered, unless that was done before.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """
    name, settings = contender.name, context.config.training
    folder = "winner" if name == "winner" else f"compared/{name.replace(' ', '-')}"

    def trained() -> Weights:
        started, start = warm_started(context, contender)
        note(context, name, start)
        try:
            return train(context, started, settings)
        except TrainingError as error:
            alike = "" if name == "winner" else " (after removing its winner/ and compared/: all are trained alike)"
            raise TrainingError(f"{name}: {error}, for example{alike}: {slower(context)}") from None

    return context.run.weights_once(f"{folder}/weights.npz", trained)


def slower(context: RunContext) -> str:
    """The command that continues a run with trainings of half the learning rate."""
    return f"{context.again} --set training.learning_rate={context.config.training.learning_rate / 2:.2g}"
