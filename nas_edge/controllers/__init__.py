"""Controllers: what proposes architectures and learns from how they did. Start reading at `base.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from nas_edge.controllers.base import Controller, Outcome, Proposal
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.controllers.evolution import EvolutionController
from nas_edge.controllers.random_search import RandomSearchController
from nas_edge.registry import Entry, Registry
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import SearchSpace


@dataclass(frozen=True)
class SearchPlan:
    total_steps: int
    delay_steps: int
    samples_per_step: int
    seed: int


class ControllerSettings(ChoiceSettings):
    name: str


class ReinforceSettings(ControllerSettings):
    name: str = "reinforce"
    learning_rate: float | None = Field(
        None, gt=0, description="of the controller at the end of the delay, rising tenfold; None fits the length"
    )
    baseline_momentum: float = Field(0.95, ge=0, lt=1)
    entropy_weight: float = Field(0.0, ge=0)
    temperature: float = Field(1.0, gt=0)


def _reinforce(settings: Any, space: SearchSpace, plan: SearchPlan) -> Controller:
    return CategoricalController(
        space,
        plan.total_steps,
        samples_per_step=plan.samples_per_step,
        base_learning_rate=settings.learning_rate,
        delay_fraction=plan.delay_steps / plan.total_steps,
        temperature=settings.temperature,
        momentum=settings.baseline_momentum,
        entropy_weight=settings.entropy_weight,
        accumulate_during_delay=False,
    )


def _evolution(settings: Any, space: SearchSpace, plan: SearchPlan) -> Controller:
    judged = (plan.total_steps - plan.delay_steps) * plan.samples_per_step
    population = max(2, min(100, judged // 4))
    return EvolutionController(space, population_size=population, sample_size=max(1, population // 4))


CONTROLLERS: Registry[Controller] = Registry(
    "name",
    "controller",
    "nas_edge.controllers",
    {
        "reinforce": Entry(ReinforceSettings, _reinforce),
        "evolution": Entry(ControllerSettings, _evolution),
        "random": Entry(ControllerSettings, lambda settings, space, plan: RandomSearchController(space)),
    },
)

__all__ = [
    "CONTROLLERS",
    "CategoricalController",
    "Controller",
    "EvolutionController",
    "Outcome",
    "Proposal",
    "RandomSearchController",
]
