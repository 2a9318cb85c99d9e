"""The TuNAS controller: one independent categorical per decision, learned with REINFORCE.

Sources: TuNAS (arXiv:2008.06120, patent US11347995). The mathematics is in `reinforce.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from nas_edge.controllers import reinforce
from nas_edge.controllers.base import Controller, Outcome, SearchPlan, State
from nas_edge.controllers.baseline import Baseline, Taken
from nas_edge.controllers.reinforce import FloatArray
from nas_edge.errors import ConfigError
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture, SearchSpace


class ReinforceSettings(ChoiceSettings):
    """The settings of the TuNAS controller."""

    name: Literal["reinforce"] = "reinforce"
    learning_rate: float | None = Field(
        None, gt=0, description="at the end of the delay, rising tenfold; None fits the length"
    )
    baseline_momentum: float = Field(0.95, ge=0, lt=1, description="of the moving average that rewards are compared to")
    baseline: Taken = Field(
        "after",
        description="whether the moving average takes a reward in before or after it is compared; published: before",
    )
    second_moments: Literal["learning", "always"] = Field(
        "learning",
        description="when Adam's second moments take gradients in: once the controller learns, or in the delay, too, "
        "where a one-shot search then evaluates networks; published: always",
    )
    entropy_weight: float = Field(0.0, ge=0, description="what an entropy of one nat is worth in reward")
    temperature: float = Field(1.0, gt=0, description="divides the logits")

    @property
    def evaluates_delay(self) -> str:
        """The setting that has networks of the delay evaluated, as a user writes it; empty where none has."""
        return "second_moments=always" if self.second_moments == "always" else ""


def make_reinforce(settings: ReinforceSettings, space: SearchSpace, plan: SearchPlan) -> CategoricalController:
    """Makes the controller for a search."""
    return CategoricalController(
        space,
        plan.total_steps,
        samples_per_step=plan.samples_per_step,
        base_learning_rate=settings.learning_rate,
        delay_steps=plan.delay_steps,
        temperature=settings.temperature,
        momentum=settings.baseline_momentum,
        baseline=settings.baseline,
        entropy_weight=settings.entropy_weight,
        accumulate_during_delay=bool(settings.evaluates_delay),
    )


class CategoricalController(Controller):
    """Independent categoricals, learned with REINFORCE.

    One update takes the outcomes of one step, one or several:

    1. advantages are rewards minus the baseline;
    2. Adam's second moment takes in the squared per-sample gradients;
    3. the logits move by the scheduled learning rate along Adam's direction, plus, as plain gradient ascent so that
       Adam does not rescale it, `entropy_weight` times the gradient of the mean entropy.

    What rewards are compared with, and what a candidate that failed is given, is in `baseline.py`.

    Args:
        space: where to search.
        total_steps: length of the search in steps; the learning rate follows it.
        samples_per_step: outcomes per update to expect; the default learning rate depends on it.
        base_learning_rate: rate at the end of the delay; it rises tenfold from there. None takes
            `reinforce.default_base_rate` for the steps that remain after the delay.
        delay_steps: steps at the start in which the logits rest while the shared weights learn.
        temperature: divides the logits.
        momentum: of the baseline.
        baseline: see `baseline.py`.
        entropy_weight: what an entropy of one nat is worth in reward; 0 adds nothing.
        accumulate_during_delay: whether Adam's second moment learns from outcomes of the delay, as in the TuNAS
            code. Rewards of the delay are those of weights that know little: their small gradients make the first steps
            of the policy large, and the baseline starts low. Without it, outcomes of the delay are left alone.

    Raises:
        ConfigError: when a setting is out of range.
    """

    name = "reinforce"

    def __init__(
        self,
        space: SearchSpace,
        total_steps: int,
        *,
        samples_per_step: int = 1,
        base_learning_rate: float | None = None,
        delay_steps: int = 0,
        temperature: float = 1.0,
        momentum: float = 0.95,
        baseline: Taken = "after",
        entropy_weight: float = 0.0,
        accumulate_during_delay: bool = False,
    ) -> None:
        super().__init__(space)
        _require(total_steps >= 1, "total_steps", "at least 1", total_steps)
        _require(samples_per_step >= 1, "samples_per_step", "at least 1", samples_per_step)
        _require(0 <= delay_steps < total_steps, "delay_steps", "0 or more and below total_steps", delay_steps)
        if base_learning_rate is None:
            base_learning_rate = reinforce.default_base_rate(total_steps - delay_steps, samples_per_step)
        _require(base_learning_rate > 0, "base_learning_rate", "positive", base_learning_rate)
        _require(temperature > 0, "temperature", "positive", temperature)
        _require(0 <= momentum < 1, "momentum", "in [0, 1)", momentum)
        _require(baseline in ("before", "after"), "baseline", "'before' or 'after'", baseline)
        _require(entropy_weight >= 0, "entropy_weight", "0 or more", entropy_weight)
        self._total_steps = total_steps
        self._base_learning_rate = base_learning_rate
        self._delay_steps = delay_steps
        self._temperature = temperature
        self._entropy_weight = entropy_weight
        self._accumulate_during_delay = accumulate_during_delay
        self.attends_delay = accumulate_during_delay and delay_steps > 0

        sizes = [len(decision.choices) for decision in space.decisions]
        self._splits = np.cumsum(sizes)[:-1]
        self._theta: FloatArray = np.concatenate(
            [reinforce.starting_logits(len(d.choices), d.start) * temperature for d in space.decisions]
        )
        self._v: FloatArray = np.zeros(sum(sizes))
        self._count = 0
        self._baseline = Baseline(momentum, baseline)

    @property
    def logits(self) -> list[FloatArray]:
        """The logits of each decision, in the space's order."""
        return np.split(self._theta, self._splits)

    @property
    def baseline(self) -> float | None:
        """The moving average of rewards, or None before the first."""
        return self._baseline.value

    def learning_rate(self, step: int) -> float:
        """The rate at which `update` moves the logits at `step`."""
        return reinforce.learning_rate(step, self._total_steps, self._delay_steps, self._base_learning_rate)

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Draws from the policy."""
        return [self._draw(rng) for _ in range(n)]

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """One step of REINFORCE; see the class."""
        rewarded = self._baseline.rewarded(outcomes)
        if not rewarded:
            return
        advantages = self._baseline.advantages(np.array([reward for _, reward in rewarded]))
        logits = self.logits
        gradients = np.stack(
            [
                advantage
                * reinforce.log_prob_gradient(
                    logits,
                    outcome.proposal.architecture.choices,
                    outcome.proposal.active,
                    outcome.proposal.replaced,
                    self._temperature,
                )
                for (outcome, _), advantage in zip(rewarded, advantages, strict=True)
            ]
        )  # [samples, logits]
        rate = self.learning_rate(step)
        if rate > 0 or self._accumulate_during_delay:
            self._v = reinforce.second_moment(self._v, gradients)
            self._count += 1
        if rate > 0:
            direction = reinforce.adam_direction(self._v, self._count, gradients)
            if self._entropy_weight > 0:
                direction += self._entropy_weight * np.mean(
                    [reinforce.entropy_gradient(logits, o.proposal.active, self._temperature) for o, _ in rewarded],
                    axis=0,
                )
            self._theta = self._theta + rate * direction

    def most_likely(self) -> Architecture:
        """The most likely choice of each decision; the first of equals."""
        return self.space.canonical(Architecture(tuple(int(np.argmax(row)) for row in self.logits)))

    def probabilities(self) -> dict[str, tuple[float, ...]]:
        """The policy."""
        return {
            decision.path: tuple(reinforce.policy(logits, self._temperature).tolist())
            for decision, logits in zip(self.space.decisions, self.logits, strict=True)
        }

    def _draw(self, rng: np.random.Generator) -> Architecture:
        draws = rng.random(len(self.space.decisions))
        choices = []
        for logits, draw in zip(self.logits, draws, strict=True):
            cumulative = np.cumsum(reinforce.policy(logits, self._temperature))
            # The sum of a softmax may round to just under 1, and the draw fall above it.
            choices.append(min(int(np.searchsorted(cumulative, draw, side="right")), len(logits) - 1))
        return Architecture(tuple(choices))

    def _learned(self) -> State:
        return {
            "logits": self._theta.tolist(),
            "v": self._v.tolist(),
            "count": self._count,
            **self._baseline.state(),
        }

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        self._theta = np.array(learned["logits"], dtype=np.float64)
        self._v = np.array(learned["v"], dtype=np.float64)
        self._count = int(learned["count"])
        self._baseline.restore(learned)


def _require(holds: bool, setting: str, expected: str, received: object) -> None:
    if not holds:
        raise ConfigError(f"controller.{setting} must be {expected}", received=f"{received!r}")
