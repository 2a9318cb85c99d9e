"""Measuring the networks of a design on a device, with a journal: killed at any moment, the same command continues it.

    {"fit": {space, device, runtime, precision, measuring, seed}}     what it is of
    {"role": "fitted", "architecture": "0:2:1", "seconds": 1.9, "answer": {...}}   ...
    {"role": "isolated", "architecture": "", "operator": "ADD 7x7x96+7x7x96 -> 7x7x96", "seconds": ...}   ...

The design follows from the seed and the latencies, so a session that is continued makes the batches again and takes
from the journal what is there. A network that fails is an outcome that is recorded as any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.models.subject import Observation, OperatorShape, Subject
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.latency_fitting.isolated import isolated_network
from nas_edge.latency_fitting.sampling import Pick, Role, Sampler
from nas_edge.runs.journal import Journal
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.design import Design

Step = Callable[[float, int], object]
"""Is told the seconds that were spent and the networks that were measured, after each batch."""


@dataclass(frozen=True)
class Outcome:
    """What came of one network.

    Attributes:
        pick: what for it was measured.
        answer: its latency, or why there is none.
        seconds: of the device's time.
    """

    pick: Pick
    answer: LatencyAnswer
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return {
            "role": self.pick.role.value,
            "architecture": str(self.pick.architecture),
            **({} if self.pick.operator is None else {"operator": str(self.pick.operator)}),
            "seconds": self.seconds,
            "answer": self.answer.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Outcome:
        """Reads a record of the journal."""
        operator = record.get("operator")
        if operator is None:
            pick = Pick(Role(record["role"]), Architecture.parse(record["architecture"]))
        else:
            pick = Pick.isolated(OperatorShape.parse(operator))
        return cls(pick, LatencyAnswer.from_json(record["answer"]), float(record["seconds"]))


@dataclass
class Measured:
    """What was measured so far.

    Attributes:
        outcomes: in order.
    """

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return sum(outcome.seconds for outcome in self.outcomes)

    @property
    def networks(self) -> list[Outcome]:
        """Those of networks."""
        return [outcome for outcome in self.outcomes if outcome.pick.operator is None]

    def observations(self, sampler: Sampler, role: Role = Role.FITTED) -> list[Observation]:
        """Of the networks of one role, or of operators on their own, those that have a latency to rely on."""

        def subject(pick: Pick) -> Subject:
            return sampler.subject(pick.architecture) if pick.operator is None else Subject((pick.operator,))

        return [
            Observation.of(subject(outcome.pick), outcome.answer)
            for outcome in self.outcomes
            if outcome.pick.role is role and outcome.answer.ok
        ]


def measure_design(
    next_batch: Callable[[Measured], Sequence[Pick]],
    space: SearchSpace,
    source: LatencySource,
    path: Path,
    header: Mapping[str, Any],
    say: Callable[[str], object],
    on_step: Step = lambda seconds, count: None,
) -> Measured:
    """Measures batch after batch until there is none.

    Args:
        next_batch: the next networks, given what was measured; none ends it.
        space: of the networks.
        source: what measures.
        path: of the journal.
        header: what the session is of; one that was begun with another is refused.
        say: is told what a user should know.
        on_step: shows progress.

    Raises:
        RunError: when the journal is of something else, or cannot be used.
        DeviceError: when the bench is broken.
    """
    with closing(Journal(path, say)) as journal:
        if not len(journal):
            journal.append({"fit": dict(header)})
        elif journal.found[0].get("fit") != dict(header):
            raise RunError(
                f"{path} is of measurements with other settings, or on another device",
                fix="name another --out, or remove it",
            )
        known = journal.read(lambda record: record)[1:]
        if known:
            say(f"continuing with {len(known)} networks that were measured before")
        earlier, measured = iter([_read(path, record) for record in known]), Measured()
        while batch := list(next_batch(measured)):
            found: list[Outcome] = []
            for pick in batch:
                outcome = next(earlier, None)
                if outcome is None:
                    break
                if outcome.pick != pick:
                    raise RunError(f"{path} was written by another version", fix="name another --out, or remove it")
                found.append(outcome)
            for outcome in _measured(batch[len(found) :], space, source):
                journal.append(outcome.to_json())
                found.append(outcome)
            journal.sync()
            measured.outcomes += found
            on_step(measured.seconds, len(measured.networks))
        return measured


def _read(path: Path, record: Mapping[str, Any]) -> Outcome:
    try:
        return Outcome.from_json(record)
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not in this version's format: {error}", fix="remove it") from None


def _measured(picks: Sequence[Pick], space: SearchSpace, source: LatencySource) -> list[Outcome]:
    """Measures networks side by side; the time that they took is shared out among them."""
    if not picks:
        return []
    started_s = time.monotonic()
    candidates = [_candidate(pick, space) for pick in picks]
    futures = [source.submit(candidate) for candidate in candidates]
    answers = [future.result() for future in futures]
    seconds = (time.monotonic() - started_s) / len(picks)
    return [Outcome(pick, answer, seconds) for pick, answer in zip(picks, answers, strict=True)]


def _candidate(pick: Pick, space: SearchSpace) -> Candidate:
    """What is timed: a network of the space, or one that has the operator alone."""
    if pick.operator is None:
        return Candidate(space.build(pick.architecture), pick.architecture)
    return Candidate(Design(isolated_network(pick.operator)))
