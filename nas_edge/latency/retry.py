"""Asks again when the bench, not the candidate, is to blame."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

from device_agents.api import Measurement, Verdict
from nas_edge.latency.source import CANDIDATE_FAULTS, Candidate, LatencySource, SourceWrapper, outcome, resolve

# A device that is lost, unsteady, drifted or throttled: another time may be better.
BENCH_FAULTS = frozenset(Verdict) - CANDIDATE_FAULTS - {Verdict.OK}


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

    def submit(self, candidate: Candidate) -> Future[Measurement]:
        """See `LatencySource`. `attempts` and `busy_s` of the answer count every attempt."""
        future: Future[Measurement] = Future()
        self._ask(candidate, future, self._source.submit(candidate), self._attempts - 1, None)
        return future

    def _ask(
        self,
        candidate: Candidate,
        future: Future[Measurement],
        asked: Future[Measurement],
        left: int,
        earlier: Measurement | None,
    ) -> None:
        def answered(done: Future[Measurement]) -> None:
            answer = outcome(done)
            if isinstance(answer, Measurement):
                if earlier is not None:
                    attempts, busy_s = earlier.attempts + answer.attempts, earlier.busy_s + answer.busy_s
                    answer = replace(answer, attempts=attempts, busy_s=busy_s)
                if answer.verdict in BENCH_FAULTS and left > 0:
                    try:
                        again = self._source.submit(candidate)
                    except Exception as error:  # the source was closed meanwhile
                        resolve(future, error)
                    else:
                        self._ask(candidate, future, again, left - 1, answer)
                    return
            resolve(future, answer)

        asked.add_done_callback(answered)
