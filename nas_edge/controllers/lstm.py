"""The recurrent controller of ENAS: an LSTM whose decisions depend on those before, trained with REINFORCE.

Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018,
arXiv:1802.03268; patents US10984319B2, US20210232929A1; its authors' code. The mathematics is in `recurrent.py`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator
from threadpoolctl import ThreadpoolController

from nas_edge.controllers import reinforce
from nas_edge.controllers.base import Controller, Outcome, SearchPlan, State
from nas_edge.controllers.baseline import Baseline, Taken
from nas_edge.controllers.recurrent import (
    SKIP,
    BoolArray,
    IntArray,
    RecurrentPolicy,
    Squashing,
    Trace,
    by_logits_of_divergence,
    by_logits_of_entropy,
    by_logits_of_log_prob,
)
from nas_edge.controllers.reinforce import FloatArray, MovingAverage
from nas_edge.settings import ChoiceSettings, one_of
from nas_edge.spaces.decisions import Architecture, SearchSpace

# Architectures over which probabilities are averaged; the draws are always the same.
_AVERAGED = 32

_ALIKE: dict[str, Any] = {
    "shared": True,
    "entropy_weight": 1e-4,
    "baseline_momentum": 0.99,
    "baseline": "before",
    "baseline_start": 0.0,
    "normalized": False,
    "final_factor": 1.0,
    "lstm_factor": 1.0,
    "adam_epsilon": 1e-3,
}
# Published settings, by the space they were for.
PUBLISHED: dict[str, dict[str, Any]] = {
    "enas-macro": {**_ALIKE, "learning_rate": 1e-3, "tanh_constant": 1.5, "op_tanh_reduce": 1.0},
    "enas-micro": {**_ALIKE, "learning_rate": 3.5e-3, "tanh_constant": 1.1, "op_tanh_reduce": 2.5, "skip_weight": 0.0},
}


class LstmSettings(ChoiceSettings):
    """Settings of the recurrent controller; `lstm:enas-macro` is short for published ones."""

    text_field: ClassVar[str] = "published"

    name: Literal["lstm"] = "lstm"
    published: Annotated[str | None, one_of(PUBLISHED)] = Field(
        None, description=f"use published values for all settings not given: {', '.join(PUBLISHED)}"
    )
    hidden: int = Field(64, ge=1, le=1024, description="width of the LSTM and of embeddings")
    shared: bool = Field(
        False,
        description="decisions of the same kind and choices share embeddings and output weights (published: true); "
        "otherwise each has its own, and a bias",
    )
    temperature: float = Field(1.0, gt=0, description="divides the logits; published: 5 in the paper, 1 in the code")
    tanh_constant: float | None = Field(
        None, gt=0, description="bounds the logits; published: 1.5 for enas-macro, 1.1 for enas-micro"
    )
    op_tanh_reduce: float = Field(
        1.0, gt=0, description="divides tanh_constant, but not for connections; published: 2.5 for enas-micro"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="at the end of the delay; null: from the number of steps; published: 0.001, 0.0035"
    )
    final_factor: float = Field(3.0, gt=0, description="ratio of the last learning rate to the first; published: 1")
    lstm_factor: float = Field(
        0.003, gt=0, le=1, description="learning rate of all other weights relative to that of the biases; published: 1"
    )
    adam_epsilon: float = Field(1e-8, gt=0, description="published: 0.001")
    entropy_weight: float = Field(0.0, ge=0, description="reward per nat of entropy; published: 1e-4")
    baseline_momentum: float = Field(
        0.95, ge=0, lt=1, description="of the moving average that rewards are compared to; published: 0.99"
    )
    baseline: Taken = Field(
        "after",
        description="whether a reward enters the moving average before or after it is compared; published: before",
    )
    baseline_start: float | None = Field(
        None, description="where the moving average starts; null: at the first rewards; published: 0"
    )
    normalized: bool = Field(True, description="divide advantages by their moving root mean square; published: false")
    skip_weight: float = Field(
        0.8,
        ge=0,
        description="reward that each nat of divergence of connections from skip_target costs, if there are any",
    )
    skip_target: float = Field(0.4, gt=0, lt=1, description="desired share of possible connections")

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: Any) -> Any:
        """Adds published settings; an unknown name is left to validation."""
        published = given.get("published") if isinstance(given, Mapping) else None
        return {**PUBLISHED[published], **given} if isinstance(published, str) and published in PUBLISHED else given


def make_lstm(settings: LstmSettings, space: SearchSpace, plan: SearchPlan) -> LstmController:
    """Makes the controller for a search."""
    return LstmController(space, settings, plan)


class LstmController(Controller):
    """One decision after another, each by an LSTM that knows those before it.

    One update takes the outcomes of one step, one or several:

    1. advantages are rewards minus the baseline (`baseline.py`), a reward including `entropy_weight` times the entropy
       of the decisions that were reached;
    2. the objective is the mean of advantage times log-probability, plus `entropy_weight` times the entropy, minus
       `skip_weight` times the divergence of connections from `skip_target`, all divided by the moving root mean square
       of the advantages if these are normalised;
    3. the weights move by the scheduled learning rate along Adam's direction.

    As with the categorical policy, decisions that are not reached and those that warm-up replaced do not count.
    Decisions after a replaced one are conditioned on what was run.

    The gradient of the entropy is exact: its effect on later decisions enters through the reward, the rest directly.
    The published code has the former only, and takes its divergence of connections from the sigmoid of a logit,
    although the probability is that of twice the logit; here it is taken from the probability.

    Weights are drawn at the first proposal. Outcomes from before it are ignored, since they are not its own.

    Args:
        space: where to search.
        settings: all of them.
        plan: of the search.

    Attributes:
        policy: the network that `weights` belong to.
        weights: None before the first proposal.
    """

    name = "lstm"

    def __init__(self, space: SearchSpace, settings: LstmSettings, plan: SearchPlan) -> None:
        super().__init__(space)
        self._settings, self._plan = settings, plan
        constant = settings.tanh_constant
        self.policy = RecurrentPolicy(
            space,
            settings.hidden,
            settings.shared,
            Squashing(settings.temperature, constant and constant / settings.op_tanh_reduce),
            Squashing(settings.temperature, constant),
        )
        # Adam's second moment is that of a step's mean gradient, so the number of samples makes no difference.
        updates = plan.total_steps - plan.delay_steps
        self._base_learning_rate = settings.learning_rate or reinforce.default_base_rate(updates)
        self._factors = self.policy.factors(settings.lstm_factor)
        self.weights: FloatArray | None = None
        self._v: FloatArray = np.zeros(self.policy.size)
        self._count = 0
        self._baseline = Baseline(settings.baseline_momentum, settings.baseline, settings.baseline_start)
        self._square = MovingAverage()
        self._entropy: float | None = None

    def learning_rate(self, step: int) -> float:
        """The rate at which `update` moves the weights at `step`."""
        total, delay = self._plan.total_steps, self._plan.delay_steps
        return reinforce.learning_rate(step, total, delay, self._base_learning_rate, self._settings.final_factor)

    def propose(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Draws from the policy."""
        if self.weights is None:
            self.weights = self.policy.initial(rng)
        choices = self._drawn(self.weights, n, rng).choices
        return [Architecture(tuple(row)) for row in choices.tolist()]

    def update(self, outcomes: Sequence[Outcome], step: int) -> None:
        """One step of REINFORCE; see the class."""
        rate = self.learning_rate(step)
        if self.weights is None or rate <= 0:
            return
        rewarded = self._baseline.rewarded(outcomes)
        if not rewarded:
            return
        proposals = [outcome.proposal for outcome, _ in rewarded]
        choices = np.array([proposal.architecture.choices for proposal in proposals])
        active = np.array([proposal.active for proposal in proposals])
        counted = active & ~np.array([proposal.replaced for proposal in proposals])
        with _one_thread():
            trace = self.policy.run(self.weights, len(choices), lambda i, pi: choices[:, i], active)
            rewards = np.array([reward for _, reward in rewarded])
            rewards += self._settings.entropy_weight * trace.entropy(counted)
            advantages = self._baseline.advantages(rewards)
            by_logits = self._by_logits(trace, counted, advantages, self._scale(advantages))
            self._entropy = float(trace.entropy(np.ones_like(active)).mean())
            gradient = self.policy.gradient(self.weights, trace, by_logits)[None] / len(choices)
        self._v = reinforce.second_moment(self._v, gradient)
        self._count += 1
        direction = reinforce.adam_direction(self._v, self._count, gradient, epsilon=self._settings.adam_epsilon)
        self.weights = self.weights + rate * self._factors * direction

    def _scale(self, advantages: FloatArray) -> float:
        """The divisor of an update; adds the advantages to their moving mean square."""
        if not self._settings.normalized:
            return 1.0
        self._square = self._square.update(float(np.mean(advantages**2)), self._settings.baseline_momentum)
        return float(np.sqrt(self._square.value or 0.0)) or 1.0

    def _by_logits(self, trace: Trace, counted: BoolArray, advantages: FloatArray, scale: float) -> list[FloatArray]:
        """The gradient of the objective with respect to the logits of each decision."""
        settings = self._settings
        skips = [i for i, decision in enumerate(self.space.decisions) if decision.kind == SKIP]
        blocks = {self.space.decisions[i].path.rpartition(".")[0] for i in skips}
        target = np.array([1.0 - settings.skip_target, settings.skip_target])
        by_logits = []
        for i, pi in enumerate(trace.pi):
            gradient = advantages[:, None] * by_logits_of_log_prob(pi, trace.choices[:, i])
            if settings.entropy_weight > 0:
                gradient += settings.entropy_weight * by_logits_of_entropy(pi)
            if i in skips:  # summed over a block's connections, averaged over blocks, as published
                gradient -= settings.skip_weight / len(blocks) * by_logits_of_divergence(pi, target)
            by_logits.append(gradient * counted[:, i, None] / scale)
        return by_logits

    def most_likely(self) -> Architecture:
        """The most likely choice of each decision, given those before it; the first of equals."""
        if self.weights is None:
            return self.space.canonical(Architecture((0,) * len(self.space.decisions)))
        with _one_thread():
            trace = self.policy.run(self.weights, 1, lambda i, pi: pi.argmax(axis=1))
        return self.space.canonical(Architecture(tuple(trace.choices[0].tolist())))

    def probabilities(self) -> dict[str, tuple[float, ...]]:
        """The probability of each choice, averaged over a fixed number of draws; uniform before the first proposal."""
        if self.weights is None:
            return {d.path: (1.0 / len(d.choices),) * len(d.choices) for d in self.space.decisions}
        pi = self._drawn(self.weights, _AVERAGED, np.random.default_rng(0)).pi
        return {
            decision.path: tuple(rows.mean(axis=0).tolist())
            for decision, rows in zip(self.space.decisions, pi, strict=True)
        }

    def entropy(self) -> float:
        """Sum over all decisions of their conditional entropies in nats, averaged over the last update's outcomes.

        That is the entropy of the policy before the update; that of `probabilities` would be higher where decisions
        depend on others.
        """
        if self._entropy is None:
            return float(sum(np.log(len(decision.choices)) for decision in self.space.decisions))
        return self._entropy

    def _drawn(self, weights: FloatArray, n: int, rng: np.random.Generator) -> Trace:
        draws = rng.random((n, len(self.space.decisions)))

        def decide(position: int, pi: FloatArray) -> IntArray:
            below = np.cumsum(pi, axis=1) <= draws[:, position, None]
            # The sum of a softmax may round to just under 1, and the draw fall above it.
            return np.asarray(np.minimum(below.sum(axis=1), pi.shape[1] - 1))

        with _one_thread():
            return self.policy.run(weights, n, decide)

    def _learned(self) -> State:
        return {
            "weights": None if self.weights is None else _as_text(self.weights),
            "v": _as_text(self._v),
            "count": self._count,
            "entropy": self._entropy,
            **self._baseline.state(),
            "square": [self._square.numerator, self._square.weight],
        }

    def _restore_learned(self, learned: Mapping[str, Any]) -> None:
        self.weights = None if learned["weights"] is None else _of_text(learned["weights"])
        self._v = _of_text(learned["v"])
        self._count = int(learned["count"])
        self._baseline.restore(learned)
        self._square = MovingAverage(*learned["square"])
        self._entropy = learned["entropy"]


def _as_text(array: FloatArray) -> str:
    """Base64: for a hundred thousand numbers, a tenth of the time and half of the space of a JSON list."""
    return base64.b64encode(array.astype("<f8").tobytes()).decode("ascii")


def _of_text(text: str) -> FloatArray:
    return np.frombuffer(base64.b64decode(text), "<f8").astype(np.float64)


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _one_thread() -> Any:
    """With several threads, results would depend on the number of cores, and small matrices would be slower."""
    return _libraries().limit(limits=1, user_api="blas")
