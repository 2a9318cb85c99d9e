"""`QualitySource`: anything that says how good an architecture is.

`nas_edge.testing.check_quality_source` checks what is promised here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_edge.latency.source import Candidate
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import SearchSpace

if TYPE_CHECKING:
    from nas_edge.tasks.base import Task, TaskData


class QualitySettings(ChoiceSettings):
    """The settings of any quality source.

    Attributes:
        source: its name.
    """

    source: str

    @property
    def origin(self) -> str:
        """Where qualities come from, in words after the metric's name: `after 5 epochs of training`."""
        return f"from {self.source}"


@dataclass(frozen=True)
class QualityContext:
    """What a quality source may be made of.

    Attributes:
        space: where the search is.
        task: what the networks are for.
        data: what they learn from; None for a run without data.
        seed: of the run.
        evaluation_batch_size: examples that are scored at once.
    """

    space: SearchSpace
    task: Task
    data: TaskData | None
    seed: int
    evaluation_batch_size: int = 256


@dataclass(frozen=True)
class Quality:
    """How good an architecture is, or why that is not known.

    Attributes:
        value: in the task's metric, of which more is better; None for a candidate that failed.
        detail: why it failed.
    """

    value: float | None
    detail: str = ""


class QualitySource(ABC):
    """Says how good architectures are. An architecture that is asked for again gets the same answer."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What answers, for reports. A run is continued only with a source of the same name."""

    @abstractmethod
    def evaluate(self, candidate: Candidate) -> Quality:
        """The quality of one candidate; one that fails is an answer without a value.

        Raises:
            TrainingError, RunError: when the source itself is broken, not the candidate.
        """

    def evaluate_all(self, candidates: Sequence[Candidate]) -> list[Quality]:
        """The qualities of several, each as `evaluate` gives it; a source may read its data once for all of them."""
        return [self.evaluate(candidate) for candidate in candidates]

    def close(self) -> None:  # noqa: B027 - a source may have nothing to free
        """Frees what the source holds; may be called twice."""


class FunctionQuality(QualitySource):
    """A quality source around a function.

    Args:
        name: see `QualitySource`.
        evaluate: likewise.
    """

    def __init__(self, name: str, evaluate: Callable[[Candidate], Quality]) -> None:
        self._name, self._evaluate = name, evaluate

    @property
    def name(self) -> str:
        """See `QualitySource`."""
        return self._name

    def evaluate(self, candidate: Candidate) -> Quality:
        """See `QualitySource`."""
        return self._evaluate(candidate)
