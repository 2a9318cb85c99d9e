"""The suite for tasks notices every promise that is broken, and the package's own tasks pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from nas_edge.config import load_config
from nas_edge.data.settings import DataSettings
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import BundleSection, Metric, PairedTest, Targets, TaskData
from nas_edge.tasks.classification import ACCURACY, Classification, ClassificationSettings
from nas_edge.testing import check_task
from tests.support.brightness import Brightness, BrightnessSettings

# On which a task is tried; the digits have classes only.
DRAWN = "procedural:size=16,classes=4,train=80,test=40"
DATA = {
    **dict.fromkeys(("multi-label", "regression", "segmentation"), DataSettings(source=DRAWN)),
    "detection": DataSettings(source=f"{DRAWN},figures=2"),
    # Whose recordings are not changed as images are by default.
    "keyword-spotting": load_config(
        "smoke", flags={"task.name": "keyword-spotting", "data.source": "procedural:classes=4,train=80,test=40"}
    ).data,
}
# Settings for images that small.
SMALL = {"detection": {"name": "detection", "stride": 4}}


@pytest.mark.parametrize("name", TASKS.entries)
def test_the_packages_own_tasks_pass(name: str) -> None:
    check_task(lambda: TASKS.make(TASKS.settings(SMALL.get(name, name))), DATA.get(name))


def test_a_task_without_classes_passes() -> None:
    check_task(lambda: Brightness(BrightnessSettings()))


def sign_test(first: Any, second: Any) -> float:
    better, worse = np.count_nonzero(first > second), np.count_nonzero(first < second)
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


class ComparedBrightness(Brightness):
    """Has a paired test of its own: which of two networks is closer to an image's brightness."""

    metric = replace(Brightness.metric, paired_test=PairedTest("sign test", sign_test))

    def example_scores(self, outputs: Any, targets: Any) -> Any:
        return -np.abs(outputs - targets)[:, 0]


def test_a_task_with_another_paired_test_passes() -> None:
    check_task(lambda: ComparedBrightness(BrightnessSettings()))


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


def with_scores(scores: Callable[[Any, Any], Any]) -> Broken:
    """Statistics as they were, of which the class makes its scores otherwise."""
    right = Classification(ClassificationSettings())
    return Broken(example_scores=scores, statistics=right.statistics)


def without_scores() -> Broken:
    return with_scores(lambda *_: None)


def with_test(p_value: Callable[[Any, Any], float], name: str = "McNemar") -> Broken:
    return Broken(metric=replace(ACCURACY, paired_test=PairedTest(name, p_value)))


def one_sided(first: Any, second: Any) -> float:
    return 1.0 if (first == second).all() else 0.5 if first.sum() > second.sum() else 0.25


def of_first(first: Any, second: Any) -> float:
    """Depends on where the first difference is."""
    differing = np.flatnonzero(first != second)
    return 1.0 if not len(differing) else 1 / (2 + float(differing[0]))


def negated(outputs: Any, targets: Any, settings: Any) -> Any:
    return -Classification(ClassificationSettings()).loss(outputs, targets, settings)


def without_gradient(outputs: Any, targets: Any, settings: Any) -> Any:
    import tensorflow as tf

    return tf.constant(1.0)


def per_example(outputs: Any, targets: Any, settings: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_sum(outputs, axis=-1)


def farthest(outputs: Any, answers: Any, temperature: float) -> Any:
    import tensorflow as tf

    return -tf.reduce_mean(tf.square(outputs - answers))


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
    "drawn again": (
        lambda: Broken(bootstraps=True, drawn_again=lambda each: lambda times: 2.0),
        "all count once have the metric 2.0 by `drawn_again`",
    ),
    "statistics type": (lambda: Broken(statistics=lambda o, t: np.zeros((1, 2))), r"float64 \[k\]"),
    "same answer": (lambda: Broken(same_answer=lambda *_: 0.5), "of the same outputs must be 1"),
    "always the same": (lambda: Broken(same_answer=lambda *_: 1.0), "of opposite outputs"),
    "uphill": (lambda: Broken(loss=negated), "outputs that follow the loss downhill"),
    "teacher": (lambda: Broken(distillation_loss=farthest), "least where the outputs are those"),
    "teacher, vector": (lambda: Broken(distillation_loss=lambda o, a, t: o[:, 0]), "must be a scalar"),
    "no gradient": (lambda: Broken(loss=without_gradient), "the loss has no gradient"),
    "scores without a test": (lambda: Broken(metric=replace(ACCURACY, paired_test=None)), "and only such a one"),
    "test without scores": (lambda: without_scores(), "and only such a one"),
    "nameless test": (lambda: with_test(lambda *_: 1.0, ""), "paired test has no name"),
    "scores' shape": (
        lambda: with_scores(lambda o, t: np.ones((len(t), 1))),
        r"bool or float \[32\], received float64",
    ),
    "scores' type": (lambda: with_scores(lambda o, t: np.ones(len(t), int)), "received int64"),
    "scores' batch": (lambda: with_scores(lambda o, t: np.full(len(t), len(t), float)), "else is in the batch"),
    "no p-value": (lambda: with_test(lambda a, b: 1.0 if (a == b).all() else 1.5), "from 0 to 1, received 1.5"),
    "never the same": (lambda: with_test(lambda *_: 0.5), "of a network and itself must be 1"),
    "one-sided": (lambda: with_test(one_sided), "when the networks change places"),
    "order": (lambda: with_test(of_first), "in another order of images"),
    "test raises": (lambda: with_test(lambda *_: 1 / 0), "comparing scores by McNemar: ZeroDivisionError"),
    "never different": (lambda: with_test(lambda *_: 1.0), "McNemar does not tell outputs after training"),
    "worse is better": (lambda: with_scores(lambda o, t: o.argmax(-1) != t), "must have better scores"),
    "no scalar": (lambda: Broken(loss=per_example), r"the loss must be a scalar, received \[32\]"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_promise_is_named(kind: str) -> None:
    make, promise = BROKEN[kind]
    with pytest.raises(AssertionError, match=promise):
        check_task(make)
