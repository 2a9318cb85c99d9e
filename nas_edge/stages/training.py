"""Trainings of single networks, each as the run's settings say: what is delivered, and what competes to be."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from nas_edge.config import RunConfig
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.runs.stopped_early import EarlyStop, note_early_stop
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext
from nas_edge.stages.warm_start import warm_started
from nas_edge.training.context import Teacher, TrainingContext, TrainingStep, training_data
from nas_edge.training.methods import train_network
from nas_edge.training.settings import TrainingSettings


def recipe(config: RunConfig) -> str:
    """Names everything in the settings that decides what comes of a network's training, data and seed apart."""
    training = config.training.model_dump(mode="json")
    return digest({"training": training, "weights": config.export.weights, "init": config.init})


def digest(settings: Mapping[str, Any]) -> str:
    """A short name of settings, JSON values."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def train(
    context: RunContext,
    contender: Contender,
    settings: TrainingSettings,
    teacher: Teacher | None,
    doing: str = "training",
) -> Weights:
    """Trains a network, and shows how far it is.

    Args:
        context: of the run.
        contender: what is trained.
        settings: how.
        teacher: see `teaching`.
        doing: what this is called to the user.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """
    contender, _ = warm_started(context, contender)
    whole, task = context.required_data, context.network_task
    data = training_data(settings, whole)
    validation = None if settings.early_stopping is None else whole.split.validation
    steps, made, scored = settings.steps(len(data.training_indices)), 0, dict[int, float]()
    with context.reporter.stage(f"{doing} {contender.name}", steps) as show:

        def on_step(step: TrainingStep) -> None:
            nonlocal made
            made = step.step
            if step.validation is not None:
                scored[step.step] = step.validation
            show(step.step, f"loss {step.loss:.3f} {task.metric.name} {task.metric.text(step.quality)}")

        training = TrainingContext(
            contender.network, contender.initial, task, data, context.config.seed, teacher, validation
        )
        weights = train_network(settings, training, on_step)
    if scored:
        best = max(scored, key=lambda step: scored[step])
        stop = EarlyStop(made, steps, best, scored[best])
        context.reporter.say(f"{doing} {contender.name} {stop}: {task.metric.name} {task.metric.text(stop.quality)}")
        note_early_stop(context.run, contender.name, stop)
    return weights


def slower(context: RunContext) -> str:
    """The command that continues a run with trainings of half the learning rate."""
    return f"{context.again} --set training.learning_rate={context.config.training.learning_rate / 2:.2g}"


def validation_quality(context: RunContext, network: NetworkSpec, weights: Weights) -> float | None:
    """Quality of a trained network on all validation data; None when what it answers is not numbers."""
    from nas_edge.networks.keras_model import keras_model
    from nas_edge.training.trainer import evaluate

    data, task = context.required_data, context.network_task
    batches = data.in_order(data.split.validation, context.config.training.batch_size)
    quality = evaluate(keras_model(network, weights), batches, task)
    return quality if math.isfinite(quality) else None
