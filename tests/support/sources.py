"""Function-backed stand-ins, so that tests inject behaviour instead of patching."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from device_agents.api import Measurement, QuietLatency, Verdict, Visit
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource


class FunctionSource(LatencySource):
    """A latency source that answers with `measure(candidate)` at once: a measurement, or another answer as it is."""

    def __init__(self, measure: Callable[[Candidate], Measurement | LatencyAnswer], on_host: bool = False) -> None:
        self._measure, self._on_host = measure, on_host
        self.asked: list[Candidate] = []

    @property
    def name(self) -> str:
        return "a function"

    @property
    def measures_on_host(self) -> bool:
        return self._on_host

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


def visited(latency_ms: float, verdict: Verdict = Verdict.OK, half_width: float = 0.01) -> Measurement:
    """A measurement made in visits, of which half of the interval is so much of its latency."""
    interval_ms = (latency_ms * (1 - half_width), latency_ms * (1 + half_width))
    detail = "" if verdict is Verdict.OK else "noise"
    quiet = QuietLatency(latency_ms, interval_ms, 3)
    return Measurement(verdict, detail, samples_ms=(2 * latency_ms,) * 3, visits=(Visit(3, 1, 0.0),), quiet=quiet)


def failed(verdict: Verdict) -> Measurement:
    """A measurement that failed."""
    return Measurement(verdict, detail="injected by the test")
