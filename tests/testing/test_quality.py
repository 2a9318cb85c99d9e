"""The suite for quality sources notices every promise that is broken, and the package's own sources pass."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from nas_edge.latency.source import Candidate
from nas_edge.quality import QUALITY_SOURCES
from nas_edge.quality.source import FunctionQuality, Quality, QualityContext, QualitySource
from nas_edge.spaces import SPACES
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import Metric
from nas_edge.testing import check_quality_source
from nas_edge.testing.trainings import bright_or_dark
from tests.support.spaces import tiny_space

SPACE = tiny_space()
METRIC = Metric("share", bounds=(0.0, 1.0))
NUMBERS = count()


def by_architecture(candidate: Candidate) -> Quality:
    assert candidate.architecture is not None
    return Quality(0.5 + 0.01 * candidate.architecture.choices[0])


def answering(evaluate: Callable[[Candidate], Any]) -> Callable[[], QualitySource]:
    return lambda: FunctionQuality("a function", evaluate)


def some_fail(candidate: Candidate) -> Quality:
    assert candidate.architecture is not None
    return by_architecture(candidate) if candidate.architecture.choices[0] else Quality(None, "it diverged")


def test_short_training_passes() -> None:
    task, data = bright_or_dark()
    space = tiny_space(classes=2)
    settings = QUALITY_SOURCES.settings(
        {"source": "short-training", "weights": {"epochs": 1, "batch_size": 32, "learning_rate": 0.4}}
    )
    context = QualityContext(space, task, data, seed=1)
    check_quality_source(lambda: QUALITY_SOURCES.make(settings, context), space, task.metric, candidates=2)


def test_a_column_passes(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{a},{b},{50 + 10 * a + b}" for a in range(3) for b in range(3)]
    table.write_text("\n".join(["op_0,op_1,accuracy", *rows]))
    space = SPACES.make(SPACES.settings({"name": "table", "file": str(table), "decisions": ["op_0", "op_1"]}), 0, 0)
    settings = QUALITY_SOURCES.settings({"source": "column", "column": "accuracy", "scale": 0.01})
    context = QualityContext(space, TASKS.make(TASKS.settings("tabular")), None, seed=1)
    check_quality_source(lambda: QUALITY_SOURCES.make(settings, context), space, METRIC)


@pytest.mark.parametrize("evaluate", [by_architecture, some_fail])
def test_a_source_that_keeps_its_promises_passes(evaluate: Callable[[Candidate], Quality]) -> None:
    check_quality_source(answering(evaluate), SPACE, METRIC)


class NewName(FunctionQuality):
    def __init__(self) -> None:
        super().__init__(f"source {next(NUMBERS)}", by_architecture)


class ClosedOnce(FunctionQuality):
    def __init__(self) -> None:
        super().__init__("once", by_architecture)
        self.held = 1

    def close(self) -> None:
        del self.held


class NewAnswers(FunctionQuality):
    """Answers otherwise each time it is opened."""

    def __init__(self) -> None:
        number = next(NUMBERS)
        super().__init__("new", lambda candidate: Quality(0.001 * number))


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (lambda: 1 / 0, "opening the source: ZeroDivisionError"),
        (lambda: FunctionQuality("", by_architecture), "`name` must be a text, received ''"),
        (NewName, "opened twice, the source has another name"),
        (ClosedOnce, "closing the source, twice: AttributeError"),
        (answering(lambda _: 0.5), "`evaluate` must give a Quality, received float"),
        (answering(lambda _: 1 / 0), "no answer for architecture .*ZeroDivisionError"),
        (answering(lambda _: Quality(float("nan"))), "must be a finite float"),
        (answering(lambda _: Quality("0.5")), "must be a finite float"),  # type: ignore[arg-type]
        (answering(lambda _: Quality(1.5)), "the quality 1.5 is out of the bounds"),
        (answering(lambda _: Quality(None)), "has no quality, without a word why"),
        (answering(lambda _: Quality(None, "always")), "no candidate got a quality; the first: always"),
        (answering(lambda _: Quality(0.001 * next(NUMBERS))), "asked again, architecture"),
        (NewAnswers, "asked after it was opened again"),
    ],
)
def test_a_broken_promise_is_named(broken: Callable[[], QualitySource], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_quality_source(broken, SPACE, METRIC)
