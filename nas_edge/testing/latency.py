"""What a latency source promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from device_agents.errors import DeviceError
from nas_edge.errors import NasEdgeError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.testing.expect import expect, expect_no_error


def check_latency_source(
    make_source: Callable[[], LatencySource], space: NetworkSpace, candidates: int = 6, timeout_s: float = 60.0
) -> None:
    """Checks a latency source.

    Args:
        make_source: opens it; called twice, after the first was closed.
        space: whose architectures it can tell the latency of.
        candidates: how many architectures it is asked for.
        timeout_s: how long an answer may take.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    rng = np.random.default_rng(0)
    architectures = [space.canonical(space.sample(rng)) for _ in range(candidates)]
    asked = [Candidate(space.build(architecture), architecture) for architecture in architectures]
    with expect_no_error("opening the source"), make_source() as source:
        name = source.name
        expect(isinstance(name, str) and bool(name), f"`name` must be a text, received {name!r}")
        on_host = source.measures_on_host
        expect(isinstance(on_host, bool), f"`measures_on_host` must be True or False, received {on_host!r}")
        # Asked from several threads at once, each candidate twice.
        with ThreadPoolExecutor(4) as threads:
            futures = list(threads.map(source.submit, asked * 2))
        answers = [_answer(future, timeout_s, candidate) for future, candidate in zip(futures, asked * 2, strict=True)]
        expect(any(answer.ok for answer in answers), f"no candidate got a latency; the first: {answers[0].detail}")
        # From outside the space: an answer or a clear error, but no silence.
        outside = source.submit(Candidate(asked[0].design))
        try:
            outside.result(timeout_s)
        except (NasEdgeError, DeviceError):
            pass
        except Exception as error:
            raise AssertionError(f"for a network from outside the space, the future raised {error!r}") from error
        unwanted = source.submit(asked[0])
        unwanted.cancel()
        _answer(source.submit(asked[0]), timeout_s, asked[0])
        source.close()  # and again at the end of the block
    with expect_no_error("opening the source again after it was closed"), make_source() as source:
        expect(source.name == name, "opened twice, the source has another name, so that a run could not be resumed")


def _answer(future: Future[LatencyAnswer], timeout_s: float, candidate: Candidate) -> LatencyAnswer:
    expect(isinstance(future, Future), f"`submit` must give a Future, received {type(future).__name__}")
    with expect_no_error(f"no answer for architecture {candidate.architecture} within {timeout_s:g} s"):
        answer = future.result(timeout_s)
    expect(isinstance(answer, LatencyAnswer), f"the future must hold a LatencyAnswer, held {type(answer).__name__}")
    _check_kind(answer, candidate)
    if answer.ok:
        latency_ms = answer.latency_ms
        expect(
            latency_ms is not None and 0 < latency_ms < float("inf"),
            f"architecture {candidate.architecture} is ok with a latency of {latency_ms} ms; what has no latency has "
            "another verdict",
        )
    else:
        expect(bool(answer.detail), f"the verdict {answer.verdict} comes without a word why")
    with expect_no_error("writing an answer to the journal"):
        read_back = LatencyAnswer.from_json(json.loads(json.dumps(answer.to_json(), allow_nan=False)))
    expect(read_back == answer, "an answer does not survive being written to the journal")
    return answer


def _check_kind(answer: LatencyAnswer, candidate: Candidate) -> None:
    """What was measured has its measurement, and an estimate has none: nothing is dressed as something else."""
    what = f"the answer for architecture {candidate.architecture}"
    expect(isinstance(answer.kind, LatencyKind), f"{what} must say its `kind`, a LatencyKind; received {answer.kind!r}")
    if answer.kind is LatencyKind.MEASURED:
        expect(
            answer.measurement is not None or not answer.ok,
            f"{what} is called measured but has no measurement; use LatencyAnswer.measured",
        )
        expect(answer.estimate_ms is None, f"{what} is called measured but has the estimate {answer.estimate_ms} ms")
    else:
        expect(
            answer.measurement is None,
            f"{what} is called {answer.kind} but has a measurement; use LatencyAnswer.estimated",
        )
    if answer.estimate_interval_ms is not None:
        low_ms, high_ms = answer.estimate_interval_ms
        expect(
            answer.estimate_ms is not None and 0 <= low_ms <= answer.estimate_ms <= high_ms < float("inf"),
            f"{what} has the interval {low_ms} to {high_ms} ms around {answer.estimate_ms} ms",
        )
