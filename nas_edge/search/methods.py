"""Search methods by name.

    one-shot      one set of shared weights for all architectures, see `one_shot.py`
    multi-trial   each architecture evaluated on its own, see `multi_trial.py`
    alternating   networks likewise, what is beside them by enumeration, see `alternating.py`

A new method of this package is one file with its settings and a `SearchLoop`, and one line in `METHODS`. Other packages
add theirs by entry points of the group `nas_edge.search_methods`. `nas_edge.testing.check_search_loop` checks what a
loop promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nas_edge.controllers import CONTROLLERS, SearchPlan
from nas_edge.controllers.base import Controller
from nas_edge.errors import ConfigError
from nas_edge.joint.space import JointSpace
from nas_edge.latency.pooled import PooledLatency
from nas_edge.latency.source import LatencySource
from nas_edge.networks.precisions import Precision
from nas_edge.quality import QUALITY_SOURCES
from nas_edge.quality.source import QualityContext, QualitySource
from nas_edge.registry import Entry, Registry
from nas_edge.rewards import REWARDS, Objective, Reward, Value
from nas_edge.search.alternating import AlternatingController, AlternatingSearch, AlternatingSettings, Enumerable
from nas_edge.search.complexity import DecayBySize
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.loop import SearchLoop
from nas_edge.search.multi_trial import MultiTrialSearch, MultiTrialSettings
from nas_edge.search.one_shot import OneShotSearch, OneShotSettings
from nas_edge.search.settings import SearchSettings
from nas_edge.seeds import generator, integer
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace
from nas_edge.tasks.base import NetworkTask, Task, TaskData


@dataclass(frozen=True)
class SearchContext:
    """What a search method may be made of.

    Attributes:
        space: where to search.
        task: what the networks are for.
        data: what they learn from; None for a task without.
        latency: where latencies of candidates come from.
        objectives: resources with targets.
        seed: of the run; every purpose has its own stream, see `seeds`.
        pooled: what steadies noisy latencies, see `Evaluator`.
        evaluation_batch_size: examples that are scored at once, where the settings leave that open.
        precision: that is delivered.
    """

    space: SearchSpace
    task: Task
    data: TaskData | None
    latency: LatencySource
    objectives: Sequence[Objective]
    seed: int
    pooled: PooledLatency | None = None
    evaluation_batch_size: int = 256
    precision: Precision = "float32"


def make_controller(
    settings: SearchSettings, context: SearchContext, space: SearchSpace | None = None, steps: int | None = None
) -> Controller:
    """The controller that the settings name.

    Args:
        settings: of the search.
        context: of the search.
        space: where to propose, if not in the context's space.
        steps: number of steps it is made for, if not those of the search.
    """
    form, objectives = REWARDS[settings.reward], tuple(context.objectives)

    def reward(quality: Value, usage: Mapping[str, Value]) -> Value:
        return form(quality, usage, objectives)

    plan = SearchPlan(steps or settings.steps, settings.delay_steps, settings.samples_per_step, reward)
    return CONTROLLERS.make(settings.controller, space or context.space, plan)


def _evaluator(quality: QualitySource, reward: Reward, context: SearchContext) -> Evaluator:
    return Evaluator(
        context.space,
        quality,
        context.latency,
        context.objectives,
        reward,
        context.pooled,
        context.precision,
    )


def _one_shot(settings: OneShotSettings, context: SearchContext) -> SearchLoop:
    from nas_edge.errors import ConfigError
    from nas_edge.quality.shared_weights import SharedWeightsQuality
    from nas_edge.supernet.distribution import make_strategy
    from nas_edge.supernet.shared_weights import SharedWeights
    from nas_edge.supernet.supernet import Supernet
    from nas_edge.training.optimizers import make_optimizer, scaled_if_float16
    from nas_edge.training.schedules import CosineWithWarmup, PowerOfCosine

    space, task, data, seed = context.space, context.task, context.data, context.seed
    weights = settings.weights
    if not isinstance(space, NetworkSpace) or not isinstance(task, NetworkTask) or data is None:
        raise ConfigError(
            f"a one-shot search trains networks, which {space.name} does not describe", fix="use --method multi-trial"
        )
    if settings.sandwich and not task.distills:
        raise ConfigError("search.sandwich=true requires a task whose networks can teach others", fix="leave it out")
    strategy = make_strategy(settings.distribution)
    if settings.samples_per_step % strategy.num_replicas_in_sync:
        raise ConfigError(
            f"search.samples_per_step={settings.samples_per_step} cannot be shared out among the "
            f"{strategy.num_replicas_in_sync} replicas of search.distribution={settings.distribution}",
            expected="a multiple of the replicas",
        )
    updates = settings.steps * settings.updates_per_step
    make_schedule = PowerOfCosine if settings.complexity_aware else CosineWithWarmup
    schedule = make_schedule(settings.peak_learning_rate, updates, round(updates * weights.warmup_fraction))
    decay = DecayBySize(space, schedule, generator(seed, "sizes")) if isinstance(schedule, PowerOfCosine) else None
    with strategy.scope():
        shared = SharedWeights(
            Supernet(
                space,
                settings.execution,  # type: ignore[arg-type]
                integer(seed, "supernet"),
                settings.rematerialize,
                settings.precision,
            ),
            scaled_if_float16(make_optimizer(weights, schedule), settings.precision),
            task,
            weights,
            weights.batch_size if settings.xla else None,
        )
    parts = data.split
    train = data.shuffled(parts.train, weights.batch_size, generator(seed, "train"))
    size = min(settings.validation_batch_size, len(parts.validation))
    validation = data.shuffled(parts.validation, size, generator(seed, "validation"), augmented=False)
    at_once = settings.evaluation_batch_size or context.evaluation_batch_size
    quality, reward = SharedWeightsQuality(shared, task, data, at_once), REWARDS[settings.reward]
    evaluator = _evaluator(quality, reward, context)
    rng = generator(seed, "controller")
    return OneShotSearch(make_controller(settings, context), evaluator, shared, train, validation, rng, settings, decay)


def _evaluator_of_trials(settings: MultiTrialSettings, context: SearchContext) -> Evaluator:
    at_once = settings.evaluation_batch_size or context.evaluation_batch_size
    parts = QualityContext(context.space, context.task, context.data, context.seed, at_once)
    return _evaluator(QUALITY_SOURCES.make(settings.quality, parts), REWARDS[settings.reward], context)


def _multi_trial(settings: MultiTrialSettings, context: SearchContext) -> SearchLoop:
    evaluator = _evaluator_of_trials(settings, context)
    rng = generator(context.seed, "controller")
    return MultiTrialSearch(make_controller(settings, context), evaluator, rng, settings)


def _alternating(settings: AlternatingSettings, context: SearchContext) -> SearchLoop:
    space = context.space
    if not isinstance(space, JointSpace) or not isinstance(space, Enumerable):
        raise ConfigError(
            f"an alternating search enumerates the choices beside a network, which {space.name} does not support",
            fix="use --method multi-trial, or --joint accelerator",
        )
    of_round = -(-settings.steps // settings.rounds)
    make = partial(make_controller, settings, context, space.networks, of_round)
    controller = AlternatingController(space, make, space.first_beside)
    evaluator = _evaluator_of_trials(settings, context)
    return AlternatingSearch(controller, evaluator, generator(context.seed, "controller"), settings)


METHODS: Registry[SearchLoop] = Registry(
    "method",
    "search method",
    "nas_edge.search_methods",
    {
        "one-shot": Entry(OneShotSettings, _one_shot, "one set of shared weights for all architectures"),
        "multi-trial": Entry(MultiTrialSettings, _multi_trial, "each architecture evaluated on its own"),
        "alternating": Entry(
            AlternatingSettings, _alternating, "networks by trials, what is beside them by enumeration"
        ),
    },
    made=SearchLoop,
)


def make_search(settings: Any, context: SearchContext) -> SearchLoop:
    """Puts the parts of the loop together.

    Raises:
        ConfigError: when they do not fit each other.
    """
    return METHODS.make(settings, context)
