"""What a task promises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from nas_edge.data.settings import DataSettings
from nas_edge.tasks.base import Array, BundleSection, Metric, NetworkTask, Task, TaskData
from nas_edge.testing.expect import expect, expect_no_error
from nas_edge.training.settings import OptimizationSettings

# How far the loss is followed downhill, and how fast.
_STEPS, _RATE = 50, 0.5
_EXAMPLES = 32


def check_task(make_task: Callable[[], Task], data: DataSettings | None = None, input_size: int = 16) -> None:
    """Checks a task; takes seconds, and TensorFlow if networks are trained for it.

    Args:
        make_task: makes it; called twice.
        data: what it can load; the built-in digits by default.
        input_size: to which images are brought.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    with expect_no_error("making the task"):
        task, again = make_task(), make_task()
    _check_metric(task.metric)
    if not isinstance(task, NetworkTask):
        expect(not task.delivers, "a task that delivers networks must be a NetworkTask")
        return
    settings = data or DataSettings(source="digits")
    with expect_no_error("loading the data"):
        loaded, reloaded = task.load(settings, input_size, 3), again.load(settings, input_size, 3)
    expect(isinstance(loaded, TaskData), f"`load` must give TaskData, received {type(loaded).__name__}")
    assert isinstance(loaded, TaskData)
    assert isinstance(reloaded, TaskData)
    _check_split(loaded, reloaded)
    expect(bool(task.describe(settings, loaded)), "`describe` says nothing")
    count = task.outputs(loaded)
    expect(isinstance(count, int) and count > 0, f"`outputs` must be a positive number, received {count!r}")
    inputs, targets = loaded.arrays(loaded.split.train[:_EXAMPLES])
    _check_targets(task, targets)
    with expect_no_error("saying what a bundle tells"):
        section = task.bundle_section(loaded)
    _check_section(section)
    start = np.random.default_rng(0).normal(size=(len(inputs), *section.output_shape)).astype(np.float32)
    _check_quality(task, start, targets)
    _check_example_scores(task, start, targets)
    _check_same_answer(task, start)
    _check_loss(task, start, targets)
    _check_distillation(task, start)


def _check_metric(metric: Metric) -> None:
    expect(isinstance(metric, Metric), f"`metric` must be a Metric, received {type(metric).__name__}")
    expect(bool(metric.name), "the metric has no name")
    with expect_no_error(f"writing a value as {metric.form!r}"):
        metric.text(0.5)


def _check_split(data: TaskData, again: TaskData) -> None:
    for name in ("train", "validation", "test"):
        part, same = getattr(data.split, name), getattr(again.split, name)
        expect(len(part) > 0, f"the {name} part of the data is empty")
        expect(np.array_equal(part, same), f"loaded twice with one seed, the {name} part holds other images")
    parts = data.split
    indices = np.concatenate([parts.train, parts.validation, parts.test])
    expect(len(set(indices.tolist())) == len(indices), "an image is in two parts of the split")


def _check_targets(task: NetworkTask, targets: Array) -> None:
    shape = task.targets.shape
    fits = targets.ndim == 1 + len(shape) and all(
        known in (None, size) for known, size in zip(shape, targets.shape[1:], strict=True)
    )
    expect(fits, f"targets must have the shape [n, {', '.join(map(str, shape))}], received {list(targets.shape)}")
    with expect_no_error(f"`targets.dtype` {task.targets.dtype!r}"):
        dtype = np.dtype(task.targets.dtype)
    expect(
        bool(np.array_equal(targets.astype(dtype), targets)),
        f"targets of type {targets.dtype} do not survive as {dtype}",
    )


