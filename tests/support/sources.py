"""Function-backed stand-ins, so that tests inject behaviour instead of patching."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from device_agents.api import Measurement, Verdict
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource


class FunctionSource(LatencySource):
    """A latency source that answers with `measure(candidate)` at once: a measurement, or another answer as it is."""

    def __init__(self, measure: Callable[[Candidate], Measurement | LatencyAnswer]) -> None:
        self._measure = measure
        self.asked: list[Candidate] = []

    @property
    def name(self) -> str:
        return "a function"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        self.asked.append(candidate)
        future: Future[LatencyAnswer] = Future()
        try:
            answer = self._measure(candidate)
            future.set_result(LatencyAnswer.measured(answer) if isinstance(answer, Measurement) else answer)
        except Exception as error:
            future.set_exception(error)
        return future


def timed(latency_ms: float) -> Measurement:
    """A measurement of one sample."""
    return Measurement(Verdict.OK, samples_ms=(latency_ms,))


def failed(verdict: Verdict) -> Measurement:
    """A measurement that failed."""
    return Measurement(verdict, detail="injected by the test")
