"""The suite for training methods notices every promise that is broken, and the package's own methods pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from nas_edge.networks.graph import Weights
from nas_edge.testing import check_training_method
from nas_edge.training.context import OnStep, TrainingContext, TrainingStep
from nas_edge.training.methods import TRAINING_METHODS
from nas_edge.training.standard import StandardSettings, train_standard

NUMBERS = count()
SHORT = {"optimizer": "adam", "learning_rate": 0.2, "batch_size": 32, "epochs": 10, "batches_per_step": 1}
SETTINGS = StandardSettings(**SHORT)


@pytest.mark.parametrize("name", TRAINING_METHODS.entries)
def test_the_packages_own_methods_pass(name: str) -> None:
    settings: Any = TRAINING_METHODS.settings({"method": name, **SHORT})
    check_training_method(TRAINING_METHODS.find(name).make, settings)


# Each broken method is the right one but for one thing, so what that does is recorded, by seed and initial weights.
RECORDED: dict[tuple[int, bytes], tuple[Weights, list[TrainingStep]]] = {}


def train(context: TrainingContext, on_step: OnStep = lambda _: None) -> Weights:
    """What `train_standard` does in this context."""
    start = b"".join(array.tobytes() for group in (context.initial or {}).values() for array in group)
    if (context.seed, start) not in RECORDED:
        steps: list[TrainingStep] = []
        RECORDED[context.seed, start] = train_standard(SETTINGS, context, steps.append), steps
    weights, steps = RECORDED[context.seed, start]
    for step in steps:
        on_step(step)
    return {name: tuple(array.copy() for array in group) for name, group in weights.items()}


def silent(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    return train(context)


def miscounted(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    return train(context, lambda step: on_step(replace(step, steps=3)))


def wrong_loss(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    return train(context, lambda step: on_step(replace(step, loss=float("nan"))))


def incomplete(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    return dict(list(train(context, on_step).items())[1:])


def not_numbers(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    return {name: tuple(array * np.nan for array in group) for name, group in train(context, on_step).items()}


def untrained(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    weights = train(context, on_step)
    return {name: tuple(np.zeros_like(array) for array in group) for name, group in weights.items()}


def differing(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    return train(replace(context, seed=next(NUMBERS)), on_step)


def from_scratch(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    return train(replace(context, initial=None), on_step)


def in_place(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    weights = train(context, on_step)
    for group in (context.initial or {}).values():
        for array in group:
            array += 1
    return weights


def unstoppable(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    def go_on(step: TrainingStep) -> None:
        with suppress(Exception):
            on_step(step)

    return train(context, go_on)


def translating(settings: Any, context: TrainingContext, on_step: OnStep) -> Weights:
    try:
        return train(context, on_step)
    except Exception as error:
        raise ValueError("translated") from error


BROKEN: list[tuple[Callable[..., Any], str]] = [
    (lambda *_: 1 / 0, "training: ZeroDivisionError"),
    (lambda *_: [], "the weights by layer, received list"),
    (silent, "must be told of steps 1 to 30, .* told of 0"),
    (miscounted, "every report must name all 30 steps"),
    (wrong_loss, "a loss is not a number"),
    (incomplete, "names or shapes differ"),
    (not_numbers, "values that are not numbers"),
    (untrained, "are told apart, bright from dark"),
    (differing, "the weights are others"),
    (from_scratch, "they are not used"),
    (in_place, "changed the weights it was to start from"),
    (unstoppable, "must end the training; it went on"),
    (translating, r"received ValueError\('translated'\)"),
]


@pytest.mark.parametrize(("broken", "promise"), BROKEN)
def test_a_broken_promise_is_named(broken: Callable[..., Any], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_training_method(broken, SETTINGS)