def _check_section(section: BundleSection) -> None:
    for name in ("title", "says", "answer", "output"):
        expect(bool(getattr(section, name)), f"the bundle's section says nothing as `{name}`")
    with expect_no_error("compiling the bundle's snippet"):
        compile(section.snippet, "snippet", "exec")
    with expect_no_error("writing the bundle's part of the manifest"):
        json.dumps(section.manifest, allow_nan=False)
    for name, content in section.files.items():
        expect(bool(re.fullmatch(r"[\w-][\w.-]*", name)), f"a bundle's file must have a plain name, received {name!r}")
        expect(isinstance(content, bytes), f"the bundle's {name} must be bytes, received {type(content).__name__}")


def _check_quality(task: NetworkTask, outputs: Array, targets: Array) -> None:
    with expect_no_error("scoring outputs"):
        whole = task.statistics(outputs, targets)
        first, second = task.statistics(outputs[:5], targets[:5]), task.statistics(outputs[5:], targets[5:])
    if type(task).join is NetworkTask.join:
        expect(
            whole.dtype == np.float64 and whole.ndim == 1,
            f"`statistics` must be float64 [k], received {whole.dtype} {list(whole.shape)}",
        )
    else:
        expect(
            not task.bootstraps or type(task).drawn_again is not NetworkTask.drawn_again,
            "a task that `bootstraps` must have statistics that are sums, or say in `drawn_again` what to do with them",
        )
    quality, joined = task.quality(whole), task.join([first, second])
    expect(
        np.allclose(joined, whole) and math.isclose(task.quality(joined), quality),
        "the statistics of two batches do not add up to those of both together",
    )
    if task.bootstraps:
        _check_drawn_again(task, outputs, targets, quality)
    metric = task.metric
    expect(
        isinstance(quality, float) and math.isfinite(quality) and metric.allows(quality),
        f"the quality must be a number within {metric.bounds}, received {quality!r}",
    )
    interval = metric.interval(quality, len(outputs))
    if interval is not None:
        low, high = interval
        expect(low <= quality <= high, f"the 95% interval of {quality} is {low} to {high}, which does not contain it")


def _check_drawn_again(task: NetworkTask, outputs: Array, targets: Array, quality: float) -> None:
    each = [task.statistics(outputs[i : i + 1], targets[i : i + 1]) for i in range(len(outputs))]
    with expect_no_error("drawing examples again"):
        drawn = task.drawn_again(each)
        once, twice = (drawn(np.full(len(outputs), times)) for times in (1, 2))
    expect(
        math.isclose(once, quality) and math.isclose(twice, quality),
        f"examples that all count once have the metric {once} by `drawn_again`, all twice {twice}, expected {quality}",
    )


def _check_example_scores(task: NetworkTask, outputs: Array, targets: Array) -> None:
    test, scores = task.metric.paired_test, _example_scores(task, outputs, targets)
    expect(
        (test is None) == (scores is None),
        "a metric with a paired test, and only such a one, goes with `example_scores`",
    )
    if test is None or scores is None:
        return
    expect(bool(test.name), "the metric's paired test has no name")
    expect(
        scores.shape == (len(outputs),) and scores.dtype.kind in "bf" and bool(np.isfinite(scores).all()),
        f"`example_scores` must be bool or float [{len(outputs)}], received {scores.dtype} {list(scores.shape)}",
    )
    halves = [_known(_example_scores(task, outputs[part], targets[part])) for part in (slice(5), slice(5, None))]
    expect(np.array_equal(np.concatenate(halves), scores), "an example's score depends on what else is in the batch")
    other = _known(_example_scores(task, -outputs, targets))
    order = np.arange(len(scores))[::-1]
    with expect_no_error(f"comparing scores by {test.name}"):
        same, forth, back = test.p_value(scores, scores), test.p_value(scores, other), test.p_value(other, scores)
        reordered = test.p_value(scores[order], other[order])
    expect(0 <= forth <= 1, f"the p-value must be from 0 to 1, received {forth}")
    expect(same == 1, f"the p-value of a network and itself must be 1, received {same}")
    expect(math.isclose(forth, back), f"the p-value changes from {forth} to {back} when the networks change places")
    expect(
        math.isclose(forth, reordered), f"the p-value changes from {forth} to {reordered} in another order of images"
    )


