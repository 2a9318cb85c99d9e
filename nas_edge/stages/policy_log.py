"""How the controller converges: its probabilities now and then, for the report.

    policy.jsonl    {"step": steps done, "probabilities": [[0.2, 0.8], ...]}    a row per decision, in the space's order

Written as the search goes, before its checkpoints, and cut back to the step from which a search goes on: an
interrupted run ends with the same records as one that was not. It is only for looking at: no search stops for one that
is damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nas_edge.controllers.base import Controller
from nas_edge.errors import RunError
from nas_edge.runs.files import set_aside
from nas_edge.runs.journal import Journal, Record, read_journal

# The probabilities of a policy are hundreds of numbers, too many for each of a hundred thousand steps.
POLICY_RECORDS = 200


def is_noted(step: int, steps: int) -> bool:
    """Whether the policy after step number `step`, from 0, of so many steps is one to note."""
    return step % max(1, steps // POLICY_RECORDS) == 0 or step + 1 == steps


def set_damaged_aside(path: Path, say: Callable[[str], object]) -> None:
    """Makes room for a new record where there is one that cannot be continued, and says so in one line.

    Args:
        path: `policy.jsonl`; nothing may have it open.
        say: is told.

    Raises:
        RunError: when it cannot be renamed.
    """
    try:
        for record in read_journal(path).records:
            _steps_done(record)
    except (RunError, ArithmeticError, LookupError, TypeError, ValueError):
        aside = set_aside(path)
        say(f"{path} is damaged: it is kept as {aside.name}, and how the policy converges is recorded from here on")


class PolicyLog:
    """Notes a controller's probabilities.

    Args:
        journal: open for writing; whoever opened it closes it.
        steps_done: of the search that goes on; what was noted after that step is dropped.
        steps: of the whole search.
    """

    def __init__(self, journal: Journal, steps_done: int, steps: int) -> None:
        self._journal, self._steps = journal, steps
        kept = sum(done <= steps_done for done in journal.read(_steps_done))
        if kept < len(journal):
            journal.cut(kept)

    def write(self, step: int, controller: Controller) -> None:
        """Takes note after step number `step`, if it is one to note and the controller has a policy.

        Raises:
            RunError: when it cannot be written.
        """
        policy = controller.probabilities() if is_noted(step, self._steps) else None
        if policy is not None:
            rows = [[round(p, 6) for p in row] for row in policy.values()]
            self._journal.append({"step": step + 1, "probabilities": rows})
            self._journal.sync()


def _steps_done(record: Record) -> int:
    return int(record["step"])
