"""Multi-trial search: every architecture is evaluated on its own.

One step proposes architectures, asks for their latencies and their qualities (a short training each, or a look-up in a
table), joins both in rewards, and updates the controller. A network that comes up again is not scored again.

Sources: MnasNet, arXiv:1807.11626 (each sample trained for five epochs); the random and evolutionary baselines of
NAS-Bench-101, arXiv:1902.09635.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from nas_edge.controllers import CONTROLLERS
from nas_edge.controllers.base import Controller, as_proposed
from nas_edge.latency.source import Candidate
from nas_edge.quality import QUALITY_SOURCES, QualitySettings
from nas_edge.quality.source import Quality
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.loop import SearchLoop, StepReport
from nas_edge.search.settings import SearchSettings
from nas_edge.search.trials import Trial
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture

_CONTROLLER = "surrogate"


class MultiTrialSettings(SearchSettings):
    """Settings of `multi-trial`."""

    method: str = Field("multi-trial", description="how architectures are evaluated")
    steps: int = Field(150, ge=1, le=10**9)
    # Evaluations are few and dear here, which is what a model of them is for.
    controller: Annotated[ChoiceSettings, CONTROLLERS] = Field(
        default_factory=lambda: CONTROLLERS.settings(_CONTROLLER), description="what proposes architectures"
    )
    quality: Annotated[QualitySettings, QUALITY_SOURCES] = Field(
        default_factory=QUALITY_SOURCES.default,
        description="where the quality of an architecture comes from",
    )

    @field_validator("controller", mode="before")
    @classmethod
    def _settings_alone(cls, given: Any) -> Any:
        """Settings without a name are those of the default, which is another one than the table's."""
        return {"name": _CONTROLLER, **given} if isinstance(given, Mapping) else given

    @property
    def quality_origin(self) -> str:
        """See `SearchSettings`; nothing is known of a source that is not installed."""
        return self.quality.origin if isinstance(self.quality, QualitySettings) else ""


class MultiTrialSearch(SearchLoop):
    """The loop.

    Args:
        controller: what proposes.
        evaluator: what says how good a proposal is.
        rng: the controller's randomness.
        settings: of the loop.
    """

    def __init__(
        self, controller: Controller, evaluator: Evaluator, rng: np.random.Generator, settings: MultiTrialSettings
    ) -> None:
        super().__init__(controller, evaluator, rng, settings.steps)
        self._samples = settings.samples_per_step
        self._qualities: dict[Architecture, Quality] = {}

    def take_step(self) -> StepReport:
        """See `SearchLoop`."""
        proposed = self.controller.propose(self._samples, self.rng)
        proposals = [as_proposed(self.space, architecture) for architecture in proposed]
        candidates = [self.evaluator.candidate(proposal.architecture, self.step) for proposal in proposals]
        latencies = [self.evaluator.latency.submit(candidate) for candidate in candidates]
        if self.evaluator.latency.measures_on_host:
            wait(latencies)
        qualities = [self._quality(candidate) for candidate in candidates]
        trials = [
            self.evaluator.assess(candidate, quality, future.result(), self.step, self.step)
            for candidate, quality, future in zip(candidates, qualities, latencies, strict=True)
        ]
        self.learn(proposals, trials)
        report = StepReport(self.step, None, tuple(trials), self.controller.entropy())
        self.step += 1
        return report

    def remember(self, trials: Sequence[Trial]) -> None:
        """See `SearchLoop`: a quality is found out once."""
        for trial in trials:
            if trial.quality is not None:
                self._qualities[self.space.of_network(trial.architecture)] = Quality(trial.quality)

    def _quality(self, candidate: Candidate) -> Quality:
        assert candidate.architecture is not None
        network = self.space.of_network(candidate.architecture)
        known = self._qualities.get(network)
        if known is None:
            known = self._qualities[network] = self.evaluator.quality.evaluate(candidate)
        return known
