"""Every search method keeps what search loops promise. A new one is under test as soon as it is in the table."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from nas_edge.data.augmentation import Augmentation
from nas_edge.data.preprocessing import standardize
from nas_edge.data.sources import Dataset
from nas_edge.data.splits import split
from nas_edge.latency.source import LatencySource
from nas_edge.rewards import Objective
from nas_edge.search.methods import METHODS, SearchContext
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import TaskData
from nas_edge.testing import check_search_loop
from nas_edge.testing.problems import table_context
from tests.support.spaces import tiny_space


def training_context(latency: LatencySource) -> SearchContext:
    """Three classes of tiny images told apart by brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = (rng.integers(40, size=(90, 8, 8, 1)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    dataset = Dataset(images, labels.astype(np.int32), ("dark", "grey", "light"))
    parts = split(dataset, rng, 0.2, 0.2)
    data = TaskData(dataset, parts, standardize(dataset, parts.train, 8, 1), Augmentation())
    task = TASKS.make(TASKS.settings("classification"))
    return SearchContext(tiny_space(), task, data, latency, (Objective("latency_ms", 2.0),), seed=0)


FROM_COLUMN = {"quality": {"source": "column", "column": "quality"}}
QUICK = {"validation_batch_size": 16, "rematerialize": False, "weights": {"batch_size": 8}}
CASES: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "one-shot": [(training_context, {**QUICK, "reward_delay_steps": 2, "fair_sampling": True})],
    "multi-trial": [
        (table_context, {**FROM_COLUMN, "samples_per_step": 2, "controller": "evolution"}),
        (table_context, {**FROM_COLUMN, "samples_per_step": 1, "controller": {"name": "surrogate", "candidates": 64}}),
    ],
}


# It searches joint spaces only, and is held to the same suite in `test_alternating.py`.
ELSEWHERE = {"alternating"}


def test_every_method_is_under_test() -> None:
    assert CASES.keys() | ELSEWHERE == METHODS.entries.keys()


# Most loops of the suite that are in use at the same time.
AT_ONCE = 3


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first loops compile shared weights; later ones take these in turns, put back to where they began."""
    compiled: list[tuple[SharedWeights, dict[str, Any]]] = []
    numbers = count()

    def shared_weights(*arguments: Any) -> SharedWeights:
        number = next(numbers)
        if number < AT_ONCE:
            new = SharedWeights(*arguments)
            compiled.append((new, new.arrays()))
        shared, start = compiled[number % AT_ONCE]
        shared.restore(start)
        return shared

    monkeypatch.setattr("nas_edge.supernet.shared_weights.SharedWeights", shared_weights)


@pytest.mark.parametrize(
    ("name", "make_context", "settings"),
    [(name, make_context, settings) for name, cases in CASES.items() for make_context, settings in cases],
)
def test_search_methods_conform(name: str, make_context: Any, settings: dict[str, Any]) -> None:
    check_search_loop(METHODS.entries[name], make_context, **settings)