def _known(scores: Array | None) -> Array:
    expect(scores is not None, "`example_scores` of some images are None, and of others not")
    assert scores is not None
    return scores


def _example_scores(task: NetworkTask, outputs: Array, targets: Array) -> Array | None:
    with expect_no_error("scoring examples"):
        return task.example_scores(outputs, targets)


def _check_same_answer(task: NetworkTask, outputs: Array) -> None:
    share = task.same_answer(outputs, outputs)
    expect(share == 1.0, f"`same_answer` of the same outputs must be 1, received {share}")
    other = task.same_answer(outputs, -100 * outputs)
    expect(0 <= other < 1, f"`same_answer` of opposite outputs must be from 0 to less than 1, received {other}")


def _check_distillation(task: NetworkTask, answers: Array) -> None:
    """What is learned from another network must be least where its answers are reached."""
    if not task.distills:
        return
    import tensorflow as tf

    with expect_no_error("computing what is learned from another network"):
        same, other = (
            task.distillation_loss(tf.constant(outputs, tf.float32), tf.constant(answers, tf.float32), 2.0)
            for outputs in (answers, answers[::-1] + 1.0)
        )
        expect(tuple(same.shape) == (), f"`distillation_loss` must be a scalar, received {list(same.shape)}")
    expect(bool(np.isfinite(same.numpy())), f"`distillation_loss` must be a number, received {same.numpy()}")
    expect(
        bool(same.numpy() < other.numpy()),
        "`distillation_loss` must be least where the outputs are those of the network that teaches",
    )


def _check_loss(task: NetworkTask, start: Array, targets: Array) -> None:
    """Outputs that follow the loss downhill must come to be better in the metric: else training works against it."""
    import tensorflow as tf

    settings = OptimizationSettings()
    outputs, wanted = tf.Variable(start), tf.constant(targets, task.targets.dtype)

    def loss_and_gradient() -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            loss = task.loss(outputs, wanted, settings)
        return loss, tape.gradient(loss, outputs)

    with expect_no_error("computing the loss"):
        first, gradient = loss_and_gradient()
        expect(tuple(first.shape) == (), f"the loss must be a scalar, received {list(first.shape)}")
        expect(bool(np.isfinite(first.numpy())), f"the loss must be a number, received {first.numpy()}")
        expect(gradient is not None, "the loss has no gradient: it must be computed of the outputs, with TensorFlow")
        for _ in range(_STEPS):
            # The loss is a mean, so a step that fits one example must not shrink with their number.
            outputs.assign_sub(_RATE * len(start) * gradient)
            last, gradient = loss_and_gradient()
    before, after = task.score(start, targets), task.score(outputs.numpy(), targets)
    expect(bool(last.numpy() < first.numpy()), f"the loss went from {first.numpy():.4g} to {last.numpy():.4g} downhill")
    expect(
        after > before,
        f"outputs that follow the loss downhill must be better in the metric: {task.metric.name} went from "
        f"{before:.4g} to {after:.4g}",
    )
    _check_progress_shows(task, start, outputs.numpy(), targets)


def _check_progress_shows(task: NetworkTask, start: Array, better: Array, targets: Array) -> None:
    """A network that is much better in the metric must be so in the scores of its examples, and be told apart."""
    test = task.metric.paired_test
    before, after = _example_scores(task, start, targets), _example_scores(task, better, targets)
    if test is None or before is None or after is None:
        return
    expect(
        after.mean() > before.mean(),
        f"outputs that are better in {task.metric.name} must have better scores: their mean went from "
        f"{before.mean():.4g} to {after.mean():.4g}",
    )
    p_value = test.p_value(before, after)
    expect(p_value < 0.05, f"{test.name} does not tell outputs after training from those before it: p = {p_value:.2g}")
