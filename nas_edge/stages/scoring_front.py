"""Qualities of the architectures on the search's Pareto front, scored alike after it.

In the search each had the quality of one batch, with weights that were still being trained: the best of many such is
the luckiest. Latencies stay those of the search, so this takes no time of the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_edge.runs.reselect import FRONT
from nas_edge.search.front import near_front
from nas_edge.search.loop import SearchLoop
from nas_edge.search.trials import Trial, late_trials
from nas_edge.stages.context import RunContext

# How many are scored between two lines of progress.
_TOGETHER = 8


def score_front(context: RunContext, loop: SearchLoop, trials: Sequence[Trial]) -> None:
    """Scores them, where qualities of the search cannot be compared as they are, and keeps that in the run.

    Args:
        context: of the run.
        loop: after the search.
        trials: of the search.
    """
    count, drifts = context.config.finalists.front, context.config.search.quality_drifts
    if not count or not drifts:
        return

    def scored() -> Mapping[str, Any]:
        evaluated = [trial for trial in trials if trial.latency_ms is not None and trial.quality is not None]
        architectures = near_front(late_trials(evaluated, drifts), count)
        qualities: dict[str, float] = {}
        with context.reporter.stage("scoring the Pareto front", len(architectures)) as show:
            for start in range(0, len(architectures), _TOGETHER):
                some = architectures[start : start + _TOGETHER]
                for trial in loop.evaluator.score_all(some, loop.step):
                    if trial.quality is not None:
                        qualities[str(trial.architecture)] = trial.quality
                show(start + len(some))
        return {"schema_version": 1, "qualities": qualities}

    context.run.once(FRONT, scored)
