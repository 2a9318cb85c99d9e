"""What a run keeps of the network that taught those it delivers, see `stages.teaching`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from nas_edge.runs.run import Run
from nas_edge.runs.untrusted import optional_number

_NAME = "stages/teacher.json"


@dataclass(frozen=True)
class TeacherFacts:
    """A network that taught.

    Attributes:
        recipe: names how it was trained, see `stages.teaching`.
        architecture: its text form.
        quality: on validation images, which it was not trained with; None when what it answers is not numbers.
    """

    recipe: str
    architecture: str
    quality: float | None


def write_teacher(run: Run, facts: TeacherFacts) -> None:
    """Keeps it, in place of one of before."""
    run.write_json(_NAME, {"schema_version": 1, **asdict(facts)})


def read_teacher(run: Run) -> TeacherFacts | None:
    """What taught; None where nothing did.

    Raises:
        RunError: when its file is damaged.
    """
    return run.read_record(
        _NAME,
        lambda content: TeacherFacts(
            str(content["recipe"]), str(content["architecture"]), optional_number(content["quality"])
        ),
    )
