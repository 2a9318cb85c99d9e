"""The suite for latency sources notices every promise that is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.testing import check_latency_source
from tests.support.candidates import SPACE
from tests.support.sources import FunctionSource, failed, timed

COUNT = itertools.count()
MEASURED, PREDICTED = LatencyKind.MEASURED, LatencyKind.PREDICTED


def answer(kind: Any, **fields: Any) -> LatencyAnswer:
    return LatencyAnswer(kind, Verdict.OK, **fields)


def estimating() -> LatencySource:
    return FunctionSource(lambda _: LatencyAnswer.estimated(LatencyKind.SIMULATED, 1.0, (0.5, 2.0)))


def answering(answer: Callable[[Candidate], Any]) -> Callable[[], LatencySource]:
    return lambda: FunctionSource(answer)


def outside(error: Exception) -> Callable[[], LatencySource]:
    def answer(candidate: Candidate) -> Measurement:
        if candidate.architecture is None:
            raise error
        return timed(1.0)

    return answering(answer)


class Nameless(FunctionSource):
    @property
    def name(self) -> str:
        return ""


class NewName(FunctionSource):
    def __init__(self) -> None:
        super().__init__(lambda _: timed(1.0))
        self.number = next(COUNT)

    @property
    def name(self) -> str:
        return f"source {self.number}"


class MaybeOnHost(FunctionSource):
    @property
    def measures_on_host(self) -> Any:
        return None


class NoFuture(FunctionSource):
    def submit(self, candidate: Candidate) -> Any:
        return timed(1.0)


class Silent(FunctionSource):
    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        return Future()


class ClosedOnce(FunctionSource):
    def close(self) -> None:
        del self.asked


def good() -> LatencySource:
    return FunctionSource(lambda _: timed(1.0))


@pytest.mark.parametrize("source", [good, estimating, outside(RunError("of the space only"))])
def test_a_source_that_keeps_its_promises_passes(source: Callable[[], LatencySource]) -> None:
    check_latency_source(source, SPACE)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (lambda: 1 / 0, "opening the source: ZeroDivisionError"),
        (lambda: Nameless(lambda _: timed(1.0)), "`name` must be a text, received ''"),
        (NewName, "opened twice, the source has another name"),
        (lambda: MaybeOnHost(lambda _: timed(1.0)), "`measures_on_host` must be True or False, received None"),
        (lambda: NoFuture(lambda _: timed(1.0)), "`submit` must give a Future, received Measurement"),
        (lambda: Silent(lambda _: timed(1.0)), "no answer for architecture .* within 0.1 s"),
        (lambda: ClosedOnce(lambda _: timed(1.0)), "opening the source: AttributeError"),
        (answering(lambda _: 1.0), "the future must hold a LatencyAnswer, held float"),
        (answering(lambda _: 1 / 0), "no answer for architecture .*ZeroDivisionError"),
        (answering(lambda _: timed(0.0)), "is ok with a latency of 0.0 ms"),
        (answering(lambda _: Measurement(Verdict.OK)), "is ok with a latency of None ms"),
        (answering(lambda _: timed(float("nan"))), "is ok with a latency of nan ms"),
        (answering(lambda _: Measurement(Verdict.TIMEOUT)), "the verdict timeout comes without a word why"),
        (answering(lambda _: failed(Verdict.TIMEOUT)), "no candidate got a latency"),
        (answering(lambda _: Measurement(Verdict.OK, samples_ms=[1.0])), "does not survive"),  # type: ignore[arg-type]
        (answering(lambda _: LatencyAnswer.estimated(LatencyKind.MEASURED, 1.0)), "measured but has no measurement"),
        (answering(lambda _: answer(MEASURED, estimate_ms=1.0, measurement=timed(1.0))), "has the estimate 1.0 ms"),
        (answering(lambda _: answer(PREDICTED, measurement=timed(1.0))), "called predicted but has a measurement"),
        (answering(lambda _: answer("guessed", estimate_ms=1.0)), "must say its `kind`, a LatencyKind"),
        (answering(lambda _: LatencyAnswer.estimated(PREDICTED, 1.0, (2.0, 3.0))), "the interval 2.0 to 3.0 ms around"),
        (answering(lambda _: LatencyAnswer.estimated(PREDICTED, 1.0, (-1.0, 3.0))), "the interval -1.0 to 3.0 ms"),
        (outside(KeyError("x")), r"from outside the space, the future raised KeyError\('x'\)"),
    ],
)
def test_a_broken_promise_is_named(broken: Callable[[], LatencySource], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_latency_source(broken, SPACE, timeout_s=0.1)
