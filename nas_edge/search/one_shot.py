"""The TuNAS loop: one set of shared weights, one controller, one device in the loop.

One step:

1. propose architectures (during warm-up, some decisions run all their choices or their widest);
2. ask the device for their latencies; when the device is this very host, wait for them before anything trains;
3. train the shared weights, one batch per proposal, one after another: on one machine that is worth more than
   averaging the gradients of all proposals as a TPU pod must;
4. score each proposal on a validation batch with the updated weights;
5. join quality and latency in a reward, and update the controller.

So a remote device measures while the weights train. With `reward_delay_steps` it may go on doing so over the next
steps: a reward then reaches the controller exactly that many steps late, whatever the device's pace, so results do not
depend on timing; every trial records both steps.

While the controller rests (the delay) only step 3 is done: rewards of an untrained supernet would teach nothing.

Source: TuNAS, arXiv:2008.06120; US11347995; reference code `mobile_architecture_search.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from device_agents.api import Measurement
from nas_edge.config import SearchConfig
from nas_edge.controllers.base import Controller, Outcome, Proposal, State
from nas_edge.errors import RunError, TrainingError
from nas_edge.latency.source import CANDIDATE_FAULTS, Candidate, LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.networks.graph import NetworkSpec
from nas_edge.rewards import REWARDS, Objective
from nas_edge.search import warmup
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import one_hot_masks

Batch: TypeAlias = "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"

# A bench that gives this many unusable answers in a row is broken, and a search on it would learn nothing.
UNUSABLE_IN_A_ROW = 20


class Batches(Protocol):
    """Batches without end, whose position can be kept and gone back to."""

    def __next__(self) -> Batch:
        """Images `[batch, height, width, channels]` and labels `[batch]`."""

    def state(self) -> Mapping[str, Any]:
        """The position, as JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state()` returned."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: from 0.
        loss: mean training loss of the step's proposals.
        trials: judged architectures; empty during the delay.
        entropy: of the controller, in nats; None for one without a policy.
    """

    step: int
    loss: float
    trials: tuple[Trial, ...]
    entropy: float | None


@dataclass(frozen=True)
class _Pending:
    """Proposals of one step whose latencies are being measured."""

    step: int
    proposals: Sequence[Proposal]
    networks: Sequence[NetworkSpec]
    latencies: Sequence[Future[Measurement] | None]
    qualities: Sequence[float]


class OneShotSearch:
    """The loop and everything it carries from step to step.

    Args:
        space: where to search.
        controller: what proposes.
        weights: the shared weights.
        source: what says how long a network takes.
        objectives: resources with targets; the reward joins them with quality.
        train: batches for the weights.
        validation: batches for the quality.
        rng: the controller's randomness.
        config: settings of the loop.
    """

    def __init__(
        self,
        space: SearchSpace,
        controller: Controller,
        weights: SharedWeights,
        source: LatencySource,
        objectives: Sequence[Objective],
        train: Batches,
        validation: Batches,
        rng: np.random.Generator,
        config: SearchConfig,
    ) -> None:
        self.space, self.controller, self.weights, self.source = space, controller, weights, source
        self.objectives = tuple(objectives)
        self.train, self.validation, self._rng, self.config = train, validation, rng, config
        self._reward = REWARDS[config.reward]
        self._unusable = 0
        self._pending: deque[_Pending] = deque()
        self.step = 0

    def run(self, on_step: Callable[[StepReport], None] | None = None) -> None:
        """Does the remaining steps.

        Raises:
            TrainingError: when the loss is no longer a number.
            RunError: when the bench keeps giving answers that cannot be used.
            DeviceError: when the bench is broken.
        """
        while self.step < self.config.steps:
            report = self.take_step()
            if on_step is not None:
                on_step(report)

    def take_step(self) -> StepReport:
        """Does one step."""
        step, config = self.step, self.config
        learning = step >= config.delay_steps
        probabilities = {
            "op": warmup.probability(step, math.floor(config.steps * config.op_warmup_fraction)),
            "filters": warmup.probability(step, math.floor(config.steps * config.filter_warmup_fraction)),
        }
        proposals = warmup.propose(self.controller, config.samples_per_step, self._rng, probabilities)
        networks = [self.space.decode(self.space.canonical(p.architecture)) for p in proposals] if learning else []
        latencies = [self._ask(proposal, network) for proposal, network in zip(proposals, networks, strict=False)]
        if self.source.measures_on_host:
            wait([future for future in latencies if future is not None])

        losses = []
        for proposal in proposals:
            images, labels = next(self.train)
            losses.append(self.weights.train_step(images, labels, self._masks(proposal)))
        if not all(map(math.isfinite, losses)):
            raise diverged(f"the loss is {losses}", step, config)
        if learning:
            images, labels = next(self.validation)
            qualities = [self._accuracy(images, labels, self._masks(proposal)) for proposal in proposals]
            self._pending.append(_Pending(step, proposals, networks, latencies, qualities))
        trials: list[Trial] = []
        is_last = step + 1 == config.steps
        while self._pending and (is_last or step - self._pending[0].step >= config.reward_delay_steps):
            trials += self._settle(self._pending.popleft())
        self.step += 1
        return StepReport(step, float(np.mean(losses)), tuple(trials), self.controller.entropy())

    def state(self) -> State:
        """Everything the next step depends on but the weights (`weights.arrays()`), as JSON values."""
        return {
            "step": self.step,
            "unusable": self._unusable,
            "controller": self.controller.state(),
            "rng": self._rng.bit_generator.state,
            "train": dict(self.train.state()),
            "validation": dict(self.validation.state()),
            "pending": [_pending_state(pending) for pending in self._pending],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state()` returned; latencies that had not arrived then are asked for again.

        Raises:
            RunError: when the state is of another controller or space.
        """
        self.controller.restore(state["controller"])
        self.step, self._unusable = state["step"], state["unusable"]
        self._rng.bit_generator.state = state["rng"]
        self.train.restore(state["train"])
        self.validation.restore(state["validation"])
        self._pending = deque(map(self._restored, state["pending"]))

    def _restored(self, pending: Mapping[str, Any]) -> _Pending:
        proposals = [Proposal.from_json(row) for row in pending["proposals"]]
        networks = [self.space.decode(self.space.canonical(proposal.architecture)) for proposal in proposals]
        latencies = []
        for proposal, network, measured in zip(proposals, networks, pending["measured"], strict=True):
            if measured is None:
                latencies.append(self._ask(proposal, network))
            else:
                known: Future[Measurement] = Future()
                known.set_result(Measurement.from_json(measured))
                latencies.append(known)
        return _Pending(pending["step"], proposals, networks, latencies, pending["qualities"])

    def _settle(self, pending: _Pending) -> list[Trial]:
        """Waits for the latencies of an earlier step (or this one) and lets the controller learn from them."""
        trials = []
        for proposal, network, future, quality in zip(
            pending.proposals, pending.networks, pending.latencies, pending.qualities, strict=True
        ):
            measurement = None if future is None else future.result()
            trials.append(self._judge(pending.step, proposal.architecture, network, quality, measurement))
        self._learn(pending.proposals, trials)
        return trials

    def judge(self, architecture: Architecture, images: Any, labels: Any) -> Trial:
        """Scores and measures one architecture with the weights as they are, outside the loop.

        Args:
            architecture: any point of the space.
            images: validation images `[batch, height, width, channels]`.
            labels: `[batch]`.
        """
        canonical = self.space.canonical(architecture)
        network = self.space.decode(canonical)
        future = self.source.submit(Candidate(network, canonical))
        measurement = future.result()
        quality = self._accuracy(images, labels, one_hot_masks(self.space, canonical))
        return self._judge(self.step, canonical, network, quality, measurement)

    def _accuracy(self, images: Any, labels: Any, masks: np.ndarray[Any, Any]) -> float:
        quality = self.weights.accuracy(images, labels, masks)
        if not math.isfinite(quality):
            raise diverged("what a network answers is not numbers", self.step, self.config)
        return quality

    def _ask(self, proposal: Proposal, network: NetworkSpec) -> Future[Measurement] | None:
        """Asks for a proposal's latency. One that runs several operators at once is no single network."""
        if proposal.mixed:
            return None
        return self.source.submit(Candidate(network, self.space.canonical(proposal.architecture)))

    def _masks(self, proposal: Proposal) -> np.ndarray[Any, np.dtype[np.float32]]:
        masks = np.zeros((len(proposal.weights), max(map(len, proposal.weights))), np.float32)
        for row, weights in zip(masks, proposal.weights, strict=True):
            row[: len(weights)] = weights
        return masks

    def _judge(
        self,
        step: int,
        architecture: Architecture,
        network: NetworkSpec,
        quality: float,
        measurement: Measurement | None,
    ) -> Trial:
        usage = self._usage(network, measurement)
        reward = None if usage is None else self._reward(quality, usage, self.objectives)
        return Trial(step, self.step, self.space.canonical(architecture), quality, measurement, usage, reward)

    def _usage(self, network: NetworkSpec, measurement: Measurement | None) -> dict[Any, float] | None:
        """Value of each resource, or None when the latency is not to be relied on."""
        latency_ms = None if measurement is None else measurement.latency_ms
        if latency_ms is None:
            return None
        analysis = analyze(network)
        values = {
            "latency_ms": latency_ms,
            "macs": float(analysis.macs),
            "parameters": float(analysis.parameters),
            "peak_memory_bytes": float(analysis.peak_memory_bytes),
        }
        return {objective.resource: values[objective.resource] for objective in self.objectives}

    def _learn(self, proposals: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        """Tells the controller what can be told: what the bench failed to time is not the candidate's doing."""
        outcomes = []
        for proposal, trial in zip(proposals, trials, strict=True):
            verdict = None if trial.measurement is None else trial.measurement.verdict
            if trial.reward is not None or verdict in CANDIDATE_FAULTS:
                outcomes.append(Outcome(proposal, trial.reward))
                self._unusable = 0
            elif verdict is not None:
                self._unusable += 1
        if self._unusable >= UNUSABLE_IN_A_ROW:
            last = next(t.measurement for t in reversed(trials) if t.measurement is not None)
            raise RunError(
                f"the last {self._unusable} measurements on {self.source.name} cannot be used: {last.verdict}, "
                f"{last.detail}. Close other programs, or measure longer with --set measure.max_duration_s=2"
            )
        self.controller.update(outcomes, self.step)


def diverged(what: str, step: int, config: SearchConfig) -> TrainingError:
    """What to raise when the shared weights, or what follows from them, are no longer numbers."""
    return TrainingError(
        f"the training of the shared weights has diverged: at step {step} {what}. What was measured is in the journal; "
        "start a new run that learns more slowly, for example with "
        f"--set search.weights.learning_rate={config.weights.learning_rate / 2:.2g}"
    )


def _pending_state(pending: _Pending) -> State:
    """What waits for its latencies, with those that have arrived."""
    return {
        "step": pending.step,
        "proposals": [proposal.to_json() for proposal in pending.proposals],
        "measured": [_arrived(future) for future in pending.latencies],
        "qualities": list(pending.qualities),
    }


def _arrived(future: Future[Measurement] | None) -> dict[str, Any] | None:
    if future is None or not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result().to_json()
