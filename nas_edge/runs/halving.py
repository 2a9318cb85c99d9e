"""What a run keeps of finalists that were trained to find the best of them: a journal for each group that competes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas_edge.errors import RunError
from nas_edge.formatting import reason
from nas_edge.runs.journal import read_journal
from nas_edge.runs.run import Run
from nas_edge.runs.untrusted import number, optional_number

# The journals by the network that the group is to find.
HALVING = {"winner": "stages/halving.jsonl", "best of random": "stages/halving_random.jsonl"}


@dataclass(frozen=True)
class HalvingScore:
    """A finalist after one training.

    Attributes:
        recipe: how it was trained, see `stages.training.recipe`; epochs apart.
        architecture: its text form.
        epochs: of the training.
        quality: on validation data, which it was not trained with; None where the training diverged.
    """

    recipe: str
    architecture: str
    epochs: float
    quality: float | None

    def to_json(self) -> dict[str, Any]:
        """As the journal has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> HalvingScore:
        """The inverse of `to_json`; it may come from anywhere.

        Raises:
            ValueError, LookupError: when it is something else.
        """
        return cls(
            str(record["recipe"]),
            str(record["architecture"]),
            number(record["epochs"], 0),
            optional_number(record["quality"]),
        )


def read_halving(run: Run) -> dict[str, list[HalvingScore]]:
    """What the journals hold, those of the last recipe alone; groups that have not begun are left out.

    Raises:
        RunError: when one is damaged.
    """
    found = {}
    for name, journal in HALVING.items():
        try:
            scores = [HalvingScore.from_json(record) for record in read_journal(run.path(journal)).records]
        except (LookupError, TypeError, ValueError) as error:
            raise RunError(f"{run.path(journal)} is damaged: {reason(error)}") from None
        if scores:
            found[name] = [score for score in scores if score.recipe == scores[-1].recipe]
    return found
