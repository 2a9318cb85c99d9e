"""Successive halving: finalists are trained on their own, and the better half goes on with twice the epochs.

    8 for an eighth of the epochs -> 4 for a quarter -> 2 for half -> 1, which is delivered

Each training is one of its own, from the start and with its own schedule, so what is delivered is trained as if it had
never been a finalist. The score is that of the network as it is delivered, on all validation data: the float network's
by default, with `finalists.quantized` that of the file in the precision that is delivered, tuned with its roundings if
that is what `export.quantization=aware` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from nas_edge.config import RunConfig
from nas_edge.errors import TrainingError
from nas_edge.networks.graph import ranges_of
from nas_edge.runs.halving import HALVING, HalvingScore
from nas_edge.search.finalists import halving_rounds
from nas_edge.search.loop import SearchLoop
from nas_edge.search.trials import Trial
from nas_edge.stages.contender import contender_of
from nas_edge.stages.context import RunContext
from nas_edge.stages.quantizing import quantized_quality
from nas_edge.stages.teaching import teacher_of
from nas_edge.stages.training import digest, recipe, slower, train, validation_quality
from nas_edge.training.context import Teacher
from nas_edge.training.quantization_aware import tuning_settings
from nas_edge.training.settings import TrainingSettings


def best_trained(context: RunContext, loop: SearchLoop, name: str, ranked: Sequence[Trial]) -> Trial:
    """The best of finalists, by trainings of their own where the settings ask for that; else the first.

    Args:
        context: of the run.
        loop: after the search.
        name: what is looked for, a key of `HALVING`.
        ranked: the finalists, the best first as far as is known.

    Raises:
        TrainingError: when all trainings of a round diverge.
    """
    remaining = list(ranked[: context.config.finalists.trained])
    rounds = halving_rounds(len(remaining))
    if not rounds:
        return ranked[0]
    reporter, text, how = context.reporter, context.task.metric.text, _recipe(context.config)
    teacher = teacher_of(context)
    with closing(context.run.open_journal(reporter.say, HALVING[name])) as journal:
        known = {
            (score.architecture, score.epochs): score
            for score in journal.read(HalvingScore.from_json)
            if score.recipe == how
        }
        for each in rounds:
            settings = context.config.training.to_compare(each.share)
            scores: list[float] = []
            for number, trial in enumerate(remaining, start=1):
                score = known.get((str(trial.architecture), settings.epochs))
                if score is None:
                    label = f"finalist {number} of {len(remaining)}, {name}"
                    quality = _trained_quality(context, loop, label, trial, settings, teacher)
                    score = HalvingScore(how, str(trial.architecture), settings.epochs, quality)
                    journal.append(score.to_json())
                scores.append(-math.inf if score.quality is None else score.quality)
            if max(scores) == -math.inf:
                raise TrainingError(f"{name}: the trainings of all finalists diverged, for example: {slower(context)}")
            order = sorted(range(len(remaining)), key=lambda i: -scores[i])
            best = ", ".join(text(scores[i]) for i in order if scores[i] > -math.inf)
            reporter.say(f"{name}, {len(remaining)} finalists after {settings.epochs:g} epochs: {best}")
            remaining = [remaining[i] for i in order[: -(-len(order) // 2)]]
    return remaining[0]


def _recipe(config: RunConfig) -> str:
    """Names everything in the settings that decides a score, data and seed apart."""
    if not config.finalists.quantized:
        return recipe(config)
    export = config.export.model_dump(
        mode="json", include={"precision", "quantization", "aware_share", "aware_rate", "representative_images"}
    )
    return digest({"trained": recipe(config), "export": export})


def _trained_quality(
    context: RunContext,
    loop: SearchLoop,
    label: str,
    trial: Trial,
    settings: TrainingSettings,
    teacher: Teacher | None,
) -> float | None:
    """Quality on validation data after a training without them; None when the training diverges.

    Also None when what the network, or its file, answers is not numbers.
    """
    contender = contender_of(context, loop, label, trial)
    try:
        weights = train(context, contender, settings, teacher)
        export = context.config.export
        if context.config.finalists.quantized and export.quantization == "aware" and not ranges_of(weights):
            tuning = tuning_settings(settings, export.aware_share, export.aware_rate)
            weights = train(context, replace(contender, initial=weights), tuning, teacher, "tuning")
    except TrainingError as error:
        context.reporter.say(f"{trial.architecture}: {error}")
        return None
    if context.config.finalists.quantized:
        quality = quantized_quality(
            context.config, context.network_task, context.required_data, contender.network, weights
        )
        return quality if math.isfinite(quality) else None
    return validation_quality(context, contender.network, weights)
