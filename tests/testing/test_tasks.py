"""The suite for tasks notices every promise that is broken, and the package's own tasks pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas_edge.data.settings import DataSettings
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import BundleSection, Metric, Targets, TaskData
from nas_edge.tasks.classification import Classification, ClassificationSettings, wilson_interval
from nas_edge.testing import check_task
from tests.support.brightness import Brightness, BrightnessSettings


@pytest.mark.parametrize("name", TASKS.entries)
def test_the_packages_own_tasks_pass(name: str) -> None:
    check_task(lambda: TASKS.make(TASKS.settings(name)))


def test_a_task_without_classes_passes() -> None:
    check_task(lambda: Brightness(BrightnessSettings()))


class Broken(Classification):
    """A classifier of which one thing is exchanged."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(ClassificationSettings())
        for name, value in changes.items():
            setattr(self, name, value)


def with_section(**changes: Any) -> Broken:
    task = Broken()
    right = Classification.bundle_section

    def section(data: TaskData) -> BundleSection:
        return replace(right(task, data), **changes)

    task.bundle_section = section  # type: ignore[method-assign]
    return task


class OtherSplits(Classification):
    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        self.seed = getattr(OtherSplits, "seed", 0) + 1
        OtherSplits.seed = self.seed  # type: ignore[attr-defined]
        return super().load(settings, input_size, self.seed)


class Overlapping(Classification):
    def load(self, settings: DataSettings, input_size: int, seed: int) -> TaskData:
        data = super().load(settings, input_size, seed)
        return replace(data, split=replace(data.split, test=data.split.train))


class NotDelivering(type(TASKS.make(TASKS.settings("tabular")))):  # type: ignore[misc]
    delivers = True


def negated(outputs: Any, targets: Any, settings: Any) -> Any:
    return -Classification(ClassificationSettings()).loss(outputs, targets, settings)


def without_gradient(outputs: Any, targets: Any, settings: Any) -> Any:
    import tensorflow as tf

    return tf.constant(1.0)


def per_example(outputs: Any, targets: Any, settings: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_sum(outputs, axis=-1)


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "raises": (lambda: 1 / 0, "making the task: ZeroDivisionError"),
    "nameless metric": (lambda: Broken(metric=Metric("")), "the metric has no name"),
    "format": (lambda: Broken(metric=Metric("accuracy", "%Q")), "writing a value as '%Q'"),
    "bounds": (lambda: Broken(metric=Metric("accuracy", bounds=(2.0, None))), "must be a number within"),
    "interval": (lambda: Broken(metric=Metric("accuracy", interval=lambda *_: (2.0, 3.0))), "does not contain it"),
    "delivers": (lambda: NotDelivering(TASKS.settings("tabular")), "must be a NetworkTask"),
    "no data": (lambda: Broken(load=lambda *_: None), "`load` must give TaskData, received NoneType"),
    "split": (lambda: OtherSplits(ClassificationSettings()), "holds other images"),
    "overlap": (lambda: Overlapping(ClassificationSettings()), "an image is in two parts"),
    "outputs": (lambda: Broken(outputs=lambda _: 0), "`outputs` must be a positive number"),
    "silent": (lambda: Broken(describe=lambda *_: ""), "`describe` says nothing"),
    "shape": (lambda: Broken(targets=Targets((2,), "int32")), r"targets must have the shape \[n, 2\], received \[32\]"),
    "type": (lambda: Broken(targets=Targets((), "bool")), "do not survive as bool"),
    "title": (lambda: with_section(title=""), "says nothing as `title`"),
    "snippet": (lambda: with_section(snippet="print("), "compiling the bundle's snippet: SyntaxError"),
    "manifest": (lambda: with_section(manifest={"a": float("nan")}), "part of the manifest: ValueError"),
    "file name": (lambda: with_section(files={"../x": b""}), "plain name, received '../x'"),
    "file": (lambda: with_section(files={"x": "text"}), "x must be bytes, received str"),
    "statistics": (lambda: Broken(statistics=lambda o, t: np.array([0.5, 1.0])), "do not add up"),
    "statistics type": (lambda: Broken(statistics=lambda o, t: np.zeros((1, 2))), r"float64 \[k\]"),
    "same answer": (lambda: Broken(same_answer=lambda *_: 0.5), "of the same outputs must be 1"),
    "always the same": (lambda: Broken(same_answer=lambda *_: 1.0), "of opposite outputs"),
    "uphill": (lambda: Broken(loss=negated), "outputs that follow the loss downhill"),
    "no gradient": (lambda: Broken(loss=without_gradient), "the loss has no gradient"),
    "no scalar": (lambda: Broken(loss=per_example), r"the loss must be a scalar, received \[32\]"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_promise_is_named(kind: str) -> None:
    make, promise = BROKEN[kind]
    with pytest.raises(AssertionError, match=promise):
        check_task(make)


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    # Published values: Newcombe, 1998, "Two-sided confidence intervals for the single proportion", table I.
    [
        (81 / 263, 263, (0.2553, 0.3662)),
        (15 / 148, 148, (0.0624, 0.1605)),
        (0.0, 20, (0.0, 0.1611)),
        (1 / 29, 29, (0.0061, 0.1718)),
    ],
)
def test_the_interval_of_an_accuracy_is_wilsons(share: float, count: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(share, count) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_interval_holds_the_share_at_its_ends(share: float) -> None:
    low, high = wilson_interval(share, 360) or (None, None)
    assert low is not None
    assert high is not None
    assert 0 <= low <= share <= high <= 1
    assert wilson_interval(share, 0) is None
