"""`SearchLoop`: the contract of a search method, free of TensorFlow.

    propose -> evaluate -> learn, step by step; `state` and `arrays` are everything that the next step depends on

`search.recorded` keeps every step on disk, whatever the method. `nas_edge.testing.check_search_loop` checks what is
promised here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.controllers.base import Controller, Outcome, Proposal, State
from nas_edge.errors import ConfigError, RunError, TrainingError
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.source import CANDIDATE_FAULTS
from nas_edge.networks.donor import Donor, Start
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.faults import FaultWatch
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace

if TYPE_CHECKING:
    import numpy as np

    from nas_edge.networks.graph import NetworkSpec, Weights


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: from 0.
        loss: mean training loss of the step's proposals; None where a step trains no shared weights.
        trials: evaluated architectures; empty while the controller rests.
        entropy: of the controller, in nats; None for one without a policy.
    """

    step: int
    loss: float | None
    trials: tuple[Trial, ...]
    entropy: float | None


class SearchLoop(ABC):
    """A search that goes on step by step.

    Args:
        controller: what proposes.
        evaluator: what says how good a proposal is.
        rng: the controller's randomness.
        steps: of the whole search.

    Attributes:
        step: the step that is made next.
    """

    def __init__(self, controller: Controller, evaluator: Evaluator, rng: np.random.Generator, steps: int) -> None:
        self.controller, self.evaluator, self.rng, self.steps = controller, evaluator, rng, steps
        self.step = 0
        self._faults = FaultWatch()

    @property
    def space(self) -> SearchSpace:
        """Where the search is."""
        return self.evaluator.space

    @abstractmethod
    def take_step(self) -> StepReport:
        """Makes one step.

        Raises:
            TrainingError: when what is trained diverges.
            UnreliableLatencyError: when the bench keeps giving answers that cannot be used.
            DeviceError: when the bench is broken.
        """

    def run(self, on_step: Callable[[StepReport], None] | None = None) -> None:
        """Makes the remaining steps. Errors are those of `take_step`."""
        while self.step < self.steps:
            report = self.take_step()
            if on_step is not None:
                on_step(report)

    def evaluate(self, architecture: Architecture) -> Trial:
        """Scores and measures one architecture as the search has left things, outside the loop."""
        return self.evaluate_all([architecture])[0]

    def evaluate_all(self, architectures: Sequence[Architecture]) -> list[Trial]:
        """Likewise of several, which may be measured side by side."""
        return self.evaluator.evaluate_all(architectures, self.step)

    def state(self) -> State:
        """Everything the next step depends on but `arrays`, as JSON values. Subclasses add theirs."""
        return {
            "step": self.step,
            **self._faults.state(),
            "controller": self.controller.state(),
            "rng": self.rng.bit_generator.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned.

        Raises:
            RunError: when the state is of another controller or space.
        """
        self.controller.restore(state["controller"])
        self.step = state["step"]
        self._faults.restore(state)
        self.rng.bit_generator.state = state["rng"]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The trained weights, by name; empty for a method that keeps none from step to step."""
        return {}

    def restore_arrays(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Continues from what `arrays` returned.

        Raises:
            RunError: when they do not fit; nothing was changed.
        """
        if arrays:
            raise RunError(
                "this checkpoint holds weights, which this search method does not have", fix="start a new run"
            )

    def weights_of(self, network: NetworkSpec) -> Weights:
        """The trained weights of one network, to start its own training from.

        Raises:
            ConfigError: for a method that has none.
        """
        raise ConfigError("export.weights=shared requires shared weights, which this search method does not have")

    def start_from(self, donor: Donor) -> Start | None:
        """Takes what fits of other weights, before the first step.

        Returns:
            What was taken; None for a method that keeps no weights from step to step.
        """
        return None

    def diverged(self, what: str) -> TrainingError:
        """What to raise when weights, or what follows from them, are no longer numbers."""
        return TrainingError(f"the search has diverged: at step {self.step} {what}")

    def remember(self, trials: Sequence[Trial]) -> None:  # noqa: B027 - a method may have nothing to remember
        """Takes in trials of before an interruption: what they tell need not be found out again."""

    def learn(self, proposals: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        """Tells the controller what can be told: what the bench failed to time is not the candidate's doing.

        Raises:
            UnreliableLatencyError: when the bench keeps giving answers that cannot be used, see `FaultWatch`.
        """
        for trial in trials:
            self._faults.take(trial.latency, self.evaluator.latency.name, trial.adjusted is not None)
            self.evaluator.take(trial)
        self.tell(proposals, trials)

    def tell(self, proposals: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        """Has the controller alone learn: what else a resumed search is to know has to be in the journal."""
        outcomes = [
            Outcome(proposal, trial.reward, trial.quality, self._usage_told(trial))
            for proposal, trial in zip(proposals, trials, strict=True)
            if _is_told(trial)
        ]
        self.controller.update(outcomes, self.step)

    def _usage_told(self, trial: Trial) -> Mapping[str, float] | None:
        """What a controller may model: where some latencies are measured, those that are predicted would mislead it."""
        predicted = trial.latency is not None and trial.latency.kind is LatencyKind.PREDICTED
        return None if predicted and self.evaluator.latency.measures_some else trial.usage


def _is_told(trial: Trial) -> bool:
    """Whether a controller is to learn from a trial: it has a reward, or the candidate itself failed."""
    if trial.reward is not None:
        return True
    # One that has a latency and yet no quality could not be trained.
    return trial.verdict in CANDIDATE_FAULTS or (trial.latency_ms is not None and trial.quality is None)
