"""What a quality source promises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np

from nas_edge.latency.source import Candidate
from nas_edge.quality.source import Quality, QualitySource
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.tasks.base import Metric
from nas_edge.testing.expect import expect, expect_no_error


def check_quality_source(
    make_source: Callable[[], QualitySource], space: SearchSpace, metric: Metric | None = None, candidates: int = 4
) -> None:
    """Checks a quality source.

    Args:
        make_source: opens it; called twice, after the first was closed.
        space: whose architectures it can tell the quality of.
        metric: what quality is, for its bounds; None for any number.
        candidates: how many architectures it is asked for. Each is asked for three times.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    rng = np.random.default_rng(0)
    architectures = [space.canonical(space.sample(rng)) for _ in range(candidates)]
    asked = [Candidate(space.build(architecture), architecture) for architecture in architectures]
    with expect_no_error("opening the source"):
        source = make_source()
    name = source.name
    expect(isinstance(name, str) and bool(name), f"`name` must be a text, received {name!r}")
    first = [_answer(source, candidate, metric) for candidate in asked]
    expect(
        any(quality.value is not None for quality in first), f"no candidate got a quality; the first: {first[0].detail}"
    )
    # In another order: an answer may not depend on what was asked before.
    again = [_answer(source, candidate, metric) for candidate in reversed(asked)][::-1]
    _check_same(architectures, first, again, "asked again")
    with expect_no_error("closing the source, twice"):
        source.close()
        source.close()
    with expect_no_error("opening the source again after it was closed"):
        source = make_source()
    expect(source.name == name, "opened twice, the source has another name, so that a run could not be resumed")
    reopened = [_answer(source, candidate, metric) for candidate in asked]
    _check_same(architectures, first, reopened, "asked after it was opened again")
    source.close()


def _answer(source: QualitySource, candidate: Candidate, metric: Metric | None) -> Quality:
    with expect_no_error(f"no answer for architecture {candidate.architecture}"):
        quality = source.evaluate(candidate)
    expect(isinstance(quality, Quality), f"`evaluate` must give a Quality, received {type(quality).__name__}")
    if quality.value is None:
        expect(bool(quality.detail), f"architecture {candidate.architecture} has no quality, without a word why")
        return quality
    expect(
        isinstance(quality.value, float) and math.isfinite(quality.value),
        f"a quality must be a finite float, or None with a detail; received {quality.value!r}",
    )
    if metric is not None:
        expect(metric.allows(quality.value), f"the quality {quality.value} is out of the bounds {metric.bounds}")
    with expect_no_error("writing a quality to the journal"):
        json.dumps(quality.value, allow_nan=False)
    return quality


def _check_same(architectures: list[Architecture], first: list[Quality], again: list[Quality], when: str) -> None:
    for architecture, one, other in zip(architectures, first, again, strict=True):
        expect(
            one.value == other.value,
            f"{when}, architecture {architecture} has the quality {other.value}, not {one.value}",
        )
