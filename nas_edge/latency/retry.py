"""Asks again when the bench, not the candidate, is to blame."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

from device_agents.api import Verdict
from device_agents.verdicts import OWNERS, Owner
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource, SourceWrapper, outcome, resolve

# A device that is lost, broken, contended, unsteady, drifted or throttled: another time may be better.
BENCH_FAULTS = frozenset(verdict for verdict in Verdict if OWNERS[verdict] is Owner.BENCH)
# One that was contended was so for as long as was allowed; the same again would cost as much for as little.
_ASKED_AGAIN = BENCH_FAULTS - {Verdict.CONTENDED}


class RetryingSource(SourceWrapper):
    """Has a candidate measured again, at the end of the queue, when the bench failed it.

    The queue is the pause: what disturbed a measurement has time to pass while others are measured.

    Args:
        source: what measures; closed with this.
        attempts: how often a candidate is asked for at most.
    """

    def __init__(self, source: LatencySource, attempts: int = 2) -> None:
        super().__init__(source)
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, received {attempts}")
        self._attempts = attempts

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`. `attempts` and `busy_s` of the answer count every attempt."""
        future: Future[LatencyAnswer] = Future()
        self._ask(candidate, future, self._source.submit(candidate), self._attempts - 1, None)
        return future

    def _ask(
        self,
        candidate: Candidate,
        future: Future[LatencyAnswer],
        asked: Future[LatencyAnswer],
        left: int,
        earlier: LatencyAnswer | None,
    ) -> None:
        def answered(done: Future[LatencyAnswer]) -> None:
            answer = outcome(done)
            if isinstance(answer, LatencyAnswer):
                answer = _with_effort_of(earlier, answer)
                if answer.verdict in _ASKED_AGAIN and left > 0:
                    try:
                        again = self._source.submit(candidate)
                    except Exception as error:  # the source was closed meanwhile
                        resolve(future, error)
                    else:
                        self._ask(candidate, future, again, left - 1, answer)
                    return
            resolve(future, answer)

        asked.add_done_callback(answered)


def _with_effort_of(earlier: LatencyAnswer | None, answer: LatencyAnswer) -> LatencyAnswer:
    """The answer, with what an earlier attempt took added to it."""
    before, now = None if earlier is None else earlier.measurement, answer.measurement
    if before is None or now is None:
        return answer
    both = replace(now, attempts=before.attempts + now.attempts, busy_s=before.busy_s + now.busy_s)
    return replace(answer, measurement=both)
