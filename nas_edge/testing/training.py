"""What a training method promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from nas_edge.errors import StoppedError
from nas_edge.networks.graph import Weights, without_ranges
from nas_edge.testing.expect import expect, expect_no_error
from nas_edge.testing.trainings import bright_or_dark, small_network
from nas_edge.training.context import OnStep, Teacher, TrainingContext, TrainingStep
from nas_edge.training.methods import train_network
from nas_edge.training.settings import TrainingSettings

TrainingMethod: TypeAlias = Callable[..., Weights]

# Enough for two classes that differ in brightness; about half are right by chance.
_LEARNED = 0.75


class _StopError(StoppedError):
    """Raised in the middle of a training."""


def check_training_method(method: TrainingMethod, settings: TrainingSettings) -> None:
    """Checks a training method; needs TensorFlow, and takes as long as five trainings.

    It trains a tiny network to tell bright images from dark ones, 96 of them.

    Args:
        method: what the table's entry names.
        settings: for a training of that size: some 10 epochs, of small batches.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.training.trainer import evaluate

    network, (task, data) = small_network(), bright_or_dark()
    context = TrainingContext(network, None, task, data, seed=7)
    if settings.teacher is not None:
        taught = train_network(settings.teacher, context, lambda _: None)
        context = replace(context, teacher=Teacher(network, taught))
    expected = settings.steps(len(data.training_indices))
    expect(isinstance(expected, int) and expected > 1, f"`settings.steps` must be a number above 1, is {expected!r}")

    reports: list[TrainingStep] = []
    weights = _trained(method, settings, context, reports.append)
    _check_reports(reports, expected)
    shapes = _shapes(get_weights(keras_model(network), network))
    expect(_shapes(weights) == shapes, "the weights must be those of the network, by layer: names or shapes differ")
    expect(
        all(np.isfinite(array).all() for group in weights.values() for array in group),
        "the weights hold values that are not numbers; a training that diverges must raise TrainingError",
    )
    quality = evaluate(keras_model(network, weights), data.in_order(data.split.test, 32), task)
    expect(
        quality >= _LEARNED,
        f"after the training {quality:.0%} of images never seen are told apart, bright from dark; expected "
        f"{_LEARNED:.0%} or more: more epochs, if the method is right",
    )
    expect(
        _same(weights, _trained(method, settings, context, lambda _: None)),
        "trained again in the same context, the weights are others: a run could not be repeated",
    )
    _check_start(method, settings, context, weights)
    _check_stop(method, settings, context)


def _trained(method: TrainingMethod, settings: TrainingSettings, context: TrainingContext, on_step: OnStep) -> Weights:
    with expect_no_error("training"):
        weights = method(settings, context, on_step)
    expect(isinstance(weights, dict), f"a training must give the weights by layer, received {type(weights).__name__}")
    return weights


def _check_reports(reports: list[TrainingStep], expected: int) -> None:
    steps = [report.step for report in reports]
    expect(
        steps == list(range(1, expected + 1)),
        f"`on_step` must be told of steps 1 to {expected}, which is `settings.steps`; it was told of {len(steps)}, "
        f"from {steps[:1]} to {steps[-1:]}",
    )
    expect(all(report.steps == expected for report in reports), f"every report must name all {expected} steps")
    expect(all(math.isfinite(report.loss) for report in reports), "a loss is not a number")


def _check_start(
    method: TrainingMethod,
    settings: TrainingSettings,
    context: TrainingContext,
    initial: Weights,
) -> None:
    given = {name: tuple(array.copy() for array in group) for name, group in initial.items()}
    weights = _trained(method, settings, replace(context, initial=initial), lambda _: None)
    expect(_same(given, initial), "the training changed the weights it was to start from")
    fresh = _trained(method, settings, context, lambda _: None)
    expect(not _same(weights, fresh), "a training from given weights ends like one from drawn ones: they are not used")


def _check_stop(method: TrainingMethod, settings: TrainingSettings, context: TrainingContext) -> None:
    done: list[int] = []

    def stop(report: TrainingStep) -> None:
        done.append(report.step)
        if report.step == 2:
            raise _StopError("enough")

    try:
        method(settings, context, stop)
    except _StopError:
        pass
    except Exception as error:
        raise AssertionError(f"what `on_step` raises must end the training as it is; received {error!r}") from error
    else:
        raise AssertionError("what `on_step` raises must end the training; it went on")
    expect(done == [1, 2], f"stopped at step 2, the training reported steps {done}")


def _shapes(weights: Weights) -> dict[str, list[tuple[int, ...]]]:
    return {name: [array.shape for array in group] for name, group in without_ranges(weights).items()}


def _same(first: Weights, second: Weights) -> bool:
    return _shapes(first) == _shapes(second) and all(
        np.array_equal(one, other) for name in first for one, other in zip(first[name], second[name], strict=True)
    )
