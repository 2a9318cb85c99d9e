"""The choice of the winner, and of the random architecture it is compared with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from nas_edge.formatting import ms_text
from nas_edge.latency.retry import BENCH_FAULTS
from nas_edge.search.finalists import find_finalists
from nas_edge.search.loop import SearchLoop
from nas_edge.search.selection import select
from nas_edge.search.trials import Trial
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.context import RunContext
from nas_edge.stages.searching import advising
from nas_edge.text import answer_text

# Random architectures that are measured side by side.
TOGETHER = 16


def select_winner(context: RunContext, loop: SearchLoop, target_ms: float, trials: Sequence[Trial]) -> Trial:
    """The winner, evaluated again and checked against the limit.

    Raises:
        InfeasibleError: when no architecture meets it.
        UnreliableLatencyError: when none has a latency, and the bench is to blame.
    """
    target, reporter = context.config.target, context.reporter
    with _evaluated_once(context, loop, "selection") as evaluate, reporter.stage("selection", None) as show:
        done = 0

        def shown(architectures: Sequence[Architecture]) -> Sequence[Trial]:
            nonlocal done
            trials = evaluate(architectures)
            for trial in trials:
                done += 1
                show(done, answer_text(trial.latency), f"quality {context.task.metric.text(trial.quality)}")
            return trials

        limit_ms = target_ms if target.limit == "hard" else None
        # Head-room is for the delivered file, which is measured another time.
        margin = target.margin if context.task.delivers else 0.0
        finalists = find_finalists(
            loop,
            trials,
            target_ms,
            context.config.finalists,
            generator(context.config.seed, "finalists"),
            None if limit_ms is None else limit_ms * (1.0 - margin),
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
            )
    winner = selection.winner
    timed = "not timed" if winner.latency_ms is None else f"{ms_text(winner.latency_ms)} ms"
    reporter.say(
        f"selected from {len(selection.trials)} evaluated again: quality {context.task.metric.text(winner.quality)}, "
        f"{timed}, {winner.architecture}"
    )
    return winner


def best_of_random(context: RunContext, loop: SearchLoop, target_ms: float, count: int) -> Trial | None:
    """The best of as many random architectures as the search evaluated, scored and timed alike; None if not asked for.

    Args:
        context: of the run.
        loop: after the search.
        target_ms: what to meet.
        count: how many.
    """
    if not context.config.search.random_baseline or (context.task.delivers and not context.config.export.compare):
        return None
    rng = generator(context.config.seed, "random baseline")
    best: Trial | None = None
    reporter = context.reporter
    with _evaluated_once(context, loop, "random") as evaluate, reporter.stage("random baseline", count) as show:
        for done in range(0, count, TOGETHER):
            sampled = [context.space.sample(rng) for _ in range(min(TOGETHER, count - done))]
            for trial in evaluate(sampled):
                meets = trial.latency_ms is not None and trial.latency_ms <= target_ms and trial.quality is not None
                if meets and (best is None or (trial.quality or 0.0) > (best.quality or 0.0)):
                    best = trial
            show(done + len(sampled), "" if best is None else f"best quality {context.task.metric.text(best.quality)}")
    return best


@contextmanager
def _evaluated_once(
    context: RunContext, loop: SearchLoop, stage: str
) -> Iterator[Callable[[Sequence[Architecture]], Sequence[Trial]]]:
    """Yields what scores and measures architectures outside the loop.

    The answers go into a journal of the stage, from which a resumed run takes them, so that none is measured twice.
    Where the bench was to blame for one that cannot be used, it is asked again.
    """
    with closing(context.run.open_journal(context.reporter.say, f"stages/{stage}.jsonl")) as journal:
        known: dict[Architecture, deque[Trial]] = {}
        for trial in journal.read(Trial.from_json):
            if trial.verdict not in BENCH_FAULTS:
                known.setdefault(trial.architecture, deque()).append(trial)

        def evaluate(architectures: Sequence[Architecture]) -> list[Trial]:
            earlier = [known.get(loop.space.canonical(architecture)) for architecture in architectures]
            found = [trials.popleft() if trials else None for trials in earlier]
            missing = [i for i, trial in enumerate(found) if trial is None]
            for i, trial in zip(missing, loop.evaluate_all([architectures[i] for i in missing]), strict=True):
                journal.append(trial.to_json())
                found[i] = trial
            return [trial for trial in found if trial is not None]

        yield evaluate
