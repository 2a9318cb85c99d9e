"""The choice of what may be the winner, and of the random architectures it is compared with."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from nas_edge.formatting import ms_text
from nas_edge.latency.retry import BENCH_FAULTS
from nas_edge.runs.run import RANDOM, RANDOM_SCORES, SELECTION
from nas_edge.search.finalists import find_finalists
from nas_edge.search.loop import SearchLoop
from nas_edge.search.selection import Limits, predicted_limit_ms, select
from nas_edge.search.trials import Trial
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.context import RunContext
from nas_edge.stages.searching import advising
from nas_edge.text import answer_text, kind_suffix

# Random architectures that are scored at once, and measured side by side.
TOGETHER, MEASURED_TOGETHER = 16, 4


def select_finalists(
    context: RunContext, loop: SearchLoop, target_ms: float, trials: Sequence[Trial]
) -> Sequence[Trial]:
    """What may be the winner, evaluated again and checked against the limit, the best first; at least one.

    Raises:
        InfeasibleError: when no architecture meets it.
        UnreliableLatencyError: when none has a latency, and the bench is to blame.
    """
    target, reporter = context.config.target, context.reporter
    with kept_trials(context, SELECTION) as kept, reporter.stage("selection", None) as show:
        done = 0

        def shown(architectures: Sequence[Architecture]) -> Sequence[Trial]:
            nonlocal done
            trials = kept(architectures, loop.evaluate_all)
            for trial in trials:
                done += 1
                show(done, answer_text(trial.latency), f"quality {context.task.metric.text(trial.quality)}")
            return trials

        limit_ms = target_ms if target.limit == "hard" else None
        # Without a file to deliver, nothing is measured another time.
        margin = target.margin if context.task.delivers else 0.0
        finalists = find_finalists(
            loop,
            trials,
            target_ms,
            context.config.finalists,
            generator(context.config.seed, "finalists"),
            None if limit_ms is None else predicted_limit_ms(trials, limit_ms, margin),
        )
        with advising(context):
            selection = select(
                context.space,
                loop.controller,
                shown,
                limit_ms,
                margin,
                trials,
                quality_drifts=context.config.search.quality_drifts,
                finalists=finalists,
                resources=target.resource_limits,
            )
    winner = selection.winner
    timed = "not timed"
    if winner.latency is not None and winner.latency_ms is not None:
        timed = f"{ms_text(winner.latency_ms)} ms{kind_suffix(winner.latency.kind)}"
    reporter.say(
        f"selected from {len(selection.trials)} evaluated again: quality {context.task.metric.text(winner.quality)}, "
        f"{timed}, {winner.architecture}"
    )
    return selection.ranked


def best_of_random(context: RunContext, loop: SearchLoop, target_ms: float, count: int) -> Sequence[Trial]:
    """The best of as many random architectures as the search evaluated, scored and timed alike; none if not asked for.

    All are scored. Latencies are asked for in the order of quality until as many meet the target as are to be trained
    as finalists, or else one: they are the best that do, whatever those after them take.

    Args:
        context: of the run.
        loop: after the search.
        target_ms: what to meet.
        count: how many the search evaluated; as many more as it scored after its steps are scored, too.
    """
    if not context.config.search.random_baseline or (context.task.delivers and not context.config.export.compare):
        return ()
    wanted, sampled = max(1, context.config.finalists.trained), context.config.finalists.sampled
    limits = Limits(target_ms, 0.0, context.config.target.resource_limits)
    rng = generator(context.config.seed, "random baseline")
    drawn = list(dict.fromkeys(loop.space.canonical(context.space.sample(rng)) for _ in range(count + sampled)))
    reporter, text = context.reporter, context.task.metric.text
    with (
        kept_trials(context, RANDOM_SCORES) as kept,
        reporter.stage("scoring random architectures", len(drawn)) as show,
    ):
        scored: list[Trial] = []
        for some in _in_batches(drawn, TOGETHER):
            scored += kept(some, lambda missing: loop.evaluator.score_all(missing, loop.step))
            show(len(scored))
    by_quality = {trial.architecture: trial for trial in sorted(scored, key=_quality, reverse=True)}
    ranked = [architecture for architecture, trial in by_quality.items() if trial.quality is not None]
    with kept_trials(context, RANDOM) as kept, reporter.stage("best of random", None) as show:
        measured, meeting = 0, list[Trial]()
        for some in _in_batches(ranked, MEASURED_TOGETHER):
            trials = kept(
                some,
                lambda missing: loop.evaluator.measure_all([by_quality[one] for one in missing], loop.step),
            )
            measured += len(trials)
            meeting += [trial for trial in trials if limits.meets(trial)]
            meeting.sort(key=_quality, reverse=True)
            show(measured, f"quality {text(meeting[0].quality)}" if meeting else "")
            if len(meeting) >= wanted:
                break
    return meeting[:wanted]


def _in_batches(architectures: Sequence[Architecture], size: int) -> Iterator[Sequence[Architecture]]:
    return (architectures[start : start + size] for start in range(0, len(architectures), size))


def _quality(trial: Trial) -> float:
    return -math.inf if trial.quality is None else trial.quality


@contextmanager
def kept_trials(
    context: RunContext, stage: str
) -> Iterator[Callable[[Sequence[Architecture], Callable[[Sequence[Architecture]], Sequence[Trial]]], list[Trial]]]:
    """Yields what scores and measures architectures outside the loop, in the way it is given.

    The answers go into a journal of the stage, from which a resumed run takes them, so that none is measured twice.
    Where the bench was to blame for one that cannot be used, it is asked again.
    """
    with closing(context.run.open_journal(context.reporter.say, stage)) as journal:
        known: dict[Architecture, deque[Trial]] = {}
        for trial in journal.read(Trial.from_json):
            if trial.verdict not in BENCH_FAULTS:
                known.setdefault(trial.architecture, deque()).append(trial)

        def kept(
            architectures: Sequence[Architecture], ask: Callable[[Sequence[Architecture]], Sequence[Trial]]
        ) -> list[Trial]:
            earlier = [known.get(context.space.canonical(architecture)) for architecture in architectures]
            found = [trials.popleft() if trials else None for trials in earlier]
            missing = [i for i, trial in enumerate(found) if trial is None]
            for i, trial in zip(missing, ask([architectures[i] for i in missing]) if missing else (), strict=True):
                journal.append(trial.to_json())
                found[i] = trial
            return [trial for trial in found if trial is not None]

        yield kept
