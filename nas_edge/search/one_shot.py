"""The TuNAS loop: one set of shared weights, one controller, one device in the loop.

One step:

1. propose architectures (during warm-up, some decisions run all their choices or their widest);
2. ask the device for their latencies, unless the device is this very host;
3. train the shared weights, one batch per proposal: one update after another (`weight_updates=sequential`), which on
   one machine is worth more, or one update with the mean of all proposals' gradients (`averaged`), as published;
4. score each proposal on a validation batch with the updated weights;
5. join quality and latency in a reward, and update the controller.

So a remote device measures while the weights train. With `reward_delay_steps` it may go on doing so over the next
steps: a reward then reaches the controller exactly that many steps late, whatever the device's pace, so results do not
depend on timing; every trial records both steps.

This host is asked only when an answer is due, and then for all candidates that wait for theirs, so that they share
rounds of visits; until they are there nothing trains.

While the controller rests (the delay) only step 3 is done: rewards of an untrained supernet would teach nothing. Where
the controller takes them in nevertheless (`controller.second_moments=always`, as published), networks of the delay are
scored and measured, too, those that run several operators at once excepted; they are no trials of the search.

Source: TuNAS, arXiv:2008.06120; US11347995; reference code `mobile_architecture_search.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from nas_edge.controllers.base import Controller, Proposal, State, as_proposed
from nas_edge.errors import TrainingError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate
from nas_edge.networks.donor import Donor, Start
from nas_edge.networks.primitives import IN, OUT
from nas_edge.quality.source import Quality
from nas_edge.search import warmup
from nas_edge.search.complexity import DecayBySize
from nas_edge.search.evaluation import Evaluator, known
from nas_edge.search.loop import SearchLoop, StepReport
from nas_edge.search.settings import SearchSettings
from nas_edge.search.trials import Trial
from nas_edge.search.weight_steps import Batches, WeightSteps
from nas_edge.spaces.extremes import largest
from nas_edge.training.settings import OptimizationSettings

if TYPE_CHECKING:
    from nas_edge.networks.graph import NetworkSpec, Weights
    from nas_edge.supernet.shared_weights import SharedWeights


class OneShotSettings(SearchSettings):
    """Settings of `one-shot`."""

    quality_drifts: ClassVar[bool] = True

    method: str = Field("one-shot", description="how architectures are evaluated")
    delay_fraction: float = Field(
        0.25, ge=0, lt=1, description="share of the steps in which only the shared weights train; the controller rests"
    )
    op_warmup_fraction: float = Field(0.25, ge=0, lt=1, description="share over which running all operators fades")
    filter_warmup_fraction: float = Field(0.25, ge=0, lt=1, description="share over which the largest width fades")
    reward_delay_steps: int = Field(
        0, ge=0, le=1000, description="steps by which a reward may reach the controller late, to keep devices busy"
    )
    op_warmup_decisions: int | None = Field(
        None, ge=1, description="operators that run all choices at once in a step of the warm-up; None: any number"
    )
    fair_sampling: bool = Field(
        False, description="while the controller rests, each choice of a decision comes equally often"
    )
    sandwich: bool = Field(
        False, description="an update trains the largest network, too, whose answers the proposal learns"
    )
    complexity_aware: bool = Field(
        False, description="the learning rate falls later where a large network is trained, sooner for a small one"
    )
    validation_batch_size: int = Field(512, ge=2)
    execution: str = Field(
        "sliced", pattern="^(sliced|masked)$", description="masked keeps static shapes, for XLA and TPU"
    )
    precision: str = Field(
        "float32",
        pattern="^(float32|mixed_bfloat16|mixed_float16)$",
        description="what networks compute with; weights stay float32, and mixed_float16 scales the loss",
    )
    xla: bool = Field(False, description="compile training steps with XLA; for masked execution on a GPU or TPU")
    rematerialize: bool = Field(
        True, description="run layers again in the backward pass: far less memory, for up to a third more work"
    )
    weights: OptimizationSettings = OptimizationSettings()
    distribution: str = Field(
        "none",
        pattern="^(none|mirrored|multi-worker)$",
        description="mirrored: a step's networks on all GPUs of this machine; multi-worker: of all those in TF_CONFIG",
    )
    weight_updates: str = Field(
        "sequential",
        pattern="^(sequential|averaged)$",
        description="sequential: one update per proposal; averaged: one per step, with the mean of their gradients",
    )
    random_baseline: bool = Field(True, description="also evaluate as many random architectures as the search did")

    @property
    def quality_origin(self) -> str:
        """See `SearchSettings`."""
        return "with shared weights"

    @property
    def delay_steps(self) -> int:
        """Steps before the controller learns."""
        return int(self.steps * self.delay_fraction)

    def connect_processes(self) -> None:
        """See `SearchSettings`."""
        if self.distribution != "none":
            from nas_edge.supernet.distribution import make_strategy

            make_strategy(self.distribution)

    @property
    def updates_per_step(self) -> int:
        """How often a step changes the shared weights; their schedule counts updates."""
        return self.samples_per_step if self.weight_updates == "sequential" else 1

    @property
    def peak_learning_rate(self) -> float:
        """Of the shared weights; an averaged update is of one batch as large as those of all its proposals."""
        averaged = self.samples_per_step // self.updates_per_step
        return self.weights.peak_learning_rate * averaged

    @model_validator(mode="after")
    def _fit_together(self) -> OneShotSettings:
        if self.xla and (self.execution != "masked" or self.distribution != "none"):
            raise ValueError("xla=true requires execution=masked, whose shapes are static, and distribution=none")
        if self.precision == "mixed_float16" and self.distribution != "none":
            raise ValueError("mixed_float16 requires distribution=none; with replicas, use mixed_bfloat16")
        return self

    @model_validator(mode="after")
    def _averaged_if_distributed(self) -> OneShotSettings:
        if self.distribution != "none" and self.weight_updates != "averaged":
            raise ValueError(
                f"distribution={self.distribution} requires weight_updates=averaged: updates that follow one another "
                "cannot be made at the same time"
            )
        return self

    @model_validator(mode="after")
    def _sequential_if_by_network(self) -> OneShotSettings:
        for name in ("sandwich", "complexity_aware"):
            if getattr(self, name) and self.weight_updates != "sequential":
                raise ValueError(
                    f"{name}=true requires weight_updates=sequential, where each update is of one proposal"
                )
        return self

    @model_validator(mode="after")
    def _warmup_within_delay(self) -> OneShotSettings:
        for name in ("op_warmup_fraction", "filter_warmup_fraction"):
            if getattr(self, name) > self.delay_fraction:
                raise ValueError(
                    f"{name} {getattr(self, name)} must not exceed delay_fraction {self.delay_fraction}, because a "
                    "network that runs several operators at once has no latency"
                )
        return self


@dataclass
class _Pending:
    """Proposals of one step that wait for their latencies, which are None where they are not asked for.

    On this host they are asked for when they are due; until then, a future is there only for what was answered before
    the run was stopped.
    """

    step: int
    proposals: Sequence[Proposal]
    candidates: Sequence[Candidate]
    latencies: list[Future[LatencyAnswer] | None]
    qualities: Sequence[float] = ()


class OneShotSearch(SearchLoop):
    """The loop and everything it carries from step to step.

    Args:
        controller: what proposes.
        evaluator: joins quality and latency; its own quality source serves `evaluate`, outside the loop.
        weights: the shared weights.
        train: batches for the weights.
        validation: batches for the quality.
        rng: the controller's randomness.
        settings: of the loop.
        decay: what adapts the learning rate to each network; None for nothing.
    """

    def __init__(
        self,
        controller: Controller,
        evaluator: Evaluator,
        weights: SharedWeights,
        train: Batches,
        validation: Batches,
        rng: np.random.Generator,
        settings: OneShotSettings,
        decay: DecayBySize | None = None,
    ) -> None:
        super().__init__(controller, evaluator, rng, settings.steps)
        self.settings, self._decay = settings, decay
        teacher = _masks(as_proposed(self.space, largest(self.space))) if settings.sandwich else None
        self.weight_steps = WeightSteps(weights, train, validation, settings.weight_updates == "averaged", teacher)
        self._pending: deque[_Pending] = deque()
        self._fair = warmup.FairSampler(self.space) if settings.fair_sampling else None

    @property
    def weights(self) -> SharedWeights:
        """The shared weights."""
        return self.weight_steps.weights

    def take_step(self) -> StepReport:
        """See `SearchLoop`."""
        step, settings = self.step, self.settings
        learning = step >= settings.delay_steps
        fractions = {"op": settings.op_warmup_fraction, "filters": settings.filter_warmup_fraction}
        replaced = {kind: warmup.probability(step, math.floor(settings.steps * f)) for kind, f in fractions.items()}
        samples, at_once = settings.samples_per_step, settings.op_warmup_decisions
        proposer = self._fair if self._fair is not None and not learning else self.controller
        proposals = warmup.propose(proposer, samples, self.rng, replaced, at_once)
        evaluated = [learning or (self.controller.attends_delay and not proposal.mixed) for proposal in proposals]
        told = list(compress(proposals, evaluated))
        candidates = [self.evaluator.candidate(proposal.architecture, step) for proposal in told]
        pending = _Pending(step, told, candidates, [None] * len(candidates))
        if not self.evaluator.latency.measures_on_host:
            self._ask(pending)

        losses = self._train(proposals)
        if told:
            # All of them, which replicas share out among themselves.
            pending.qualities = list(compress(self._scored(proposals), evaluated))
            self._pending.append(pending)
        trials: list[Trial] = []
        is_last = step + 1 == settings.steps
        if is_last:
            self.weight_steps.end()
        while self._pending and (is_last or step - self._pending[0].step >= settings.reward_delay_steps):
            trials += self._settle(self._pending.popleft())
        self.step += 1
        return StepReport(step, float(np.mean(losses)), tuple(trials), self.controller.entropy())

    def state(self) -> State:
        """See `SearchLoop`."""
        return {
            **super().state(),
            **self.weight_steps.state(),
            "pending": [_pending_state(pending) for pending in self._pending],
            **({} if self._fair is None else {"fair": self._fair.state()}),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `SearchLoop`; latencies that had not arrived when the state was taken are asked for again."""
        super().restore(state)
        self.weight_steps.restore(state)
        self._pending = deque(map(self._restored, state["pending"]))
        if self._fair is not None:
            self._fair.restore(state["fair"])

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The shared weights and their optimiser's state."""
        return self.weights.arrays()

    def restore_arrays(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """See `SearchLoop`."""
        self.weight_steps.restore_arrays(arrays)

    def weights_of(self, network: NetworkSpec) -> Weights:
        """See `SearchLoop`."""
        weights: Weights = self.weights.supernet.weights_of(network)
        return weights

    def start_from(self, donor: Donor) -> Start:
        """See `SearchLoop`."""
        arrays, taken = self.weights.arrays(), list[str]()
        layers = self.weights.supernet.trained_weights()
        for path, weights in layers.items():
            names = [f"weights/{path}/{weight.name}" for weight in weights]
            found = donor.layer(path, weights, [arrays[name].shape for name in names], frozenset((IN, OUT)))
            if found is not None:
                arrays |= {name: array for name, array in zip(names, found, strict=True) if array is not None}
                taken.append(path)
        self.weight_steps.restore_arrays(arrays)
        return Start(tuple(taken), tuple(path for path in layers if path not in taken))

    def diverged(self, what: str) -> TrainingError:
        """See `SearchLoop`; of the shared weights, or what follows from them."""
        return TrainingError(
            f"the training of the shared weights has diverged: at step {self.step} {what}. What was measured is in the "
            "journal",
            fix="start a new run with a lower learning rate, for example with --set search.weights.learning_rate="
            f"{self.settings.weights.learning_rate / 2:.2g}",
        )

    def _scored(self, proposals: Sequence[Proposal]) -> list[float]:
        """Qualities with the shared weights as they are."""
        qualities = self.weight_steps.score([_masks(proposal) for proposal in proposals])
        if not all(map(math.isfinite, qualities)):
            raise self.diverged("what a network answers is not numbers")
        return qualities

    def _train(self, proposals: Sequence[Proposal]) -> list[float]:
        if self._decay is None:
            losses = self.weight_steps.train([_masks(proposal) for proposal in proposals])
        else:
            losses = []
            for proposal in proposals:
                self._decay.set_for(proposal.architecture)
                losses += self.weight_steps.train([_masks(proposal)])
        if not all(map(math.isfinite, losses)):
            raise self.diverged(f"the loss is {losses}")
        return losses

    def _restored(self, pending: Mapping[str, Any]) -> _Pending:
        proposals = [Proposal.from_json(row) for row in pending["proposals"]]
        candidates = [self.evaluator.candidate(proposal.architecture, pending["step"]) for proposal in proposals]
        latencies = [None if row is None else known(LatencyAnswer.from_json(row)) for row in pending["measured"]]
        restored = _Pending(pending["step"], proposals, candidates, latencies, pending["qualities"])
        if not self.evaluator.latency.measures_on_host:
            self._ask(restored)
        return restored

    def _settle(self, pending: _Pending) -> list[Trial]:
        """Waits for the latencies of an earlier step (or this one) and lets the controller learn from them."""
        if self.evaluator.latency.measures_on_host:
            self._measure_together([pending, *self._pending])
        trials = []
        for candidate, future, quality in zip(pending.candidates, pending.latencies, pending.qualities, strict=True):
            answer = None if future is None else future.result()
            trials.append(self.evaluator.assess(candidate, Quality(quality), answer, pending.step, self.step))
        if pending.step < self.settings.delay_steps:
            self.tell(pending.proposals, trials)
            return []
        self.learn(pending.proposals, trials)
        return trials

    def _measure_together(self, waiting: Sequence[_Pending]) -> None:
        """Has everything measured that waits, if the first of it has to be, and waits for all of it."""
        if not _unasked(waiting[0]):
            return
        self.weight_steps.settle()
        for pending in waiting:
            self._ask(pending)
        wait([future for pending in waiting for future in pending.latencies if future is not None])

    def _ask(self, pending: _Pending) -> None:
        """Asks for the latencies that are not there yet."""
        for i in _unasked(pending):
            pending.latencies[i] = self.evaluator.latency.submit(pending.candidates[i])


def _unasked(pending: _Pending) -> list[int]:
    """Positions of what has to be asked for: a proposal that runs several operators at once is not a single network."""
    return [
        i
        for i, (proposal, latency) in enumerate(zip(pending.proposals, pending.latencies, strict=False))
        if latency is None and not proposal.mixed
    ]


def _masks(proposal: Proposal) -> np.ndarray[Any, np.dtype[np.float32]]:
    masks = np.zeros((len(proposal.weights), max(map(len, proposal.weights))), np.float32)
    for row, weights in zip(masks, proposal.weights, strict=True):
        row[: len(weights)] = weights
    return masks


def _pending_state(pending: _Pending) -> State:
    """What waits for its latencies, with those that have arrived."""
    return {
        "step": pending.step,
        "proposals": [proposal.to_json() for proposal in pending.proposals],
        "measured": [_arrived(future) for future in pending.latencies],
        "qualities": list(pending.qualities),
    }


def _arrived(future: Future[LatencyAnswer] | None) -> dict[str, Any] | None:
    if future is None or not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result().to_json()
