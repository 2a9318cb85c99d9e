"""`LatencySource`: anything that says how long a network takes.

A source is handed candidates and answers with futures, so that a search can train while a device measures. Wrappers
(cache, retry) are sources around a source. `nas_edge.testing.check_latency_source` checks what is promised here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from device_agents.api import Verdict
from device_agents.verdicts import OWNERS, Owner
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.networks.graph import NetworkSpec
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.design import Design

RewardAt: TypeAlias = Callable[[float], "float | None"]
"""The reward of a candidate if its latency were so many milliseconds; None where its quality is not known."""

# The candidate's own doing, so it must become less likely. Any other failure is the bench's, and says nothing of it.
CANDIDATE_FAULTS = frozenset(verdict for verdict in Verdict if OWNERS[verdict] is Owner.CANDIDATE)


@dataclass(frozen=True)
class Candidate:
    """A design to be timed.

    Attributes:
        design: what runs, and what is decided beside it.
        architecture: the point of the space it is; None for a network from outside the space.
        step: of the search, in which it was proposed; None outside of one. A search that is continued finds by it what
            was answered before.
    """

    design: Design
    architecture: Architecture | None = None
    step: int | None = field(default=None, compare=False)

    @property
    def network(self) -> NetworkSpec:
        """The design's network; raises SpaceError when there is none."""
        return self.design.needed_network()


class LatencySource(ABC):
    """Says how long networks take. Close it, or use it in a `with` block."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What answers: a device's model, a table's file. A run is continued only with a source of the same name."""

    @property
    def measures_on_host(self) -> bool:
        """Whether work on this machine disturbs the numbers, so that nothing may train while one is taken."""
        return False

    @property
    def measures_some(self) -> bool:
        """Whether it predicts some latencies and measures others, which then say more."""
        return False

    @abstractmethod
    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """Asks for one candidate's latency; may be called from several threads.

        Returns:
            A future of the answer. A candidate that fails is an answer with that verdict, and an architecture of the
            space that the source does not know one with the verdict `not_known`. The future raises
            `device_agents.errors.DeviceError` only when the bench itself is broken, and `nas_edge.errors.RunError`
            when it cannot answer: a table asked for a network from outside the space.
        """

    def confirm(self, candidate: Candidate, answer: LatencyAnswer, reward_at: RewardAt) -> LatencyAnswer:
        """Returns the answer to go by, now that the candidate's quality is known: another one where a better is due.

        Args:
            candidate: that was asked for.
            answer: what `submit` said of it.
            reward_at: see there.

        Raises:
            DeviceError, RunError: as the future of `submit`.
        """
        return answer

    def take(self, architecture: Architecture, answer: LatencyAnswer, reward_at: RewardAt) -> None:  # noqa: B027
        """Takes in what a trial of the search went by; trials come in their order, also those of before a resume.

        What a source says may depend on these, and on nothing else that changes.

        Args:
            architecture: canonical.
            answer: as it was confirmed.
            reward_at: see there.
        """

    def close(self) -> None:  # noqa: B027 - a source may have nothing to free
        """Frees what the source holds; may be called twice."""

    def __enter__(self: _SourceT) -> _SourceT:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_SourceT = TypeVar("_SourceT", bound=LatencySource)


class SourceWrapper(LatencySource):
    """A source around a source, which it closes; subclasses change what is asked or answered."""

    def __init__(self, source: LatencySource) -> None:
        self._source = source

    @property
    def name(self) -> str:
        """What answers in the end."""
        return self._source.name

    @property
    def measures_on_host(self) -> bool:
        """As the wrapped source."""
        return self._source.measures_on_host

    @property
    def measures_some(self) -> bool:
        """As the wrapped source."""
        return self._source.measures_some

    def confirm(self, candidate: Candidate, answer: LatencyAnswer, reward_at: RewardAt) -> LatencyAnswer:
        """As the wrapped source."""
        return self._source.confirm(candidate, answer, reward_at)

    def take(self, architecture: Architecture, answer: LatencyAnswer, reward_at: RewardAt) -> None:
        """Tells the wrapped source."""
        self._source.take(architecture, answer, reward_at)

    def close(self) -> None:
        """Closes the wrapped source."""
        self._source.close()


def resolve(future: Future[LatencyAnswer], answer: LatencyAnswer | BaseException) -> None:
    """Answers a future that a wrapper handed out, unless its caller has cancelled it."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def outcome(done: Future[LatencyAnswer]) -> LatencyAnswer | BaseException:
    """What a finished future holds: a callback that raised would leave those who wait for it waiting."""
    if done.cancelled():
        return CancelledError("the measurement was cancelled, because its device was closed")
    return done.exception() or done.result()
