"""What a run keeps of trainings that stop early: when each did, and which weights it kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas_edge.runs.run import Run
from nas_edge.runs.untrusted import count, number

_NAME = "stages/stopped_early.json"


@dataclass(frozen=True)
class EarlyStop:
    """How a training with early stopping ended.

    Attributes:
        steps: that were made.
        planned: that the settings allow.
        best_step: after which the weights were kept.
        quality: of those, on validation images.
    """

    steps: int
    planned: int
    best_step: int
    quality: float

    def __str__(self) -> str:
        return f"ended after {self.steps:,} of {self.planned:,} steps with the weights of step {self.best_step:,}"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> EarlyStop:
        """Reads `asdict` of one; it may come from anywhere.

        Raises:
            ValueError, LookupError: when it is something else.
        """
        return cls(
            count(record["steps"]), count(record["planned"]), count(record["best_step"]), number(record["quality"])
        )


def note_early_stop(run: Run, name: str, stop: EarlyStop) -> None:
    """Keeps how the training of a network ended."""
    networks = {each: asdict(known) for each, known in read_early_stops(run).items()}
    run.write_json(_NAME, {"schema_version": 1, "networks": {**networks, name: asdict(stop)}})


def read_early_stops(run: Run) -> dict[str, EarlyStop]:
    """How trainings ended, by name of the network; empty without early stopping.

    Raises:
        RunError: when the file is damaged.
    """

    def stops_of(content: Mapping[str, Any]) -> dict[str, EarlyStop]:
        return {str(name): EarlyStop.from_json(record) for name, record in content["networks"].items()}

    return run.read_record(_NAME, stops_of) or {}
