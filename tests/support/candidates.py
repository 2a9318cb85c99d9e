"""Candidates and sources for the tests of latency sources."""

from __future__ import annotations

from concurrent.futures import Future

from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.spaces.decisions import Architecture
from tests.support.spaces import small_space

SPACE = small_space()


def candidate(index: int) -> Candidate:
    """One of several candidates; equal indices give equal networks."""
    offsets = [decision.choices for decision in SPACE.decisions]
    choices = []
    for values in offsets:
        choices.append(index % len(values))
        index //= len(values)
    architecture = SPACE.canonical(Architecture(tuple(choices)))
    return Candidate(SPACE.build(architecture), architecture)


class ManualSource(LatencySource):
    """A source that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Candidate] = []
        self.futures: list[Future[LatencyAnswer]] = []
        self.closed = False

    @property
    def name(self) -> str:
        return "by hand"

    @property
    def measures_on_host(self) -> bool:
        return True

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        self.asked.append(candidate)
        self.futures.append(Future())
        return self.futures[-1]

    def close(self) -> None:
        self.closed = True
